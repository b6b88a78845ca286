"""Patch-MI: its recipes are the published ones, its ablations ablate, its loop does what the paper's does."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from patchmi.attacks import (
    RECIPES,
    ClassPatchScale,
    PatchMI,
    PatchScale,
    PublicWeights,
    Recipe,
    public_prior,
)
from patchmi.attacks.base import snapshot_count
from patchmi.attacks.patch_mi import play
from patchmi.attacks.patch_mi_game import Game
from patchmi.attacks.public_pool import blank_share
from patchmi.attacks.public_prior import TILT_STEPS
from patchmi.networks import ARCHITECTURES, CodeClassifier
from patchmi.runs import open_run
from patchmi.target import Target, WhiteBox
from patchmi.types import silent, unobserved
from patchmi.views import IDENTITY

PAPER = [name for name in RECIPES if name.startswith("paper-")]
PUBLISHED = {
    # epochs, batch, λ, smoothing, code values, (patch, stride, padding, width, levels), generator levels
    "paper-mnist": (30, 64, 30, 0.6, 1, (6, 2, 2, 256, 3), 3),
    "paper-emnist": (30, 64, 30, 0.6, 2, (8, 4, 0, 256, 3), 3),
    "paper-cifar10": (50, 64, 50, 0.7, 1, (8, 4, 0, 512, 3), 3),
    "paper-celeba": (30, 16, 1, 0.9999, 1, (24, 13, 13, 1536, 4), 5),
}
VIEWS = {
    # copies, the image itself, averaged logits
    "paper-mnist": (1, True, False),
    "paper-emnist": (1, True, False),
    "paper-cifar10": (3, True, True),
    "paper-celeba": (1, False, False),
}

BLACK_AND_WHITE = torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)])


def make_target(
    class_count: int = 2, *, side: int = 16, channel_count: int = 1, name: str = "resnet10"
) -> Target:
    """A small classifier as it is born: enough for what the loop does, if not for what it achieves."""
    torch.manual_seed(5)
    model = ARCHITECTURES[name](class_count=class_count, channel_count=channel_count, width=4).eval()
    names = tuple(str(label) for label in range(class_count))
    return Target(model, class_names=names, image_shape=(channel_count, side, side))


def thin(recipe: str, **changes: Any) -> Recipe:
    """A recipe with few channels; unless asked for, without students, head start, selection, layouts
    and crops."""
    full = RECIPES[recipe]
    scales = tuple(dataclasses.replace(scale, width=8) for scale in full.scales)
    small = {
        "scales": scales,
        "generator_width": 4,
        "students": (),
        "prior_share": 0.0,
        "candidate_factor": 1.0,
        "layouts": "never",
        "public_weights": full.public_weights and PublicWeights(crops="never"),
    }
    return dataclasses.replace(full, **{**small, **changes})


def answer(attack: PatchMI, target: Target | None = None, *, public_count: int = 40, **call: Any):
    target = target or make_target()
    public = torch.rand(public_count, *target.image_shape, generator=torch.Generator().manual_seed(1))
    return attack(WhiteBox(target), public, **{"count_per_class": 3, **call})


# Recipes


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_recipe_has_the_published_numbers(name):
    recipe = RECIPES[name]
    epochs, batch, weight, smoothing, codes, scale, levels = PUBLISHED[name]
    assert (recipe.epoch_count, recipe.batch_size, recipe.attack_weight) == (epochs, batch, weight)
    assert (recipe.smoothing, recipe.code_count, recipe.generator_levels) == (smoothing, codes, levels)
    assert recipe.scales == (PatchScale(*scale),)
    assert (recipe.generator_width, recipe.learning_rate, recipe.decay_share) == (64, 1e-3, 0)
    assert (recipe.code_weight, recipe.prior_weight, recipe.reduction) == (0.3, 1, "mean_logit")
    assert (recipe.batch_norm_weight, recipe.diversity_weight, recipe.layouts) == (0, 0, "never")
    assert (recipe.is_conditional, recipe.step_count) == (False, None)


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_recipe_shows_the_target_the_published_views(name):
    views = RECIPES[name].views(32)
    assert (views.draw_count, views.keeps_original, views.averages_logits) == VIEWS[name]


def test_only_handwriting_is_varied_before_the_discriminator_sees_it():
    varied = [name for name in RECIPES if RECIPES[name].public_views is not None]
    assert varied == ["paper-mnist", "paper-emnist"]


def test_every_recipe_goes_by_its_own_name():
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_recipe_runs_one_generator_after_the_other_for_the_classes(name):
    side, channel_count = (128, 3) if name == "paper-celeba" else (32, 1)
    target = make_target(side=side, channel_count=channel_count)
    loops: list[tuple[range, str]] = []

    def progress(steps: Any, description: str) -> Any:
        loops.append((steps, description))
        return steps

    attack = PatchMI(thin(name, public_views=None), step_count=2)
    made = answer(attack, target, public_count=6, progress=progress)
    assert [steps for steps, _ in loops] == [range(2), range(2)]
    assert ["class 1 of 2" in loops[0][1], "class 2 of 2" in loops[1][1]] == [True, True]
    assert made.images.shape == (6, channel_count, side, side)
    assert made.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert all(snapshot.labels.unique().tolist() == [0, 1] for snapshot in made.snapshots)
    assert not torch.equal(made.images[:3], made.images[3:])


@pytest.mark.parametrize(("public_count", "epochs", "steps"), [(64, 2, 2), (65, 2, 4), (10, 3, 3)])
def test_an_epoch_is_as_many_batches_as_the_public_images_fill(public_count, epochs, steps):
    recipe = thin("paper-mnist", epoch_count=epochs, public_views=None)
    made = answer(PatchMI(recipe), public_count=public_count, count_per_class=1)
    assert made.snapshots[-1].step == steps


def test_public_handwriting_is_varied_anew_for_each_batch(monkeypatch):
    seen: list[torch.Tensor] = []

    def views(side: int) -> torch.nn.Module:
        assert side == 16

        class Darken(torch.nn.Module):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                seen.append(images)
                return images / 2

        return Darken()

    answer(PatchMI(thin("paper-mnist", public_views=views), step_count=2), make_target(1))
    assert [images.shape for images in seen] == [(64, 1, 16, 16)] * 2
    assert not torch.equal(*seen)
    assert min(float(images.min()) for images in seen) >= 0


# Ablations


def test_without_patches_one_discriminator_judges_whole_images_without_norm():
    scales = PatchMI(patches=False).settings(20).scales
    assert scales == (PatchScale(20, 20, padding=0, width=1024, normalises=False),)
    made = answer(PatchMI(thin("paper-mnist", public_views=None), patches=False, step_count=1))
    assert made.images.shape == (6, 1, 16, 16)


@pytest.mark.parametrize("name", RECIPES)
def test_without_views_the_target_sees_the_images_as_they_are(name):
    assert PatchMI(name, views=False).settings(32).views(32) == IDENTITY
    assert PatchMI(name).settings(32).views(32) != IDENTITY


def test_many_views_are_six_copies_of_which_some_are_blurred():
    views = PatchMI(many_views=True).settings(32).views(32)
    assert (views.count, views.keeps_original) == (6, False)
    checked = ((torch.arange(32)[:, None] + torch.arange(32)) % 2).float().expand(40, 1, 32, 32)
    torch.manual_seed(0)
    contrast = views.draw(checked)[:, :, 12:20, 12:20].std(dim=(1, 2, 3))
    assert 0.3 < (contrast < 0.12).float().mean() < 0.8, "half of them show no more squares"
    with pytest.raises(ValueError, match="many_views is on and views off"):
        PatchMI(views=False, many_views=True)


def test_without_views_the_target_is_asked_about_each_image_once():
    target = make_target()
    with_views, without = WhiteBox(target), WhiteBox(target)
    public = torch.rand(8, 1, 16, 16)
    PatchMI(thin("default"), step_count=2)(with_views, public, count_per_class=1)
    PatchMI(thin("default"), step_count=2, views=False)(without, public, count_per_class=1)
    # Both times the public images are looked at first.
    assert without.queries.images == 8 + 2 * 64
    assert with_views.queries.images == (8 + 2 * 64) * RECIPES["default"].views(16).count


@pytest.mark.parametrize(
    ("crops", "public_count", "crop_count"),
    [("never", 8, 0), ("always", 80, 2 * 90), ("starving", 8, 2 * 90), ("starving", 80, 0)],
)
def test_crops_are_looked_at_beside_public_images_when_few_of_these_speak_for_a_class(
    crops, public_count, crop_count
):
    """A target that is never sure leaves each class nearly all images: 8 are few, 80 are not.

    Crops are looked at twice, the second time variants of the best.
    """
    door, public = WhiteBox(make_target()), torch.rand(public_count, 1, 16, 16)
    weighing = PublicWeights(sharpness=0.1, entropy_weight=100.0, crop_count=90)
    recipe = thin("default", public_weights=weighing, prior_share=1.0)
    attack = PatchMI(recipe, step_count=1, crops=crops)
    made = attack(door, public, count_per_class=1)
    assert door.queries.images == (public_count + crop_count) * recipe.views(16).count
    assert any("crops" in note for note in made.notes) == (crop_count > 0)


def test_without_coordinates_no_discriminator_knows_where_a_patch_stands():
    assert PatchMI().settings(32).scales == (ClassPatchScale(sees_coordinates=True),)
    assert PatchMI(coordinates=False).settings(32).scales == (ClassPatchScale(sees_coordinates=False),)
    paper = PatchMI("paper-mnist").settings(32)
    assert PatchMI("paper-mnist", coordinates=False).settings(32) == paper


def test_each_ablation_changes_nothing_but_its_own_term():
    full = PatchMI().settings(32)
    silenced = {
        "attack_weight": 0.0,
        "batch_norm_weight": 0.0,
        "students": (),
        "public_weights": None,
        "candidate_factor": 1.0,
    }
    ablations = {
        PatchMI(batch_norm=False): {"batch_norm_weight": 0.0},
        PatchMI(diversity=False): {"diversity_weight": 0.0},
        PatchMI(students=False): {"students": ()},
        PatchMI(weights=False): {"public_weights": None, "layouts": "never"},
        PatchMI(layouts="always"): {"layouts": "always"},
        PatchMI(identity_loss="logit"): {"identity_loss": "logit"},
        PatchMI(crops="always"): {"public_weights": PublicWeights(crops="always")},
        PatchMI(selection=False): {"candidate_factor": 1.0},
        PatchMI(uses_target=False): silenced,
        PatchMI().without_target(): silenced,
        PatchMI(attack_weight=9.0, batch_norm=False, students=False).without_target(): silenced,
        PatchMI(identity_loss="max_margin", many_views=True).without_target(): silenced,
    }
    for attack, change in ablations.items():
        assert attack.settings(32) == dataclasses.replace(full, **change)


def test_an_experiment_changes_steps_codes_and_reduction_of_any_recipe():
    attack = PatchMI("paper-cifar10", step_count=11, n_codes=3, reduction="per_patch")
    expected = dataclasses.replace(
        RECIPES["paper-cifar10"], step_count=11, code_count=3, reduction="per_patch"
    )
    assert attack.settings(32) == expected
    own = dataclasses.replace(RECIPES["paper-mnist"], name="own", attack_weight=2.0)
    assert PatchMI(own).settings(32) == own


@pytest.mark.parametrize(
    "change",
    [
        {"patches": False},
        {"views": False},
        {"many_views": True},
        {"coordinates": False},
        {"batch_norm": False},
        {"weights": False},
        {"identity_loss": "max_margin"},
        {"identity_loss": "logit"},
    ],
)
def test_an_ablation_changes_the_pictures(change):
    full = answer(PatchMI(thin("default"), step_count=3))
    assert not torch.equal(answer(PatchMI(thin("default"), step_count=3, **change)).images, full.images)


def test_both_reductions_run_and_differ():
    recipe = thin("paper-mnist", public_views=None, learning_rate=0.02)
    one, other = (
        answer(PatchMI(recipe, step_count=3, reduction=name)) for name in ("mean_logit", "per_patch")
    )
    assert not torch.equal(one.images, other.images)


# The loop


def test_without_any_weight_on_its_word_the_target_might_as_well_be_absent():
    recipe = thin("default", attack_weight=0.0, batch_norm_weight=0.0, public_weights=None)
    weightless = answer(PatchMI(recipe, step_count=2))
    full = thin("default")
    absent = answer(PatchMI(full, step_count=2).without_target())
    assert torch.equal(weightless.images, absent.images)
    assert not torch.equal(answer(PatchMI(full, step_count=2)).images, absent.images)


def test_without_the_target_a_paper_recipe_trains_one_generator_for_all_classes():
    recipe = thin("paper-cifar10", learning_rate=0.01)
    loops: list[tuple[range, str]] = []

    def progress(steps: Any, description: str) -> Any:
        loops.append((steps, description))
        return steps

    control = PatchMI(recipe, step_count=2).without_target()
    made = answer(control, progress=progress)
    assert loops == [(range(2), "Patch-MI, seed 0, without the target")]
    assert made.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert all(snapshot.labels.unique().tolist() == [0, 1] for snapshot in made.snapshots)
    assert torch.equal(made.images, answer(control, make_target(name="vgg6")).images)


def test_the_prior_alone_draws_as_bright_as_the_public_images_are():
    recipe = thin("default", learning_rate=0.01)
    drawn = []
    for brightness in (0.1, 0.9):
        public = brightness + 0.1 * torch.rand(30, 1, 16, 16, generator=torch.Generator().manual_seed(2))
        control = PatchMI(recipe, step_count=20).without_target()
        drawn.append(float(control(WhiteBox(make_target()), public, count_per_class=5).images.mean()))
    dark, bright = drawn
    assert dark < 0.4 < 0.6 < bright


def first_step(folder: Path, **changes: Any) -> dict[str, Any]:
    """Networks after the first of two steps."""
    with open_run(folder, config={}, resume=False) as run, pytest.raises(KeyboardInterrupt):
        checkpoint = run.checkpoint("attack", every_seconds=0.0)
        answer(
            PatchMI(thin("default", diversity_share=3.0, **changes), step_count=2),
            checkpoint=checkpoint,
            progress=stop_after_one,
        )
    with open_run(folder, config={}, resume=True) as run:
        state = run.checkpoint("attack").load()
    assert state is not None
    assert state["game"]["step"] == 1
    return state["game"]


def stop_after_one(steps: Any, description: str) -> Any:
    if "Patch-MI" not in description:
        yield from steps
        return
    yield next(iter(steps))
    raise KeyboardInterrupt


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one | other)


def test_in_a_step_the_discriminators_go_first_and_learn_from_nothing_but_patches(tmp_path):
    full = first_step(tmp_path / "full")
    silent = first_step(tmp_path / "silent", attack_weight=0.0, batch_norm_weight=0.0, diversity_weight=1e-9)
    smooth = first_step(tmp_path / "smooth", smoothing=0.5)
    assert same(full["discriminators"], silent["discriminators"])
    assert not same(full["generator"], silent["generator"])
    assert not same(full["discriminators"], smooth["discriminators"])


@pytest.mark.parametrize("weight", ["attack_weight", "batch_norm_weight", "diversity_weight", "prior_weight"])
def test_every_term_has_a_say_in_the_generator_s_step(tmp_path, weight):
    # Hardly any weight instead of none: then nothing else is different, not even what is drawn at random.
    without = first_step(tmp_path / "without", **{weight: 1e-12})
    assert not same(first_step(tmp_path / "full")["generator"], without["generator"])


def test_the_learning_rate_is_constant_and_then_falls_to_a_twentieth_over_the_last_share_of_the_steps():
    door = WhiteBox(make_target())
    game = Game(thin("default", decay_share=0.4, learning_rate=0.01), door, [0, 1], BLACK_AND_WHITE)

    def rates_at(share_done: float) -> list[float]:
        game.set_learning_rate(share_done)
        optimisers = (game.generator_optimiser, game.discriminator_optimiser)
        return [group["lr"] for optimiser in optimisers for group in optimiser.param_groups]

    # Half of the fall is done after half of the last share: 0.05 + 0.95 / 2 of 0.01.
    for share_done, rate in ((0.0, 0.01), (0.6, 0.01), (0.8, 0.00525), (1.0, 0.0005)):
        assert rates_at(share_done) == pytest.approx([rate, rate])
    constant = Game(thin("paper-mnist", learning_rate=0.01), door, [0], BLACK_AND_WHITE)
    constant.set_learning_rate(0.99)
    assert constant.generator_optimiser.param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize(("batch_size", "class_count"), [(12, 3), (16, 3), (8, 2), (4, 4)])
def test_the_two_halves_of_a_batch_show_the_same_classes_evenly_spread_from_other_latents(
    batch_size, class_count
):
    classes = list(range(class_count))
    recipe = thin("default", batch_size=batch_size, code_count=2)
    game = Game(recipe, WhiteBox(make_target(class_count)), classes, BLACK_AND_WHITE)
    for _ in range(5):
        latents, labels, codes = game.draw_batch()
        assert len(latents) == len(labels) == len(codes) == batch_size
        first, second = labels.chunk(2)
        assert torch.equal(first, second)
        counts = first.bincount(minlength=class_count)
        assert counts.max() - counts.min() <= 1
        assert len(latents.unique(dim=0)) == batch_size
        assert set(codes.tolist()) <= {0, 1}


def test_a_generator_of_one_class_draws_that_class_alone():
    game = Game(thin("paper-mnist"), WhiteBox(make_target(3)), [2], BLACK_AND_WHITE)
    assert game.draw_batch()[1].unique().tolist() == [2]


def test_public_images_enter_in_the_generator_s_range():
    public = torch.linspace(0, 1, 5).reshape(-1, 1, 1, 1).expand(-1, 1, 16, 16)
    game = Game(thin("default", batch_size=500), WhiteBox(make_target()), [0, 1], public)
    assert game.draw_public().unique().tolist() == [-1, -0.5, 0, 0.5, 1]


def test_before_the_first_step_the_target_has_had_no_word():
    first = [
        answer(PatchMI(thin("default"), step_count=2, uses_target=uses_target)).snapshots[0]
        for uses_target in (True, False)
    ]
    assert first[0].step == 0
    assert torch.equal(first[0].images, first[1].images)


@pytest.mark.parametrize(
    ("step_count", "steps"),
    [(20, [0, 1, 2, 4, 7, 10, 15, 20]), (7, [0, 1, 2, 4, 5, 7]), (1, [0, 1])],
)
def test_snapshots_are_taken_at_the_documented_shares_and_at_the_end(step_count, steps):
    recipe = thin("default", batch_size=4, views=lambda _: IDENTITY)
    made = answer(PatchMI(recipe, step_count=step_count))
    assert [snapshot.step for snapshot in made.snapshots] == steps
    for snapshot in made.snapshots:
        assert snapshot.images.shape == (2 * 20, 1, 16, 16)
        assert snapshot.labels.tolist() == [0] * 20 + [1] * 20
    seconds = [snapshot.seconds for snapshot in made.snapshots]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < seconds[-1]  # the public images were looked at before the first step


def losses_of(attack: PatchMI, target: Target | None = None) -> dict[int, dict[str, float]]:
    """What an observer of the attack hears, by step."""
    heard: dict[int, dict[str, float]] = {}
    answer(attack, target, observe=lambda step, losses: heard.update({step: dict(losses)}))
    return heard


def test_an_observer_hears_every_ten_steps_of_each_term_that_has_a_say():
    recipe = thin("default", **TWO_STUDENTS, prior_share=0.5, batch_size=8)
    heard = losses_of(PatchMI(recipe, step_count=21, layouts="always"))
    of_the_prior = {"prior", "discriminator", "diversity", "layout", "seconds"}
    of_the_target = {"attack", "batch_norm", "students"}
    assert {step: set(losses) for step, losses in heard.items()} == {
        0: of_the_prior,
        10: of_the_prior,  # the last step of the head start
        20: of_the_prior | of_the_target,
    }
    assert 0 < heard[0]["seconds"] < heard[10]["seconds"] < heard[20]["seconds"]
    silent = losses_of(PatchMI(recipe, step_count=21, students=False, batch_norm=False, diversity=False))
    assert set(silent[20]) == {"prior", "discriminator", "attack", "seconds"}


def test_the_steps_of_one_generator_after_the_other_are_counted_on():
    recipe = thin("paper-emnist", public_views=None, batch_size=4)
    heard = losses_of(PatchMI(recipe, step_count=11))
    assert [*heard] == [0, 10, 11, 21]
    assert set(heard[0]) == {"prior", "discriminator", "attack", "code", "seconds"}


class Undecided(torch.nn.Module):
    """A target that gives every one of five classes the same share."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (0 * images.flatten(1)[:, :1]).expand(-1, 5)


@pytest.mark.parametrize(
    ("loss", "expected"), [("cross_entropy", math.log(5)), ("max_margin", 0.0), ("logit", 0.0)]
)
def test_the_identity_loss_that_is_asked_for_is_the_one_that_is_heard(loss, expected):
    target = Target(Undecided(), class_names=tuple("abcde"), image_shape=(1, 16, 16))
    attack = PatchMI(thin("default"), step_count=1, precision="float32", identity_loss=loss)
    assert losses_of(attack, target)[0]["attack"] == pytest.approx(expected, abs=1e-6)


def test_the_losses_heard_are_those_of_the_equations_without_their_weights():
    target = Target(Undecided(), class_names=tuple("abcde"), image_shape=(1, 16, 16))
    # Discriminators that have learnt nothing yet, and of a tiny step, are undecided too: log 2, twice.
    heard = losses_of(PatchMI(thin("default", learning_rate=1e-9), step_count=1, precision="float32"), target)
    assert heard[0]["attack"] == pytest.approx(math.log(5))
    assert heard[0]["discriminator"] == pytest.approx(2 * math.log(2), abs=0.2)
    assert heard[0]["prior"] == pytest.approx(math.log(2), abs=0.2)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_attack_runs_in_either_number_format(precision):
    made = answer(PatchMI(thin("default"), step_count=1, precision=precision))
    assert made.images.isfinite().all()


def test_a_target_without_batch_norm_is_attacked_without_that_term_and_the_report_will_say_so():
    target = make_target(name="lenet")
    made = answer(PatchMI(thin("default"), step_count=2), target)
    assert len(made.notes) == 1
    assert "no batch norm" in made.notes[0]
    assert made.notes[0].endswith(".")
    matched = answer(PatchMI(thin("default"), step_count=2, batch_norm=False), target)
    assert matched.notes == ()
    assert torch.equal(matched.images, made.images)


def test_a_target_with_batch_norm_leaves_no_note():
    assert answer(PatchMI(thin("default"), step_count=1)).notes == ()
    assert answer(PatchMI(thin("paper-cifar10"), step_count=1)).notes == ()


@pytest.mark.parametrize("side", [8, 16, 21])
def test_images_smaller_than_a_recipe_s_patches_are_attacked_all_the_same(side):
    made = answer(PatchMI(thin("default"), step_count=1), make_target(side=side))
    assert made.images.shape == (6, 1, side, side)


def test_at_their_published_sizes_the_recipes_keep_their_scales():
    for name in RECIPES:
        side = 128 if name == "paper-celeba" else 32
        assert PatchMI(RECIPES[name]).settings(side).scales == RECIPES[name].scales


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step_count": 0}, "step_count is 0: give 1 or more"),
        ({"step_count": None}, "epoch_count is 0: give 1 or more, or a step_count"),
        ({"batch_size": 1}, "batch_size is 1: give 2 or more"),
        ({"prior_weight": -0.5}, "prior_weight is -0.5: give 0 or more"),
        ({"attack_weight": float("inf")}, "attack_weight is inf"),
        ({"learning_rate": 0.0}, "learning_rate is 0: give more than 0"),
        ({"smoothing": 1.5}, "smoothing is 1.5: give a share"),
        ({"average_decay": 1.0}, "average_decay is 1: give 0 or more, and less than 1"),
        ({"candidate_factor": float("nan")}, "candidate_factor is nan"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused(change, words):
    with pytest.raises(ValueError, match=f"^{words}") as refused:
        dataclasses.replace(RECIPES["default"], **change)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", [{"crop_count": 0}, {"sharpness": -1.0}, {"entropy_weight": 0.0}], ids=str)
def test_weights_of_public_images_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} .*: give") as refused:
        PublicWeights(**change)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("recipe", "shape", "words"),
    [
        ("default", (1, 16, 20), "square"),
        ("paper-mnist", (1, 28, 28), "multiple of 8"),
        ("paper-celeba", (3, 48, 48), "32"),
    ],
)
def test_shapes_that_a_generator_cannot_draw_are_refused_before_any_work(recipe, shape, words):
    door = WhiteBox(dataclasses.replace(make_target(), image_shape=shape))
    with pytest.raises(ValueError, match=words) as refused:
        PatchMI(recipe, step_count=1)(door, torch.rand(4, *shape))
    assert "\n" not in str(refused.value)
    assert door.queries.forward == 0


@pytest.mark.parametrize("layouts", [None, "always"])
def test_killed_within_the_second_class_it_goes_on_to_the_same_bytes(tmp_path, layouts):
    recipe, target = thin("paper-emnist", public_views=None), make_target()
    attack = PatchMI(recipe, step_count=3, layouts=layouts)

    def end_in_the_second_class(steps: Any, description: str) -> Any:
        for step in steps:
            if "class 2" in description and step == 2:
                raise RuntimeError
            yield step

    with open_run(tmp_path, config={}, resume=False) as run, pytest.raises(RuntimeError):
        checkpoint = run.checkpoint("attack", every_seconds=0.0)
        answer(attack, target, checkpoint=checkpoint, progress=end_in_the_second_class)
    seen: list[range] = []
    with open_run(tmp_path, config={}, resume=True) as run:
        made = answer(
            attack,
            target,
            checkpoint=run.checkpoint("attack"),
            progress=lambda steps, _: seen.append(steps) or steps,
        )
    undisturbed = answer(attack, target)
    assert seen == [range(2, 3)]
    assert torch.equal(made.images, undisturbed.images)
    assert torch.equal(made.labels, undisturbed.labels)
    for one, other in zip(made.snapshots, undisturbed.snapshots, strict=True):
        assert one.step == other.step
        assert torch.equal(one.images, other.images)


# Students of the target

TWO_STUDENTS: dict[str, Any] = {"students": ("vgg6", "lenet"), "student_width": 4, "student_warm_up": 3}


def test_students_ask_the_target_in_the_warm_up_and_once_in_so_many_steps():
    door, loops = WhiteBox(make_target()), []
    attack = PatchMI(thin("default", **TWO_STUDENTS, student_interval=2), step_count=5)

    def progress(steps: Any, description: str) -> Any:
        loops.append((len(steps), description))
        return steps

    attack(door, torch.rand(8, 1, 16, 16), count_per_class=1, progress=progress)
    assert [count for count, _ in loops] == [1, TILT_STEPS, 3, 5]
    # The public images in three views, the warm-up, lessons in steps 0, 2 and 4, the attack's own questions.
    assert (door.queries.forward, door.queries.backward) == (3 + 3 + 3 + 5, 5)


def test_while_the_prior_has_its_head_start_nobody_else_has_a_word():
    """Of five steps the first three: public images are looked at, students warmed up, then silence."""
    door = WhiteBox(make_target())
    recipe = thin("default", **TWO_STUDENTS, prior_share=0.5)
    PatchMI(recipe, step_count=5)(door, torch.rand(8, 1, 16, 16), count_per_class=1)
    lessons, questions = 2, 2
    assert (door.queries.forward, door.queries.backward) == (3 + 3 + lessons + questions, questions)


def test_a_class_shows_its_discriminator_the_public_images_that_the_target_gives_it():
    """Bright images are of class 1: its weights draw them and nothing else."""
    door = WhiteBox(make_target())
    game = Game(thin("default"), door, [0, 1], BLACK_AND_WHITE)
    game.pool.weights = torch.eye(2)
    labels = torch.tensor([0, 1, 1, 0])
    assert game.draw_public(labels).mean(dim=(1, 2, 3)).tolist() == [-1, 1, 1, -1]
    assert set(game.draw_public().mean(dim=(1, 2, 3)).tolist()) == {-1, 1}
    assert len(game.draw_public()) == 64


def test_a_class_draws_its_public_images_as_often_as_they_weigh():
    """Five greys; what class 1 must not draw stands at both ends and in the middle."""
    public = (torch.arange(5) / 4).reshape(-1, 1, 1, 1).expand(-1, 1, 16, 16)
    game = Game(thin("default"), WhiteBox(make_target()), [0, 1], public)
    game.pool.weights = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0], [0.0, 0.7, 0.0, 0.3, 0.0]])
    labels = torch.arange(2).repeat(10_000)
    torch.manual_seed(0)
    greys = (game.draw_public(labels).mean(dim=(1, 2, 3)) * 2 + 2).round().long()
    for label in (0, 1):
        shares = greys[labels == label].bincount(minlength=5) / 10_000
        assert shares.tolist() == pytest.approx(game.pool.weights[label].tolist(), abs=0.015)
        assert shares[game.pool.weights[label] == 0].sum() == 0


@pytest.mark.parametrize(("class_count", "expected"), [(1, 20), (50, 20), (51, 19), (1000, 1), (2000, 1)])
def test_a_snapshot_does_not_grow_without_bound(class_count: int, expected: int) -> None:
    assert snapshot_count(class_count) == expected


def test_two_images_of_a_class_differ_enough_at_a_share_of_what_two_public_ones_of_it_do():
    recipe = thin("default", public_weights=None, diversity_share=0.5)
    game = Game(recipe, WhiteBox(make_target()), [0, 1], BLACK_AND_WHITE)
    game.look_at_public(silent)
    # Black and white are 2 apart, and half of all pairs are one of each.
    assert game.diversity_caps.tolist() == pytest.approx([0.5, 0.5], abs=0.1)


@pytest.mark.parametrize("recipe", ["default", "paper-emnist"])
@pytest.mark.parametrize("channel_count", [1, 8])
def test_a_picture_is_drawn_for_the_layout_of_a_public_image_of_its_class(recipe, channel_count):
    """Class 1 draws the image whose left half is white; eight channels have more cells than noise."""
    target = make_target(channel_count=channel_count)
    halves = torch.zeros(2, channel_count, 16, 16)
    halves[1, :, :, :8] = 1
    game = Game(thin(recipe, layouts="always", public_views=None), WhiteBox(target), [0, 1], halves)
    game.pool.weights = torch.eye(2)
    labels = torch.tensor([0, 1, 1, 0])
    latents = game.draw_latents(labels)
    rows = torch.tensor([[-1.0, -1, -1, -1], [1, 1, -1, -1]])[labels].repeat(1, 4 * channel_count)
    assert torch.equal(latents[:, 100:], rows)
    assert len(latents[:, :100].unique(dim=0)) == 4
    black = torch.full((4, channel_count, 16, 16), -1.0)
    # Of the two white halves in four pictures every cell is 2 off, .15 of which are free.
    assert float(game.layout_loss(black, latents)) == pytest.approx((2 - 0.15) / 4)
    assert game.sample(latents, labels).shape == (4, channel_count, 16, 16)


@pytest.mark.parametrize(("layouts", "given_to_drawings"), [("never", 0), ("filled", 0), ("always", 16)])
def test_by_default_layouts_are_given_where_public_images_fill_their_frames(layouts, given_to_drawings):
    """A drawing leaves one cell of sixteen blank, a photograph none."""
    grey = 0.3 + 0.3 * torch.rand(50, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    drawings = grey.clone()
    drawings[:, :, 4:8, 12:16] = 0.5
    recipe, door = thin("default", layouts=layouts), WhiteBox(make_target())
    assert Game(recipe, door, [0, 1], drawings).layout_cells == given_to_drawings
    assert Game(recipe, door, [0, 1], grey).layout_cells == (0 if layouts == "never" else 16)
    drawings[:9] = grey[:9]  # a share of .051
    assert Game(recipe, door, [0, 1], drawings).layout_cells == given_to_drawings
    drawings[:11] = grey[:11]  # .049
    assert Game(recipe, door, [0, 1], drawings).layout_cells == (0 if layouts == "never" else 16)
    assert RECIPES["default"].layouts == "filled"


def test_a_cell_is_blank_where_no_channel_changes_in_it():
    images = torch.zeros(1, 3, 16, 16)
    images[0, 2, 0, 0] = 0.5
    images[0, :, 15, 15] = 0.01
    assert blank_share(images, side=4) == 15 / 16
    assert blank_share(images[:, :, :4, :4], side=4) == 1


def test_attack_and_control_get_layouts_or_neither_does_whatever_the_seed(monkeypatch):
    """Of these images the attack looks at ten, of which each seed takes others; the control draws all."""
    monkeypatch.setattr(public_prior, "LOOK_COUNT", 10)
    public = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    public[::2] = 0
    public[::2, :, :12] = public[1::2, :, :12]  # of every other image a quarter is blank
    attack, door = PatchMI(thin("default", layouts="filled")), WhiteBox(make_target())
    monkeypatch.setattr("patchmi.attacks.patch_mi_game.FILLED_BELOW", 0.125)
    given = {
        Game(one.settings(16), door, [0, 1], public, seed=seed).layout_cells
        for one in (attack, attack.without_target())
        for seed in range(5)
    }
    assert len(given) == 1


def test_a_reader_is_told_of_layouts_once():
    attack = PatchMI(thin("paper-mnist", public_views=None), step_count=1)
    told = {
        layouts: [
            note for note in answer(dataclasses.replace(attack, layouts=layouts)).notes if "layout" in note
        ]
        for layouts in ("never", "always")
    }
    assert [len(notes) for notes in told.values()] == [0, 1]


def test_the_layouts_of_many_pictures_are_drawn_like_those_of_few():
    greys = torch.arange(3).reshape(-1, 1, 1, 1).expand(-1, 1, 16, 16) / 2
    game = Game(thin("default", layouts="always"), WhiteBox(make_target()), [0, 1], greys)
    game.pool.weights = torch.tensor([[0.0, 1, 0], [0.5, 0, 0.5]])
    labels = torch.arange(2).repeat_interleave(2500)
    first, second = game.draw_latents(labels)[:, 100:].chunk(2)
    assert (first == 0).all()
    assert second.unique().tolist() == [-1, 1]
    assert second.mean() == pytest.approx(0, abs=0.1)


def test_a_class_that_draws_all_public_images_alike_gets_no_layouts_but_the_control_does():
    attack = PatchMI(layouts="always", weights=False)
    assert attack.settings(32).layouts == "never"
    assert attack.without_target().settings(32).layouts == "always"


def test_what_is_drawn_keeps_to_its_layout():
    """Half of the public images are white on the left, half on the right: pictures learn to follow."""
    halves = torch.zeros(2, 1, 16, 16)
    halves[0, :, :, :8] = halves[1, :, :, 8:] = 1
    distances = []
    for layout_weight in (0.01, 20.0):
        changes = {"layouts": "always", "layout_weight": layout_weight}
        recipe = thin("default", **changes, batch_size=16, public_weights=None)
        torch.manual_seed(0)
        game = Game(recipe, WhiteBox(make_target()), [0, 1], halves)
        play(
            game,
            steps=range(60),
            step_count=60,
            after_step=lambda: None,
            precision="float32",
            observe=unobserved,
            first_step=0,
        )
        labels = torch.arange(2).repeat(8)
        latents = game.draw_latents(labels)
        drawn = game.sample(latents, labels).float() / 127.5 - 1
        distances.append(float(game.layout_loss(drawn, latents)))
    assert 2 * distances[1] < distances[0]


def test_of_all_that_is_drawn_the_images_the_target_is_surest_of_are_kept():
    """The same game, asked with and without selection: what is kept is the best half, in the order drawn."""
    door = WhiteBox(make_target())
    recipe = thin("default", candidate_factor=2.0, views=lambda _: IDENTITY)
    game = Game(recipe, door, [0, 1], BLACK_AND_WHITE)
    torch.manual_seed(3)
    kept = game.answer(4)
    game.recipe = dataclasses.replace(game.recipe, candidate_factor=1.0)
    torch.manual_seed(3)
    drawn = game.answer(8)
    assert kept["labels"].tolist() == [0] * 4 + [1] * 4
    for label in (0, 1):
        images = drawn["images"][drawn["labels"] == label]
        sureness = door.logits(images.float() / 255).log_softmax(dim=1)[:, label]
        best = sureness.topk(4).indices.sort().values
        assert torch.equal(kept["images"][kept["labels"] == label], images[best])
        assert torch.equal(kept["unselected"][kept["labels"] == label], images[:4])
    assert drawn["unselected"] is None


def test_the_average_follows_at_first_and_lags_later():
    game = Game(thin("default", average_decay=0.9), WhiteBox(make_target()), [0, 1], BLACK_AND_WHITE)
    present, average = (net.state_dict()["embedding.weight"] for net in (game.generator, game.average))
    present.fill_(1)
    for step, share in ((0, 1.0), (10, 0.5), (10_000, 0.1)):
        average.fill_(0)
        game.step = step
        game.update_average()
        torch.testing.assert_close(average, torch.full_like(average, share))


def test_students_have_a_say_in_the_generator_s_step(tmp_path):
    with_students = first_step(tmp_path / "with", **TWO_STUDENTS)
    silent = first_step(tmp_path / "silent", **TWO_STUDENTS, student_weight=0.0)
    assert not same(with_students["generator"], silent["generator"])
    assert same(with_students["discriminators"], silent["discriminators"])


def test_students_learn_what_the_target_says(tmp_path, fit, blobs):
    target = Target(fit("resnet10", width=4), class_names=("a", "b", "c", "d"), image_shape=(1, 16, 16))
    public = blobs(80, seed=8)
    agreement = []
    for warm_up in (0, 40):
        recipe = thin("default", **TWO_STUDENTS | {"student_warm_up": warm_up}, views=lambda _: IDENTITY)
        with open_run(tmp_path / str(warm_up), config={}, resume=False) as run:
            checkpoint = run.checkpoint("attack", every_seconds=0.0)
            PatchMI(recipe, step_count=1)(WhiteBox(target), public, checkpoint=checkpoint)
            state = checkpoint.load()
        assert state is not None
        student = ARCHITECTURES["lenet"](class_count=4, channel_count=1, width=4)
        weights = state["game"]["students"]["networks"]
        student.load_state_dict({key[2:]: value for key, value in weights.items() if key.startswith("1.")})
        with torch.no_grad():
            same_answer = student(public).argmax(dim=1) == target.model(public).argmax(dim=1)
        agreement.append(float(same_answer.float().mean()))
    assert agreement[0] < 0.6 < agreement[1]


# InfoGAN's code


@pytest.mark.parametrize("code_weight", [0.0, 3.0])
def test_q_learns_to_read_the_code_only_if_it_is_asked_to(tmp_path, code_weight):
    recipe = thin(
        "paper-mnist", public_views=None, views=lambda _: IDENTITY, code_weight=code_weight, batch_size=16
    )
    with open_run(tmp_path, config={}, resume=False) as run:
        checkpoint = run.checkpoint("attack", every_seconds=0.0)
        made = answer(
            PatchMI(recipe, step_count=30, n_codes=2),
            make_target(1),
            checkpoint=checkpoint,
            count_per_class=40,
        )
        state = checkpoint.load()
    assert state is not None
    reader = CodeClassifier(channel_count=1, code_count=2, image_size=16)
    reader.load_state_dict(state["game"]["code_classifier"])
    with torch.no_grad():
        said = reader(made.images * 2 - 1)
    # Among the answers the codes take turns.
    truth = torch.arange(40) % 2
    loss = float(torch.nn.functional.cross_entropy(said, truth))
    assert (loss < 0.5 * math.log(2)) == (code_weight > 0)
