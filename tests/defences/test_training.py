"""The trainer's hooks, and what holds for every defence."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from patchmi.defences import AbstractDefence, EarlyStopping, Lesson, NoDefence, choose_defence, train_defended
from patchmi.networks import ARCHITECTURES, Classifier, stages
from patchmi.target import Batch, Hooks, Training, cross_entropy, train_classifier

BRIEF = Training(step_count=12, batch_size=16, learning_rate=5e-3, precision="float32")


def bars(count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A standing bar (0), a lying one (1), or a square (2), somewhere in noise."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = 0.2 * torch.rand(count, 1, 16, 16, generator=random)
    for image, label in zip(images, labels.tolist(), strict=True):
        down, across = (int(torch.randint(1, 5, (1,), generator=random)) for _ in range(2))
        height, width = [(10, 3), (3, 10), (8, 8)][label]
        image[0, down : down + height, across : across + width] = 1
    return images, labels


def train(
    defence: AbstractDefence,
    *,
    training: Training = BRIEF,
    validation: tuple[Tensor, Tensor] | None = None,
) -> Classifier:
    lesson = Lesson(*bars(48), training, class_count=3)
    return train_defended("resnet10", defence, lesson, seed=0, validation=validation, width=8).network


def weights(network: nn.Module) -> bytes:
    return b"".join(value.cpu().numpy().tobytes() for value in network.state_dict().values())


@dataclass(frozen=True)
class Watching(AbstractDefence):
    """Freezes the first stages, and keeps what it is shown."""

    strength: float = 1.0

    @contextmanager
    def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
        frozen = tuple(stages(network)[: int(self.strength)])
        before = [{name: value.clone() for name, value in part.state_dict().items()} for part in frozen]
        yield Hooks(frozen=frozen)
        for part, old in zip(frozen, before, strict=True):
            for name, value in part.state_dict().items():
                assert torch.equal(value, old[name]), name
        lesson.notes.append("Watched.")


def test_no_defence_is_the_plain_trainer_to_the_bit() -> None:
    images, labels = bars(48)
    defended = train(NoDefence())
    torch.manual_seed(0)
    plain = ARCHITECTURES["resnet10"](class_count=3, channel_count=1, width=8)
    train_classifier(plain, images=images, labels=labels, training=BRIEF, seed=0)
    assert weights(defended) == weights(plain)


def test_what_is_frozen_stays_to_the_bit_with_its_statistics_and_the_rest_learns() -> None:
    fresh = train(NoDefence(), training=Training(step_count=1, learning_rate=0.0, batch_size=16))
    frozen = train(Watching(3.0))  # asserts inside
    last = [stages(one)[-1].state_dict() for one in (fresh, frozen)]
    assert any(not torch.equal(a, b) for a, b in zip(last[0].values(), last[1].values(), strict=True))
    assert all(weight.requires_grad for weight in frozen.parameters())


def test_stopping_early_takes_the_first_steps_of_the_whole_training() -> None:
    seen: dict[float, list[float]] = {}

    @dataclass(frozen=True)
    class Counting(AbstractDefence):
        strength: float = 0.0

        @contextmanager
        def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
            shares = seen.setdefault(self.strength, [])

            def loss(batch: Batch) -> Tensor:
                shares.append(batch.share_done)
                return cross_entropy(batch)

            yield Hooks(loss=loss, stop_share=1 - self.strength)

    train(Counting(0.0))
    train(Counting(0.75))
    assert len(seen[0.0]) == 12
    assert seen[0.75] == seen[0.0][:3]
    assert weights(train(EarlyStopping(0.75))) == weights(train(Counting(0.75)))


def test_validation_chooses_the_moment_that_knows_it_best() -> None:
    """Labels of the validation set that no training can learn: a network that never learnt is as good."""
    images, labels = bars(48, seed=1)
    training = Training(step_count=40, batch_size=16, learning_rate=5e-3, precision="float32")
    last = train(NoDefence(), training=training)
    truly = train(NoDefence(), training=training, validation=(images, labels))
    wrongly = train(NoDefence(), training=training, validation=(images, (labels + 1) % 3))
    accuracy = [float((one(images).argmax(1) == labels).float().mean()) for one in (last, truly, wrongly)]
    assert accuracy[1] >= accuracy[0]
    assert accuracy[2] < accuracy[1]


@pytest.mark.parametrize(
    ("name", "strength", "message"),
    [
        ("nonsense", None, "there is none of this name; give one of none, "),
        ("none", 0.5, "none, strength 0.5: has no strength"),
        ("early-stopping", 1.0, "early-stopping, strength 1: give a share"),
    ],
)
def test_wrong_names_and_strengths_are_refused_in_one_line(
    name: str, strength: float | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        choose_defence(name, strength)
    assert "\n" not in str(caught.value)
