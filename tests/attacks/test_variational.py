"""Variational MI: what its two miners find, what they leave, and what comes back after a kill."""

import dataclasses
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from patchmi.attacks.identity import IdentityTerm
from patchmi.attacks.public_gan import GanTraining
from patchmi.attacks.variational import VariationalMI
from patchmi.runs import Cache, open_run
from patchmi.target import Target, WhiteBox
from patchmi.types import Reconstructions

RECIPES = ("mixture", "flow")
SHAPE = (1, 16, 16)
GAN = GanTraining(step_count=200, batch_size=32, latent_size=32, width=16, learning_rate=1e-3)
QUICK = VariationalMI(
    gan=GanTraining(step_count=10, batch_size=8, latent_size=8, width=4, learning_rate=0.02),
    step_count=3,
    batch_size=8,
    learning_rate=0.1,
)


@pytest.fixture(scope="module")
def target(fit: Callable[..., nn.Module]) -> Target:
    return Target(fit("resnet10", width=4), class_names=("a", "b", "c", "d"), image_shape=SHAPE)


@pytest.fixture(scope="module")
def same_domain(quarters: Callable[..., Any]) -> torch.Tensor:
    """Other images of the private kind, their labels thrown away."""
    return quarters(400, seed=50)[0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def recognised(fit: Callable[..., nn.Module]) -> Callable[[Reconstructions], float]:
    judge = fit("lenet", width=4, seed=1)

    def share(made: Reconstructions) -> float:
        with torch.no_grad():
            return float((judge(made.images).argmax(dim=1) == made.labels).float().mean())

    return share


@pytest.mark.parametrize(("recipe", "learning_rate"), [("mixture", 0.3), ("flow", 0.01)])
def test_with_public_images_of_the_same_kind_an_independent_judge_recognises_the_classes(
    recipe, learning_rate, target, same_domain, cache, recognised
) -> None:
    attack = VariationalMI(recipe=recipe, gan=GAN, step_count=60, batch_size=64, learning_rate=learning_rate)
    made = attack(WhiteBox(target), same_domain, count_per_class=20, cache=cache)
    control = attack.without_target()(WhiteBox(target), same_domain, count_per_class=20, cache=cache)
    assert recognised(made) >= 0.8
    assert recognised(control) < 0.5
    by_class = made.images.unflatten(0, (4, 20)).flatten(2)
    apart = torch.cdist(by_class, by_class).sum(dim=(1, 2)) / (20 * 19)
    assert apart.min() > 0.5, "a distribution, not a point"
    assert [snapshot.step for snapshot in made.snapshots] == [0, 3, 6, 12, 21, 30, 45, 60]
    assert {len(snapshot.images) for snapshot in made.snapshots} == {80}
    seconds = [snapshot.seconds for snapshot in made.snapshots]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0, "what was prepared before the first step counts"


def test_a_dear_divergence_leaves_the_miner_at_the_prior(target, same_domain) -> None:
    """The observer hears it, for every class at its last step."""
    last: dict[float, list[float]] = {}
    for weight in (0.0, 1.0):
        heard: dict[int, float] = {}
        dataclasses.replace(QUICK, kl_weight=weight, step_count=31, batch_size=32)(
            WhiteBox(target),
            same_domain,
            count_per_class=1,
            observe=lambda step, terms, heard=heard: heard.update({step: terms["divergence"]}),
        )
        last[weight] = [heard[31 * label + 30] for label in range(4)]
    assert max(last[1.0]) < 0.6
    assert min(last[0.0]) > 1.2


def test_a_miner_that_diverges_names_the_remedy(target, same_domain) -> None:
    wild = dataclasses.replace(QUICK, learning_rate=1e6, kl_weight=1e6)
    with pytest.raises(ValueError, match=r"class a: .* lower learning_rate") as refused:
        wild(WhiteBox(target), same_domain, count_per_class=1)
    assert "\n" not in str(refused.value)


class Kill(Exception):  # noqa: N818 - the end of a process, here without a process
    """Ends an attack between two steps."""


class Clock:
    """A progress that notes which loop each step belongs to, and kills before the one after the last."""

    def __init__(self, last: float = float("inf")) -> None:
        self.loops: list[str] = []
        self.last = last

    def __call__(self, steps: Iterable[int], description: str) -> Iterable[int]:
        for step in steps:
            if len(self.loops) == self.last:
                raise Kill
            self.loops.append(description)
            yield step


@pytest.fixture(scope="module")
def whole(target, same_domain) -> dict[str, Any]:
    """Each recipe with everything that has a state: images by rank, students, features. Undisturbed."""
    term = IdentityTerm(loss="logit", feature_weight=0.5, student_count=1, student_step_count=2)
    attacks = {
        recipe: dataclasses.replace(QUICK, recipe=recipe, top_n=5, identity=term) for recipe in RECIPES
    }
    known: dict[str, Any] = {}
    for recipe, attack in attacks.items():
        clock, door = Clock(), WhiteBox(target)
        made = attack(door, same_domain, count_per_class=2, seed=5, progress=clock)
        known[recipe] = attack, made, door.queries, clock.loops
    return known


@pytest.mark.parametrize("share_done", [0.1, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_in_any_loop_it_goes_on_to_the_same_bytes_and_queries(
    recipe, share_done, whole, target, same_domain, tmp_path: Path
) -> None:
    attack, undisturbed, queries, loops = whole[recipe]
    last = 1 + round(share_done * (len(loops) - 2))
    with open_run(tmp_path, config={}, resume=False) as run, pytest.raises(Kill):
        attack(
            WhiteBox(target),
            same_domain,
            count_per_class=2,
            seed=5,
            checkpoint=run.checkpoint("attack", every_seconds=0.0),
            progress=Clock(last),
        )
    door, rest = WhiteBox(target), Clock()
    with open_run(tmp_path, config={}, resume=True) as run:
        made = attack(
            door,
            same_domain,
            count_per_class=2,
            seed=5,
            checkpoint=run.checkpoint("attack", every_seconds=0.0),
            progress=rest,
        )
    assert torch.equal(made.images, undisturbed.images)
    assert len(undisturbed.images.unique()) > 50, "or all would be equal"
    for ours, theirs in zip(made.snapshots, undisturbed.snapshots, strict=True):
        assert torch.equal(ours.images, theirs.images)
    assert door.queries == queries
    if "Variational" in loops[last - 1]:
        assert rest.loops == loops[last:], "nothing is done twice, the GAN least of all"


def test_every_step_asks_the_target_about_one_batch(target, same_domain) -> None:
    door = WhiteBox(target)
    QUICK(door, same_domain, count_per_class=1)
    assert (door.queries.forward, door.queries.backward, door.queries.images) == (12, 12, 12 * 8)


@pytest.mark.parametrize("recipe", RECIPES)
def test_snapshots_show_the_same_draws_of_a_miner_that_hardly_moves(recipe, target, same_domain) -> None:
    still = dataclasses.replace(QUICK, recipe=recipe, learning_rate=1e-12)
    first, *others = still(WhiteBox(target), same_domain, count_per_class=1).snapshots
    assert len(first.images.unique(dim=0)) == 80
    assert others
    assert all(torch.equal(first.images, other.images) for other in others)


def test_the_gan_learns_from_the_best_images_of_each_class_alone(target, same_domain, tmp_path: Path) -> None:
    """The cache knows a GAN by its images: a twentieth of them, chosen by the target, is another GAN."""
    cache = Cache(tmp_path)
    for attack in (QUICK, dataclasses.replace(QUICK, top_n=5), dataclasses.replace(QUICK, recipe="flow")):
        attack(WhiteBox(target), same_domain, count_per_class=1, cache=cache)
    assert len(list(tmp_path.glob("gan-*.safetensors"))) == 2
    control = dataclasses.replace(QUICK, top_n=5).without_target()
    door = WhiteBox(target)
    made = control(door, same_domain, count_per_class=1, cache=cache)
    assert len(list(tmp_path.glob("gan-*.safetensors"))) == 2, "the control asks the target for nothing"
    assert door.queries.forward == 0
    assert made.images.shape == (4, *SHAPE)


def test_published_numbers_are_the_defaults() -> None:
    attack = VariationalMI()
    assert attack.step_counts(1000, 32) == {"gan.step_count": 50 * 8, "step_count": 3100}
    assert attack.without_target().step_counts(1000, 32) == {"gan.step_count": 50 * 8}
    assert [attack.learning_rate_on(channels) for channels in (1, 3)] == [0.003, 0.01]
    assert VariationalMI(recipe="flow").learning_rate_on(3) == 0.0001
    assert (attack.component_count, attack.batch_size, attack.kl_weight) == (7, 256, 0.001)


@pytest.mark.parametrize("side", [12, 20])
def test_colour_of_any_side(side: int, blobs: Callable[..., torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * side**2, 2))
    target = Target(model, class_names=("a", "b"), image_shape=(3, side, side))
    public = blobs(20, side=side).repeat(1, 3, 1, 1)
    made = QUICK(WhiteBox(target), public, count_per_class=300)
    assert made.images.shape == (600, 3, side, side)
    assert made.labels.tolist() == [0] * 300 + [1] * 300


def test_oblong_images_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8 * 12, 2))
    target = Target(model, class_names=("a", "b"), image_shape=(1, 8, 12))
    with pytest.raises(ValueError, match="8×12 pixels: pad or resize"):
        QUICK(WhiteBox(target), torch.rand(4, 1, 8, 12))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"step_count": 0}, "step_count is 0"),
        ({"top_n": 0}, "top_n is 0"),
        ({"component_count": 0}, "component_count is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"kl_weight": -1.0}, "kl_weight is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"recipe": "flow", "gan": GanTraining(latent_size=1)}, "gan.latent_size"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        VariationalMI(**settings)
    assert "\n" not in str(refused.value)


def test_a_flow_without_its_library_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ValueError, match=r"patchmi\[flow\]"):
        VariationalMI(recipe="flow")
    VariationalMI(recipe="mixture")
