"""TL-DMI: what is frozen was learnt from public images alone, to the bit."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
import torch
from tests.defences.test_training import BRIEF, bars, weights
from torch import nn

from patchmi.defences import Lesson, TlDmi, choose_defence, train_defended
from patchmi.networks import build_classifier, stages
from patchmi.target import Training, train_classifier

FEW_STEPS = replace(BRIEF, step_count=4)


def public(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Four classes: bars and squares, dark on light, in each half."""
    images, labels = bars(count, seed=5)
    return 1 - images, labels.clamp_max(1) * 2 + (torch.arange(count) % 2)


def lesson(training: Training = FEW_STEPS) -> Lesson:
    return Lesson(*bars(48), training, class_count=3, public=public())


@pytest.mark.parametrize(
    ("architecture", "strength", "count"),
    [("resnet10", 0.2, 1), ("resnet10", 0.5, 3), ("resnet10", 1.0, 6), ("lenet", 0.5, 2), ("vgg6", 0.6, 7)],
)
def test_frozen_stages_are_what_public_images_alone_teach(
    architecture: str, strength: float, count: int
) -> None:
    """The private lesson of the second training has other images: nothing frozen may differ."""
    first = train_defended(architecture, TlDmi(strength), lesson(), seed=0, width=4)
    images, labels = bars(48, seed=2)
    other = replace(lesson(), images=1 - images, labels=labels)
    second = train_defended(architecture, TlDmi(strength), other, seed=0, width=4)
    same = [
        weights(one) == weights(two)
        for one, two in zip(stages(first.network), stages(second.network), strict=True)
    ]
    assert same == [place < count for place in range(len(same))]
    assert weights(first.network.head) != weights(second.network.head)
    (note,) = first.notes
    assert note == (
        f"Pre-trained on 40 public images of 4 other classes; {count} of {len(same)} stages stay as they "
        "were learnt there."
    )


def test_the_trunk_is_pre_trained_by_the_plain_trainer_with_a_head_for_the_public_classes() -> None:
    private = replace(lesson(), architecture="resnet10", width=4)
    network = build_classifier("resnet10", class_count=3, channel_count=1, width=4)
    head = weights(network.head)
    torch.manual_seed(3)
    with TlDmi(0.5).applied(network, private) as hooks:
        assert [id(part) for part in hooks.frozen] == [id(part) for part in stages(network)[:3]]
    torch.manual_seed(3)
    oracle: nn.Module = build_classifier("resnet10", class_count=4, channel_count=1, width=4)
    images, labels = public()
    seed = int(torch.randint(2**31, ()))
    train_classifier(oracle, images=images, labels=labels, training=FEW_STEPS, seed=seed)
    trained = {name: value for name, value in oracle.state_dict().items() if name.startswith("trunk")}
    assert trained
    for name, value in trained.items():
        assert torch.equal(network.state_dict()[name], value), name
    assert weights(network.head) == head


def test_both_trainings_show_how_far_they_are() -> None:
    seen: dict[str, int] = {}

    def progress(steps: Iterable[int], description: str) -> Iterator[int]:
        for step in steps:
            seen[description] = step + 1
            yield step

    train_defended("resnet10", TlDmi(0.5), lesson(), seed=0, width=4, progress=progress)
    assert seen == {"Pre-training on public images": 4, "Training the target": 4}


def test_frozen_stages_stay_through_a_choice_by_validation() -> None:
    training = replace(FEW_STEPS, step_count=10)
    both = [
        train_defended("resnet10", TlDmi(0.5), lesson(training), seed=0, width=4, validation=validation)
        for validation in (None, bars(30, seed=7))
    ]
    for one, two in zip(*(stages(each.network)[:3] for each in both), strict=True):
        assert weights(one) == weights(two)


def test_a_toy_still_learns_and_the_same_from_the_same_seed() -> None:
    training = Training(step_count=40, batch_size=24, learning_rate=5e-3, precision="float32")
    first, second = (
        train_defended("lenet", choose_defence("tl-dmi"), lesson(training), seed=0, width=4).network
        for _ in range(2)
    )
    assert weights(first) == weights(second)
    images, labels = bars(60, seed=9)
    assert float((first(images).argmax(1) == labels).float().mean()) > 0.8


def test_without_public_images_or_of_another_shape_it_says_what_to_give_in_one_line() -> None:
    for wrong, message in (
        (replace(lesson(), public=None), "give --pretraining, in a suite the key pretraining$"),
        (
            replace(lesson(), public=(torch.rand(4, 3, 16, 16), torch.arange(4))),
            "are 3×16×16, private ones 1×16×16; give images of the same channels and size$",
        ),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            train_defended("resnet10", TlDmi(0.5), wrong, seed=0, width=4)
        assert str(caught.value).startswith("tl-dmi, strength 0.5: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, float("nan")])
def test_wrong_strengths_are_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"tl-dmi, strength .*: give a share above 0 and at most 1$"):
        TlDmi(strength)
