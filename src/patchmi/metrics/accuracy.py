"""What the judges say: accuracy, confidence, consensus, worst class and the judges' agreement.

References: Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological
Measurement 20 (1960). The vote of several judges with rejection is patchmi's own (DESIGN.md 4); the
rejection answers "Type-I" pictures, which one classifier accepts without their showing the class.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from patchmi.metrics.intervals import Estimate, clopper_pearson
from patchmi.types import Labels, Logits


class WorstClass(NamedTuple):
    """The class that came out worst, and its rate."""

    label: int
    rate: Estimate


def top_k_hits(logits: Logits, labels: Labels, k: int = 1) -> Bool[Tensor, " n"]:
    """Whether each label is among its image's k highest logits. With k classes or fewer, always."""
    top = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (top == labels[:, None]).any(dim=1)


def top_k_accuracy(logits: Logits, labels: Labels, k: int = 1) -> float:
    """Share of images whose label is among the k highest logits, in [0, 1].

    Raises:
        ValueError: If there is no image.
    """
    if labels.numel() == 0:
        raise ValueError("accuracy needs at least one image")
    return float(top_k_hits(logits, labels, k).double().mean())


def confidence(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    """Softmax probability of each image's label, in [0, 1]."""
    return logits.double().softmax(dim=1).gather(1, labels[:, None].long())[:, 0]


def confidence_floor(held_out_logits: Logits, rejected_share: float = 0.05) -> float:
    """A judge's confidence in its own answer that this share of real held-out images falls short of.

    Raises:
        ValueError: If there is no image.
    """
    if held_out_logits.shape[0] == 0:
        raise ValueError("a judge's confidence floor needs at least one held-out image")
    return float(held_out_logits.double().softmax(dim=1).amax(dim=1).quantile(rejected_share))


def consensus_hits(
    judge_logits: Float[Tensor, "judges n classes"],
    labels: Labels,
    *,
    needed: int = 2,
    floors: Float[Tensor, " judges"] | None = None,
) -> Bool[Tensor, " n"]:
    """Whether at least `needed` judges name the label.

    Args:
        judge_logits: Every judge's logits for every image.
        labels: The class each image is meant to show.
        needed: Votes that make a hit.
        floors: Each judge's `confidence_floor`; a judge less sure than that of its answer has no vote.

    Raises:
        ValueError: If more votes are needed than there are judges, or none is.
    """
    judge_count = judge_logits.shape[0]
    if not 1 <= needed <= judge_count:
        raise ValueError(
            f"{needed} votes needed of {judge_count} judges: give a number from 1 to {judge_count}"
        )
    votes = judge_logits.argmax(dim=2) == labels
    if floors is not None:
        sureness = judge_logits.double().softmax(dim=2).amax(dim=2)
        votes &= sureness >= floors[:, None].to(sureness)
    return votes.sum(dim=0) >= needed


def class_means(
    values: Shaped[Tensor, " n"], *, labels: Labels, classes: Int[Tensor, " classes"]
) -> Float[Tensor, " classes"]:
    """Mean value of each class's images: the rates that `cluster_interval` takes, one row a seed.

    Args:
        values: One number or truth value per image.
        labels: The images' classes.
        classes: The classes to report, in the order of the answer.

    Raises:
        ValueError: If a class has no image.
    """
    belongs = labels[None, :] == classes[:, None]
    counts = belongs.sum(dim=1)
    if bool((counts == 0).any()):
        raise ValueError(
            f"class {int(classes[counts == 0][0])} has no image: a class's mean needs at least one"
        )
    return torch.where(belongs, values.double(), 0.0).sum(dim=1) / counts


def worst_class(
    rates: Float[Tensor, "seeds classes"],
    *,
    classes: Int[Tensor, " classes"],
    image_count: int,
    level: float = 0.95,
) -> WorstClass:
    """The class with the lowest mean rate over the seeds.

    Its interval is Clopper-Pearson's over that class's images of all seeds. It speaks of these generators
    only, and not of having picked the worst among many.

    Args:
        rates: Rate in [0, 1] per seed and class.
        classes: The class of each column.
        image_count: Images of one class and seed.
        level: Confidence level, between 0 and 1.
    """
    means = rates.double().mean(dim=0)
    worst = int(means.argmin())
    trials = image_count * rates.shape[0]
    rate = clopper_pearson(round(float(means[worst]) * trials), trials, level)
    return WorstClass(label=int(classes[worst]), rate=rate)


def cohen_kappa(first: Int[Tensor, " first"], second: Int[Tensor, " second"]) -> float:
    """Agreement of two judges' predicted labels beyond chance, in [-1, 1]; nan if all are one same label.

    Raises:
        ValueError: If there is no prediction, or one judge has more than the other.
    """
    if first.numel() == 0 or first.shape != second.shape:
        raise ValueError(
            f"kappa needs two judges' labels of the same images: got {len(first)} and {len(second)}"
        )
    class_count = int(torch.maximum(first.max(), second.max())) + 1
    table = torch.bincount(first.long() * class_count + second.long(), minlength=class_count**2)
    table = table.view(class_count, class_count).double() / first.numel()
    observed = float(table.trace())
    by_chance = float(table.sum(dim=0) @ table.sum(dim=1))
    return (observed - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")


def judge_agreement(predictions: Int[Tensor, "judges n"]) -> Float[Tensor, "judges judges"]:
    """Cohen's kappa of every pair of judges, from the labels each predicts for the same images."""
    judge_count = predictions.shape[0]
    kappas = torch.eye(judge_count, dtype=torch.float64)
    for first in range(judge_count):
        for second in range(first):
            kappa = cohen_kappa(predictions[first], predictions[second])
            kappas[first, second] = kappas[second, first] = kappa
    return kappas


def lowest_agreement(predictions: Int[Tensor, "judges n"]) -> float:
    """The lowest kappa of any pair of judges (nan if one is undefined): what the verdict asks of them.

    Raises:
        ValueError: If there are fewer than two judges.
    """
    judge_count = predictions.shape[0]
    if judge_count < 2:
        raise ValueError(f"agreement needs two judges or more: got {judge_count}")
    rows, columns = torch.tril_indices(judge_count, judge_count, offset=-1)
    return float(judge_agreement(predictions)[rows, columns].min())
