"""What every attack promises, whatever its paper: a row in `ATTACKS` is a column of tests here."""

import copy
import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from patchmi.attacks import (
    ATTACKS,
    RECIPES,
    AbstractAttack,
    BrepMI,
    CmaMI,
    DeepInversion,
    GanTraining,
    GenerativeMI,
    Lokt,
    MirrorMI,
    PatchMI,
    PatchTransfer,
    PlgMI,
    PublicWeights,
    VariationalMI,
)
from patchmi.attacks.base import Door
from patchmi.runs import Journal, open_run
from patchmi.target import Account, LabelAccess, Queries, ScoreAccess, Target, WhiteBox, oracle_of
from patchmi.types import Reconstructions

pytestmark = pytest.mark.parametrize("name", ATTACKS)
STEPS = 4
COUNT = 3
SHAPE = (1, 16, 16)


SMALL_GAN = GanTraining(step_count=60, batch_size=64, latent_size=16, width=16, learning_rate=1e-3)
BRIEF: dict[str, AbstractAttack] = {
    "patch-mi": PatchMI(
        dataclasses.replace(
            RECIPES["default"], student_warm_up=2, public_weights=PublicWeights(crop_count=60)
        )
    ),
    "generative": GenerativeMI(
        gan=GanTraining(step_count=60, batch_size=64, latent_size=32, width=16, learning_rate=1e-3),
        restart_count=10,
    ),
    "variational": VariationalMI(
        gan=GanTraining(step_count=60, width=16, latent_size=16, batch_size=32, learning_rate=2e-3),
        batch_size=64,
        learning_rate=1.0,
    ),
    "plg-mi": PlgMI(
        gan_step_count=12, discriminator_step_count=1, gan_learning_rate=6e-3, alpha=5.0, width=8
    ),
    "deep-inversion": DeepInversion(batch_norm_weight=0.3),
    "brep-mi": BrepMI(gan=SMALL_GAN, point_count=8, search_share=0.4),
    "mirror": MirrorMI(gan=SMALL_GAN),
    "cma-es": CmaMI(gan=SMALL_GAN),
    "lokt": Lokt(
        gan_step_count=24,
        batch_size=32,
        width=8,
        gan_learning_rate=6e-3,
        surrogates=("lenet", "mlp"),
        surrogate_width=8,
        fit_step_count=30,
    ),
    "patch-transfer": PatchTransfer(
        dataclasses.replace(RECIPES["default"], public_weights=PublicWeights(crop_count=60)),
        fit_step_count=4,
        student_width=4,
    ),
}
"""Attacks whose defaults prepare for long, or are for larger targets; those not named run as they are."""
SMOOTHER = {"general": "mlp", "deep-inversion": "vgg6", "brep-mi": "mlp", "lokt": "mlp"}
"""Targets for attacks with a weak prior or none: from a deep one they draw what it alone reads."""


def short(name: str, step_count: int = STEPS) -> AbstractAttack:
    """The attack at its default settings, but for its budget."""
    attack = BRIEF.get(name) or ATTACKS[name]()
    has_steps = any(field.name == "step_count" for field in dataclasses.fields(attack))
    return dataclasses.replace(attack, **({"step_count": step_count} if has_steps else {}))  # pyright: ignore[reportArgumentType]


CLASSES = ("a", "b", "c", "d")
BUDGET = 120


def open_door(name: str, target: Target, record: Journal | None = None, *, budget: int = BUDGET) -> Door:
    """The door that an attack is meant for; a black box with a budget."""
    access = ATTACKS[name].accesses[0]
    if access == "white-box":
        return WhiteBox(target)
    door = {"label": LabelAccess, "score": ScoreAccess}[access]
    return door(oracle_of(target), class_names=CLASSES, image_shape=SHAPE, budget=budget, record=record)


def asked_of(door: Door) -> Queries | Account:
    """What has been asked through a door."""
    return door.queries if isinstance(door, WhiteBox) else door.account


@pytest.fixture(scope="module")
def target(fit: Callable[..., nn.Module]) -> Target:
    return Target(fit("resnet10", width=4), class_names=CLASSES, image_shape=SHAPE)


@pytest.fixture(scope="module")
def public(blobs: Callable[..., torch.Tensor]) -> torch.Tensor:
    return blobs(60, seed=3)


@pytest.fixture(scope="module")
def reconstruct(target: Target, public: torch.Tensor) -> Callable[..., Reconstructions]:
    """Run the short attack, once for each set of arguments."""
    known: dict[tuple[str, int], Reconstructions] = {}

    def run(name: str, *, seed: int = 0) -> Reconstructions:
        if (name, seed) not in known:
            known[name, seed] = short(name)(open_door(name, target), public, count_per_class=COUNT, seed=seed)
        return known[name, seed]

    return run


def content(made: Reconstructions) -> list[bytes]:
    """All bytes of an answer, but for the time that it took."""
    pictures = [made.images, made.labels, made.seeds]
    for snapshot in made.snapshots:
        pictures += [torch.tensor(snapshot.step), snapshot.images, snapshot.labels]
    return [picture.numpy().tobytes() for picture in pictures]


def test_gives_as_many_images_of_each_class_as_asked_in_the_order_of_the_classes(name, reconstruct):
    made = reconstruct(name)
    assert made.images.shape == (4 * COUNT, *SHAPE)
    assert made.labels.tolist() == [label for label in range(4) for _ in range(COUNT)]
    assert made.images.dtype == torch.float32
    assert not made.images.requires_grad
    assert made.images.is_contiguous()


def test_images_lie_in_the_unit_range_and_survive_eight_bits_a_pixel(name, reconstruct):
    images = reconstruct(name).images
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal((images * 255).round().byte().float() / 255, images)
    assert len(images.unique()) > 10


@pytest.mark.parametrize("seed", [0, 7])
def test_every_image_names_the_seed_behind_it(name, seed, reconstruct):
    assert reconstruct(name, seed=seed).seeds.tolist() == [seed] * 4 * COUNT


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(name, reconstruct, target, public):
    torch.manual_seed(99)
    again = short(name)(open_door(name, target), public, count_per_class=COUNT, seed=0)
    assert content(again) == content(reconstruct(name, seed=0))
    assert not torch.equal(again.images, reconstruct(name, seed=7).images)


def test_the_global_random_generators_go_on_as_if_nothing_had_been_drawn(name, target, public):
    # Python's own generator is left out: beartype, which checks types in these tests, draws from it.
    def states() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), np.random.get_state(legacy=True)[1].tolist()  # noqa: NPY002  # pyright: ignore[reportArgumentType]

    before = states()
    short(name, step_count=1)(open_door(name, target), public, count_per_class=1)
    assert states() == before


def condition(model: nn.Module) -> dict[str, Any]:
    """All that a target could be changed in."""
    tensors = {key: value.numpy().tobytes() for key, value in model.state_dict().items()}
    needs_gradient = {key: value.requires_grad for key, value in model.named_parameters()}
    gradients = {key: value.grad is None for key, value in model.named_parameters()}
    training = {key: module.training for key, module in model.named_modules()}
    hooks = {
        key: len(module._forward_hooks) + len(module._forward_pre_hooks)
        for key, module in model.named_modules()
    }
    return {
        "tensors": tensors,
        "needs": needs_gradient,
        "none": gradients,
        "training": training,
        "hooks": hooks,
    }


def test_the_target_leaves_unchanged_to_the_last_bit_and_flag(name, fit, public):
    model = fit("resnet10", width=4, step_count=1).train()
    model.trunk[0].weight.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = None
    before = condition(model)
    target = Target(model, class_names=("a", "b", "c", "d"), image_shape=SHAPE)
    short(name, step_count=2)(open_door(name, target), public, count_per_class=1)
    assert condition(model) == before


def test_the_public_images_leave_unchanged(name, target, public):
    before = public.clone()
    short(name, step_count=2)(open_door(name, target), public, count_per_class=1)
    assert torch.equal(public, before)


def test_an_observer_hears_finite_losses_in_order_and_changes_neither_byte_nor_query(
    name, reconstruct, target, public
):
    heard: list[tuple[int, dict[str, float]]] = []
    door, unobserved = open_door(name, target), open_door(name, target)
    short(name)(unobserved, public, count_per_class=COUNT)
    made = short(name)(
        door,
        public,
        count_per_class=COUNT,
        observe=lambda step, losses: heard.append((step, dict(losses))),
    )
    assert content(made) == content(reconstruct(name))
    assert asked_of(door) == asked_of(unobserved)
    steps = [step for step, _ in heard]
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    numbers = [number for _, losses in heard for number in losses.values()]
    assert numbers
    assert all(isinstance(number, float) and np.isfinite(number) for number in numbers)


def with_a_hole(images: torch.Tensor) -> torch.Tensor:
    holed = images.clone()
    holed[1, 0, 2, 3] = float("nan")
    return holed


@pytest.mark.parametrize(
    ("spoil", "remedy"),
    [
        (lambda images: images.repeat(1, 3, 1, 1), "resize"),
        (lambda images: images[..., :8], "resize"),
        (lambda images: (images * 255).round(), "divide 8-bit images by 255"),
        (lambda images: images * 2 - 1, r"in \[0, 1\]"),
        (with_a_hole, "finite"),
        (lambda images: images[:1], "at least 2"),
    ],
    ids=["colour", "other size", "bytes", "signed", "nan", "one image"],
)
def test_public_images_that_do_not_fit_are_refused_in_one_line(name, spoil, remedy, target, public):
    door = open_door(name, target)
    before = copy.deepcopy(asked_of(door))
    with pytest.raises(ValueError, match=remedy) as refused:
        short(name)(door, spoil(public))
    assert "\n" not in str(refused.value)
    assert asked_of(door) == before


class Kill(Exception):  # noqa: N818 - the end of a process, here without a process
    """Ends an attack between two steps."""


class Clock:
    """A progress that counts the steps of all loops together, and kills before the one after the last."""

    def __init__(self, last: float = float("inf")) -> None:
        self.count, self.last = 0, last

    def __call__(self, steps: Iterable[int], description: str) -> Iterable[int]:
        assert description
        for step in steps:
            if self.count == self.last:
                raise Kill
            self.count += 1
            yield step


@pytest.mark.parametrize("share_done", [0.0, 0.5, 1.0])
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes_and_queries(
    name, share_done, tmp_path: Path, reconstruct, target, public
):
    whole, undisturbed = Clock(), open_door(name, target)
    short(name)(undisturbed, public, count_per_class=COUNT, progress=whole)
    last = 1 + round(share_done * (whole.count - 2))
    with open_run(tmp_path, config={}, resume=False) as run, pytest.raises(Kill):
        checkpoint = run.checkpoint("attack", every_seconds=0.0)
        short(name)(
            open_door(name, target, Journal(tmp_path / "queries")),
            public,
            count_per_class=COUNT,
            checkpoint=checkpoint,
            cache=run.cache(every_seconds=0.0),
            progress=Clock(last),
        )
    torch.manual_seed(123)
    door, rest = open_door(name, target, Journal(tmp_path / "queries")), Clock()
    with open_run(tmp_path, config={}, resume=True) as run:
        checkpoint = run.checkpoint("attack", every_seconds=0.0)
        made = short(name)(
            door,
            public,
            count_per_class=COUNT,
            checkpoint=checkpoint,
            cache=run.cache(every_seconds=0.0),
            progress=rest,
        )
    assert content(made) == content(reconstruct(name))
    assert asked_of(door) == asked_of(undisturbed)
    assert rest.count == 1 or share_done < 1


class Asked(nn.Module):
    """A target that keeps its own account of what it is asked, beyond all copies of itself."""

    calls: list[tuple[int, bool]] = []  # noqa: RUF012 - shared by the copies, on purpose

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append((len(images), images.requires_grad))
        return self.model(images)


@pytest.fixture
def asked(target: Target) -> Target:
    Asked.calls.clear()
    return dataclasses.replace(target, model=Asked(target.model))


def test_every_query_is_counted(name, asked, public):
    door = open_door(name, asked)
    short(name)(door, public, count_per_class=1)
    if not isinstance(door, WhiteBox):
        assert BUDGET >= door.account.asked == sum(count for count, _ in Asked.calls) > BUDGET / 2
        assert not any(needs_gradient for _, needs_gradient in Asked.calls)
        return
    assert door.queries.forward == len(Asked.calls) >= STEPS
    assert door.queries.images == sum(count for count, _ in Asked.calls)
    assert door.queries.backward == sum(needs_gradient for _, needs_gradient in Asked.calls) > 0


def test_without_its_target_it_asks_for_no_gradient_and_draws_all_the_same(name, asked, public):
    door, control = open_door(name, asked), short(name).without_target()
    assert isinstance(control, ATTACKS[name])
    made = control(door, public, count_per_class=COUNT)
    assert isinstance(door, WhiteBox) or not Asked.calls
    assert not any(needs_gradient for _, needs_gradient in Asked.calls)
    assert made.images.shape == (4 * COUNT, *SHAPE)


def test_another_architecture_recognises_what_it_draws_but_not_what_it_draws_without_the_target(
    name, target, blobs, quarters, fit
):
    judge = fit("lenet", width=4, seed=1)
    images, truth = quarters(100, seed=50)
    public = blobs(200, seed=4)

    def recognised(pictures: torch.Tensor, labels: torch.Tensor) -> float:
        with torch.no_grad():
            hits = judge(pictures).argmax(dim=1) == labels
        return float(torch.stack([hits[labels == label].float().mean() for label in range(4)]).min())

    attack = short(name, step_count=40)
    if name in SMOOTHER:
        target = dataclasses.replace(target, model=fit(SMOOTHER[name], width=4))
    made = attack(open_door(name, target, budget=6000), public, count_per_class=20)
    control = attack.without_target()(open_door(name, target), public, count_per_class=20)
    assert recognised(images, truth) > 0.9
    assert recognised(made.images, made.labels) > 0.5
    assert recognised(control.images, control.labels) < 0.5
