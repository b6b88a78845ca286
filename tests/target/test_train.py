from collections.abc import Iterable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from patchmi.networks import ARCHITECTURES
from patchmi.target import Training, train_classifier

SIDE = 16


def standing_bars(count: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A standing bar on the left half (class 0) or on the right half (class 1), in some noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.2 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
    for image, label in zip(images, labels, strict=True):
        first = int(torch.randint(2, 5, (1,), generator=generator)) + 8 * int(label)
        image[0, 2:14, first : first + 2] = 1
    return images, labels


def fresh(name: str = "vgg6") -> nn.Module:
    torch.manual_seed(0)
    return ARCHITECTURES[name](class_count=2, channel_count=1, width=8)


def train(
    model: nn.Module, *, seed: int = 0, step_count: int = 3, batch_size: int = 16, **changes: bool
) -> nn.Module:
    images, labels = standing_bars(40)
    training = Training(step_count=step_count, batch_size=batch_size, precision="float32", **changes)
    return train_classifier(model, images=images, labels=labels, training=training, seed=seed)


def weights(model: nn.Module) -> bytes:
    return b"".join(value.cpu().numpy().tobytes() for value in model.state_dict().values())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_learns_which_side_a_bar_stands_on(name: str) -> None:
    model = fresh(name)
    images, labels = standing_bars(96)
    unseen, truth = standing_bars(50, seed=1)
    with torch.no_grad():
        before = F.cross_entropy(model(images), labels)
    train_classifier(
        model, images=images, labels=labels, training=Training(step_count=30, batch_size=32), seed=1
    )
    with torch.no_grad():
        after = F.cross_entropy(model(images), labels)
        accuracy = (model(unseen).argmax(dim=1) == truth).float().mean()
    assert after < before / 3
    assert accuracy >= 0.95


def test_shuffled_labels_teach_nothing_about_unseen_bars() -> None:
    model = fresh()
    images, labels = standing_bars(96)
    shuffled = labels[torch.randperm(96, generator=torch.Generator().manual_seed(0))]
    train_classifier(
        model, images=images, labels=shuffled, training=Training(step_count=30, batch_size=32), seed=1
    )
    unseen, truth = standing_bars(50, seed=1)
    assert (model(unseen).argmax(dim=1) == truth).float().mean() < 0.9


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = train(fresh(), seed=4), train(fresh(), seed=4), train(fresh(), seed=5)
    assert weights(first) == weights(again)
    assert weights(first) != weights(other)


def test_what_was_drawn_before_does_not_matter_and_what_is_drawn_after_is_not_moved() -> None:
    models = []
    for disturbance in (11, 12):
        model = fresh()
        torch.manual_seed(disturbance)
        expected = torch.rand(3)
        torch.manual_seed(disturbance)
        models.append(train(model))
        assert torch.equal(torch.rand(3), expected)
    assert weights(models[0]) == weights(models[1])


def test_the_model_itself_is_trained_and_returned_in_evaluation_mode() -> None:
    model = fresh()
    before = weights(model)
    trained = train(model)
    assert trained is model
    assert weights(trained) != before
    assert not any(layer.training for layer in trained.modules())


def test_training_starts_from_the_weights_it_is_given() -> None:
    torch.manual_seed(1)
    elsewhere = ARCHITECTURES["vgg6"](class_count=2, channel_count=1, width=8)
    assert weights(train(fresh())) != weights(train(elsewhere))


def test_images_and_labels_are_left_as_they_were() -> None:
    images, labels = standing_bars(20)
    kept_images, kept_labels = images.clone(), labels.clone()
    train_classifier(
        fresh(),
        images=images,
        labels=labels,
        training=Training(step_count=3, batch_size=8, flips=True),
        seed=0,
    )
    assert torch.equal(images, kept_images)
    assert torch.equal(labels, kept_labels)


@pytest.mark.parametrize("step_count", range(1, 12))
def test_any_number_of_steps_can_be_trained(step_count: int) -> None:
    model = train(fresh("lenet"), step_count=step_count)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


class Diary(nn.Module):
    """A classifier of one weight that notes what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.shown: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shown.append(images.detach().clone())
        mass = images.sum(dim=(1, 2, 3))
        return torch.stack([mass, -mass], dim=1) * self.scale


def test_every_image_is_seen_once_an_epoch_in_an_order_that_changes() -> None:
    """Ten images told apart by their brightness, batches of four: 4 + 4 + 2."""
    images = (torch.arange(1.0, 11.0) / 10)[:, None, None, None].expand(-1, 1, SIDE, SIDE).contiguous()
    diary = Diary()
    training = Training(step_count=6, batch_size=4, precision="float32")
    train_classifier(
        diary, images=images, labels=torch.zeros(10, dtype=torch.long), training=training, seed=0
    )
    assert [len(batch) for batch in diary.shown] == [4, 4, 2, 4, 4, 2]
    seen = [round(float(image[0, SIDE // 2, SIDE // 2]) * 10) for batch in diary.shown for image in batch]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(1, 11))
    assert seen[:10] != seen[10:]


@pytest.mark.parametrize("flips", [True, False])
def test_images_are_varied_and_mirrored_only_if_asked(flips: bool) -> None:
    images, _ = standing_bars(32)
    left = images[::2].repeat(4, 1, 1, 1)
    diary = Diary()
    training = Training(step_count=2, batch_size=32, flips=flips, precision="float32")
    train_classifier(diary, images=left, labels=torch.zeros(64, dtype=torch.long), training=training, seed=0)
    shown = torch.cat(diary.shown)
    assert len({image.numpy().tobytes() for image in shown}) == 64
    on_the_right = (
        shown[..., SIDE // 2 :].sum(dim=(1, 2, 3)) > shown[..., : SIDE // 2].sum(dim=(1, 2, 3))
    ).sum()
    assert on_the_right > 16 if flips else on_the_right == 0


def test_the_learning_rate_rises_and_falls_so_that_the_last_steps_hardly_move() -> None:
    class Track(Diary):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.shown.append(self.scale.detach().clone())
            return torch.stack([self.scale, -self.scale]).expand(len(images), 2)

    track = Track()
    images = torch.rand(8, 1, SIDE, SIDE)
    training = Training(
        step_count=50, batch_size=8, learning_rate=0.01, weight_decay=0.0, precision="float32"
    )
    train_classifier(track, images=images, labels=torch.zeros(8, dtype=torch.long), training=training, seed=0)
    moves = torch.stack([*track.shown, track.scale.detach()]).diff().abs()
    assert 5 <= int(moves.argmax()) <= 20
    assert float(moves.max()) == pytest.approx(0.01, rel=0.25)
    assert moves[0] < moves.max() / 10
    assert moves[-1] < moves.max() / 100


def test_each_step_descends_the_gradient_of_its_own_batch_alone() -> None:
    """What the last step left in `grad` is the slope of the last batch's loss at that step's weight."""

    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.expected = torch.empty(())

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            weight = self.scale.detach().clone().requires_grad_()
            brightness = images.mean(dim=(1, 2, 3))
            loss = F.cross_entropy(torch.stack([brightness, -brightness], dim=1) * weight, zeros)
            (self.expected,) = torch.autograd.grad(loss, weight)
            return torch.stack([brightness, -brightness], dim=1) * self.scale

    slope, zeros = Slope(), torch.zeros(4, dtype=torch.long)
    images = torch.rand(4, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    training = Training(step_count=5, batch_size=4, precision="float32")
    train_classifier(slope, images=images, labels=zeros, training=training, seed=0)
    torch.testing.assert_close(slope.scale.grad, slope.expected)


def test_progress_is_given_every_step_and_a_description() -> None:
    told: list[object] = []

    def show(steps: Iterable[int], description: str) -> Iterable[int]:
        told.append(description)
        for step in steps:
            told.append(step)
            yield step

    images, labels = standing_bars(8)
    train_classifier(
        fresh("lenet"),
        images=images,
        labels=labels,
        training=Training(step_count=4, batch_size=4, precision="float32"),
        seed=0,
        progress=show,
        description="Judge",
    )
    assert told == ["Judge", 0, 1, 2, 3]
