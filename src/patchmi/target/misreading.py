"""Is the target read as it was trained? One that is not looks as if it gave nothing away."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from scipy.special import bdtr

from patchmi.target.access import Target, answers
from patchmi.target.reading import TargetInvalid
from patchmi.types import Images, Labels

SIGNIFICANCE = 1e-3
"""How often a target that is as good as declared would be stopped by chance, at most."""

_TRIED_COUNT = 256
"""Images that the search for a better reading asks about."""

_CLEARLY = 0.1
"""How much better another reading must be to be named."""

_NORMALISATIONS = (
    ((0.0,), (1.0,)),
    ((0.5,), (0.5,)),
    ((0.0,), (1 / 255,)),  # a network that takes pixels of 0 to 255
    ((0.1307,), (0.3081,)),  # MNIST
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet
    ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),  # CIFAR-10
)


class TargetMisread(TargetInvalid):
    """A target that is much worse than it should be: one line with the reading that suits it better."""


@dataclass(frozen=True)
class AccuracyCheck:
    """How good the target is on held-out images.

    Args:
        accuracy: Share of the images whose class has the greatest logit.
        image_count: How many images.
        finding: The same as a sentence for the report.
    """

    accuracy: float
    image_count: int
    finding: str


def check_accuracy(
    target: Target, *, images: Images, labels: Labels, declared: float | None
) -> AccuracyCheck:
    """Stop an audit of a target that is read wrongly.

    Args:
        target: As it is about to be attacked.
        images: Held-out private images in [0, 1].
        labels: Their classes.
        declared: The accuracy that it is said to have; None if nobody said.

    Raises:
        TargetMisread: If the accuracy is significantly below the declared one (exact one-sided binomial test
            at .001) or, where none is declared, below twice that of guessing (with two or three classes:
            below half of the way from guessing to 1).
        TargetInvalid: If there is no image, or a label that the target has no class for.
    """
    if len(images) == 0:
        raise TargetInvalid(f"{target.name}: no held-out image to measure its accuracy on")
    least, most = int(labels.min()), int(labels.max())
    if not 0 <= least <= most < target.class_count:
        raise TargetInvalid(
            f"{target.name}: has {target.class_count} classes, the images have labels from {least} to "
            f"{most}; give the images that it was made for"
        )
    predictions = answers(target, images).argmax(dim=1)
    correct, count = int((predictions == labels).sum()), len(images)
    accuracy = correct / count
    said = "" if declared is None else f", declared was {declared:.3g}"
    finding = f"The target's accuracy on {count:,} held-out images is {accuracy:.3g}{said}."
    chance = 1 / target.class_count
    too_low = (
        accuracy < min(2 * chance, (1 + chance) / 2)
        if declared is None
        else bdtr(correct, count, declared) < SIGNIFICANCE
    )
    if too_low:
        hint = _hint(target, images=images, labels=labels, predictions=predictions)
        raise TargetMisread(
            f"{target.name}: {finding.removesuffix('.')}: too low, as of a target that sees images in "
            f"another way than in training; {hint}"
        )
    return AccuracyCheck(accuracy, count, finding)


def _hint(target: Target, *, images: Images, labels: Labels, predictions: Labels) -> str:
    """The reading that gives the best accuracy and how to ask for it, or where else to look."""
    chosen = torch.linspace(0, len(images) - 1, min(len(images), _TRIED_COUNT)).long()
    tried = [
        (_share(answers(reading, seen).argmax(dim=1), labels[chosen]), words, remedy)
        for reading, seen, words, remedy in _readings(target, images[chosen])
    ]
    if len(images) >= 10 * target.class_count:
        words = "with its classes in another order"
        remedy = "give the images' classes in the order of the target's"
        in_order = _accuracy_in_best_order(predictions, labels, target.class_count)
        tried.append((in_order, words, remedy))
    # of equals the first, which is the plainest
    best, words, remedy = max(tried, key=lambda row: row[0], default=(0.0, "", ""))
    if best < _share(predictions, labels) + _CLEARLY:
        if target.address is not None:
            return "check --image-shape and the order of its classes, or give --declared-accuracy if so it is"
        return (
            "no usual normalisation, scale or order of channels or classes does better: check --image-shape "
            "and the weights, or give --declared-accuracy if this is what it is"
        )
    return f"{words} it is {best:.3g}: {remedy}"


def _readings(target: Target, images: Images) -> Iterator[tuple[Target, Images, str, str]]:
    """Other ways to show it the images, the plainest first: to whom, what, in words, how to ask for it."""
    channel_count = target.image_shape[0]
    if target.address is not None:
        return  # it gets bytes, and no more of them than it must
    ways = [("", "", images)]
    elsewhere = " and a model that takes images so (--architecture package.module:function)"
    if channel_count == 1:
        ways.append(("on images inverted ", elsewhere, 1 - images))
    elif channel_count == 3:
        ways.append(("on images blue first ", elsewhere, images.flip(1)))
    for words, remedy, seen in ways:
        for mean, std in _NORMALISATIONS:
            if len(mean) not in (1, channel_count):
                continue
            times = channel_count // len(mean)
            shift, scale = (" ".join(f"{number:.4g}" for number in part * times) for part in (mean, std))
            reading = replace(target, mean=mean * times, std=std * times)
            yield (
                reading,
                seen,
                f"{words}with mean {shift} and std {scale}",
                f"give --mean {shift} --std {scale}{remedy}",
            )


def _share(predictions: Labels, labels: Labels) -> float:
    return float((predictions == labels).float().mean())


def _accuracy_in_best_order(predictions: Labels, labels: Labels, class_count: int) -> float:
    """Accuracy if the target's classes were matched to the images' as well as can be."""
    from scipy.optimize import linear_sum_assignment

    counts = torch.bincount(labels * class_count + predictions, minlength=class_count**2)
    counts = counts.reshape(class_count, class_count).numpy()
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / len(labels))
