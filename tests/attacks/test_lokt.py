"""LOKT: a GAN's class head learns the target's labels, and surrogates those of its images, in one budget."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from patchmi import losses
from patchmi.attacks.lokt import FOR_GAN, FOR_SURROGATES, Lokt, _Run, images_due
from patchmi.target import AccessDenied, LabelAccess, ScoreAccess, Target, WhiteBox
from patchmi.types import Bytes, Scores, silent

NAMES = ("dark", "left", "right")
SIDE = 8
SHAPE = (1, SIDE, SIDE)
SHORT = Lokt(
    step_count=3,
    gan_step_count=10,
    discriminator_step_count=2,
    batch_size=8,
    width=8,
    surrogates=("mlp",),
    surrogate_width=2,
    fit_step_count=3,
    precision="float32",
)
DOORS = {"label": LabelAccess, "score": ScoreAccess}


def brighter_side(images: Bytes) -> Scores:
    """Dark if neither side is bright, or else the side that is brighter."""
    left, right = (side.float().mean(dim=(1, 2, 3)) / 255 for side in images.split(SIDE // 2, dim=3))
    return torch.stack([torch.full_like(left, 0.3), left, right], dim=1).mul(20).softmax(dim=1)


def painted(greys: torch.Tensor) -> torch.Tensor:
    """Images of two greys: the left half's, and the right half's."""
    return greys[:, None, None, :].expand(-1, 1, SIDE, -1).repeat_interleave(SIDE // 2, dim=3)


def shades(count: int, *, seed: int = 0) -> torch.Tensor:
    """What the attacker has: either half of any grey."""
    return painted(torch.rand(count, 2, generator=torch.Generator().manual_seed(seed))).contiguous()


def open_door(kind: str = "label", *, budget: int = 200, oracle=brighter_side):
    return DOORS[kind](oracle, class_names=NAMES, image_shape=SHAPE, budget=budget)


def start(attack: Lokt = SHORT, **options) -> _Run:
    torch.manual_seed(0)
    return _Run(attack, open_door(**options), 4)


# The GAN


def test_the_class_head_is_told_what_was_answered():
    """By hand: softmax(ln 1, ln 3, ln 4) = 1/8, 3/8, 4/8."""
    logits = torch.tensor([[0.0, math.log(3), math.log(4)]]).repeat(2, 1)
    labels = torch.tensor([[0.0, 1, 0], [0, 0, 1]])
    assert float(losses.answer_loss(logits, labels)) == pytest.approx(math.log(8 / 3 * 8 / 4) / 2)
    scores = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    mixed = 0.5 * math.log(8) + 0.75 * math.log(8 / 3) + 0.75 * math.log(8 / 4)
    assert float(losses.answer_loss(logits, scores)) == pytest.approx(mixed / 2)


class Painter(nn.Module):
    """A generator of one grey that remembers the classes it was asked for."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.asked: list[torch.Tensor] = []

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.asked.append(labels)
        return self.value.expand(len(latents), *SHAPE)


class Judge(nn.Module):
    """Two heads that see the mean of an image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        means = self.scale * images.mean(dim=(1, 2, 3))
        return 2 * means, torch.stack([means, -means, torch.zeros_like(means)], dim=1)


def test_both_sides_of_the_duel_are_the_papers_number_by_number(monkeypatch):
    run = start(dataclasses.replace(SHORT, warm_up_share=0.0, class_weight=7.0))
    real, fake = 0.8, -0.6  # greys .9 and .2; the target calls the latter dark, class 0
    painter, judge = Painter(fake), Judge()
    monkeypatch.setattr(run, "generator", painter)
    monkeypatch.setattr(run, "discriminator", judge)
    for name, network in (("generator", painter), ("discriminator", judge)):
        frozen = torch.optim.SGD(network.parameters(), lr=1e-12)
        monkeypatch.setattr(run, f"{name}_optimiser", frozen)
    found = {name: term.item() for name, term in run.train_step(torch.full((5, *SHAPE), 0.9)).items()}
    meant = painter.asked[-1].tolist()

    def softplus(number: float) -> float:
        return math.log(1 + math.exp(number))

    def surprise(mean: float, label: int) -> float:
        logits = (mean, -mean, 0.0)
        return math.log(sum(math.exp(logit) for logit in logits)) - logits[label]

    def terms(*, scale: float = 1.0, value: float = fake) -> dict[str, float]:
        return {
            "discriminator": softplus(-2 * scale * real) + softplus(2 * scale * fake),
            "class_head": surprise(scale * fake, 0),
            "prior": softplus(-2 * value),
            "attack": sum(surprise(value, label) for label in meant) / len(meant),
        }

    assert found == pytest.approx(terms(), rel=1e-5)
    # What each network descends: its two terms, the second seven times.
    for gradient, first, second, moved in (
        (judge.scale.grad, "discriminator", "class_head", {"scale": 1 + 1e-5}),
        (painter.value.grad, "prior", "attack", {"value": fake + 1e-5}),
    ):
        rise = {name: (terms(**moved)[name] - terms()[name]) / 1e-5 for name in (first, second)}
        assert gradient is not None
        assert float(gradient) == pytest.approx(rise[first] + 7 * rise[second], rel=1e-3)


class Shader(nn.Module):
    """A generator that paints any two greys, whatever class it is asked for."""

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return painted((0.6 * latents[:, :2]).clamp(-1, 1))


def test_the_class_head_learns_the_targets_labels_and_not_the_ones_that_were_meant(monkeypatch):
    attack = dataclasses.replace(SHORT, warm_up_share=0.0, batch_size=64, gan_step_count=30, gan_share=0.9)
    run = start(attack, budget=1000)
    monkeypatch.setattr(run, "generator", Shader())
    run.discriminator_optimiser.param_groups[0]["lr"] = 5e-3
    public, heard = shades(200), []
    for run.search.step in range(30):
        heard += [run._train_discriminator(public, turn)["class_head"].item() for turn in range(2)]
    images = shades(300, seed=1)
    truth = brighter_side((images * 255).byte()).argmax(dim=1)
    with torch.no_grad():
        told = run.discriminator(images * 2 - 1)[1].argmax(dim=1)
    assert (told == truth).float().mean() > 0.85
    assert heard[-1] < 0.6 * heard[0]


def test_during_the_warm_up_nothing_is_asked_and_no_class_is_wanted():
    run = start(dataclasses.replace(SHORT, warm_up_share=0.3))
    public = shades(20)
    for step in range(5):
        run.search.step = step
        terms = run.train_step(public)
        assert (run.door.account.asked > 0) == (step >= 3)
        assert ("class_head" in terms) == ("attack" in terms) == (step >= 3)


def test_new_answers_are_learnt_first_and_older_ones_in_between():
    run = start()
    fake = shades(8, seed=5) * 2 - 1
    nothing, _ = run._asked(fake, due=0)
    assert len(nothing) == 0
    images, answers = run._asked(fake, due=5)
    torch.testing.assert_close(images, fake[:5], atol=1 / 255, rtol=0)
    assert torch.equal(answers.argmax(dim=1), brighter_side(run.surrogate.images).argmax(dim=1))
    more, _ = run._asked(shades(8, seed=6) * 2 - 1, due=3)
    assert torch.equal((more + 1).mul(127.5).round().byte(), run.surrogate.images[5:])
    again, answers = run._asked(fake, due=0)
    assert len(again) == SHORT.batch_size
    seen = [one.numpy().tobytes() for one in run.surrogate.images]
    assert {image.numpy().tobytes() for image in (again + 1).mul(127.5).round().byte()} <= set(seen)
    assert torch.equal(
        answers.argmax(dim=1), brighter_side((again + 1).mul(127.5).round().byte()).argmax(dim=1)
    )
    assert run.door.account.asked == 8


# The budget


@pytest.mark.parametrize(
    ("budget", "due"),
    [
        (20, [8, 8, 8, 16, 16, 16, 20, 20, 20, 20]),
        (5, [5] * 10),
        (1000, [8, 16, 24, 32, 40, 48, 56, 64, 72, 80]),
        (0, [0] * 10),
    ],
    ids=["batches at even distances", "less than one", "one a step", "none"],
)
def test_the_gans_questions_are_spread_over_its_steps(budget, due):
    asked = [images_due(step=step, step_count=10, budget=budget, batch_size=8) for step in range(10)]
    assert asked == due


@pytest.mark.parametrize(
    ("kind", "budget", "share", "gan"),
    [("label", 200, 0.5, 100), ("score", 201, 0.3, 60), ("label", 1000, 0.5, 8 * 2 * 8)],
    ids=["half", "three tenths", "no more than a batch a step"],
)
def test_the_budget_is_spent_to_the_image_by_its_shares(kind, budget, share, gan):
    door = open_door(kind, budget=budget)
    made = dataclasses.replace(SHORT, gan_share=share)(door, shades(50), count_per_class=3)
    assert door.account.stages == {FOR_GAN: gan, FOR_SURROGATES: budget - gan}
    assert door.account.asked == budget
    asked = {snapshot.step: snapshot.queries for snapshot in made.snapshots}
    assert [asked[step] for step in (0, 2)] == [0, 0], "the warm-up"
    assert asked[10] == asked[13] == budget
    assert list(asked.values()) == sorted(asked.values())
    assert asked[5] == images_due(step=5, step_count=16, budget=int(share * budget), batch_size=8)


@pytest.mark.parametrize("budget", [1, 7])
def test_a_budget_of_next_to_nothing_is_enough_to_go_through(budget):
    door = open_door(budget=budget)
    made = SHORT(door, shades(50), count_per_class=2)
    assert door.account.asked == budget
    assert len(made.images) == 6


def test_surrogates_are_asked_about_as_many_images_of_each_class(monkeypatch):
    run = start(budget=100)
    painter = Painter(0.1)
    monkeypatch.setattr(run.search, "generator", painter)
    run._ask_for_surrogates()
    assert torch.cat(painter.asked).bincount().tolist() == [34, 33, 33]
    assert len(run.surrogate.images) == 100


# The search


def test_the_search_goes_by_the_mean_over_surrogates_of_the_distance_to_the_best_other_class():
    run = start(dataclasses.replace(SHORT, surrogates=("mlp", "lenet", "mlp")))
    views, labels = shades(6), torch.tensor([0, 1, 2, 2, 1, 0])
    margins = []
    for network in run.surrogate.networks:
        for logits, label in zip(network(views).tolist(), labels.tolist(), strict=True):
            best_other = max(logit for other, logit in enumerate(logits) if other != label)
            margins.append(best_other - logits[label])
    assert float(run._surrogates_loss(views, labels)) == pytest.approx(sum(margins) / 18, rel=1e-4)


def test_the_search_changes_latents_alone_and_asks_nothing():
    run = start()
    run.teach_surrogates(silent, "surrogates", after_step=lambda: None)
    kept = {**run.generator.eval().state_dict(), **run.surrogate.networks.state_dict()}
    before = {name: value.clone() for name, value in kept.items()}
    latents, asked = run.search.latents.detach().clone(), run.door.account.asked
    run.search_step()
    assert (run.search.latents != latents).all()
    assert all(torch.equal(value, before[name]) for name, value in kept.items())
    assert run.door.account.asked == asked


# The whole


def named(made) -> float:
    """Share of pictures that the target takes for their class."""
    return float((brighter_side((made.images * 255).byte()).argmax(dim=1) == made.labels).float().mean())


def test_what_it_draws_is_of_its_class_and_of_no_class_without_the_target():
    attack = dataclasses.replace(
        SHORT,
        gan_step_count=40,
        batch_size=32,
        gan_learning_rate=4e-3,
        surrogates=("mlp", "lenet"),
        surrogate_width=4,
        fit_step_count=40,
        step_count=25,
    )
    made = attack(open_door(budget=1500), shades(200), count_per_class=20)
    door = open_door()
    control = attack.without_target()(door, shades(200), count_per_class=20)
    assert named(made) > 0.8
    assert named(control) < 0.6
    assert door.account.asked == 0
    assert control.notes == made.notes == ()
    assert [snapshot.step for snapshot in control.snapshots][-1] == 40


def test_classes_that_the_target_never_names_are_said_to_be_unknown():
    always_dark = open_door(oracle=lambda images: torch.tensor([[1.0, 0, 0]]).repeat(len(images), 1))
    (note,) = SHORT(always_dark, shades(20), count_per_class=1).notes
    assert note.startswith("Of 2 of 3 classes the target named no image")


def test_its_loops_are_counted_by_the_settings_that_count_them():
    assert SHORT.step_counts(1000, 8) == {"gan_step_count": 10, "fit_step_count": 3, "step_count": 3}
    assert SHORT.without_target().step_counts(1000, 8) == {"gan_step_count": 10}


def test_images_that_are_not_square_and_an_open_target_are_refused_before_anything_is_asked():
    door = LabelAccess(brighter_side, class_names=NAMES, image_shape=(1, 8, 12), budget=5)
    with pytest.raises(ValueError, match="8×12 pixels: pad or resize"):
        SHORT(door, torch.rand(4, 1, 8, 12))
    assert door.account.asked == 0
    target = Target(nn.Flatten(), class_names=NAMES, image_shape=SHAPE)
    with pytest.raises(AccessDenied, match="Lokt needs label or score access, not white-box"):
        SHORT(WhiteBox(target), shades(4))


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"step_count": 0}, "step_count is 0: give 1"),
        ({"gan_step_count": 0}, "gan_step_count is 0: give 1"),
        ({"fit_step_count": 0}, "fit_step_count is 0: give 1"),
        ({"discriminator_step_count": 0}, "discriminator_step_count is 0: give 1"),
        ({"width": 0}, "width is 0: give 1"),
        ({"surrogate_width": 0}, "surrogate_width is 0: give 1"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"warm_up_share": 1.0}, "warm_up_share is 1.0"),
        ({"gan_share": 0.0}, "gan_share is 0.0"),
        ({"gan_share": 1.0}, "gan_share is 1.0"),
        ({"class_weight": 0.0}, "class_weight 0.0"),
        ({"gan_learning_rate": 0.0}, "gan_learning_rate 0.0"),
        ({"surrogates": ()}, "give one or more"),
        ({"surrogates": ("vgg7",)}, "there is no vgg7"),
    ],
)
def test_settings_that_there_cannot_be_are_refused_in_one_line(settings, remedy):
    with pytest.raises(ValueError, match=remedy) as refused:
        Lokt(**settings)
    assert "\n" not in str(refused.value)
