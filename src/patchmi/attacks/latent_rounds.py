"""Searching a GAN's latents by what a black box answers, round after round: the frame around a paper's round.

All classes advance together, so that a budget that ends leaves all of them alike. First a share of the budget
goes to latents of no class; what is left then says how many rounds there are.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from patchmi import machine
from patchmi.attacks.base import OBSERVED_EVERY, SNAPSHOT_SHARES, Task, merge_snapshots, snapshot_count
from patchmi.attacks.public_gan import GanTraining, PublicGan, public_gan, restored_gan
from patchmi.target import BlackBox
from patchmi.types import Bytes, Images, Progress, Reconstructions, unobserved

ASKED_AT_ONCE = 128
"""Latents of no class in a round."""

ClassLatents = Float[Tensor, "classes each latent"]
"""As many latents of every class."""


@runtime_checkable
class RoundSearch(Protocol):
    """The latents of all classes on their way."""

    def look_around(self, count: int) -> bool:
        """Ask about so many latents of no class; gives whether every class has what it needs to begin."""
        ...

    def begin(self) -> int:
        """Begin the search from what was seen; gives how many images a round sends, at most."""
        ...

    def advance(self) -> None:
        """One round of the paper's algorithm, for every class."""
        ...

    def answer(self, noise: ClassLatents) -> ClassLatents:
        """Latents that it would answer now, as many as there are of noise from N(0, I)."""
        ...

    def progress(self) -> dict[str, float]:
        """How far it is, in numbers with names."""
        ...

    def notes(self) -> tuple[str, ...]:
        """What it could not do as described."""
        ...

    def state(self) -> dict[str, Any]:
        """All that the next round depends on, but GAN, door and random state."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        ...


@dataclass(frozen=True)
class Rounds:
    """What an attack puts into the frame.

    Args:
        title: What the progress calls it.
        gan: How the GAN of public images is trained.
        start: Begins a search of the GAN's latents.
        first_share: Share of the budget for latents of no class.
        uses_target: Off: what the GAN draws, an audit's control.
        precision: Number format of the GAN's training.
    """

    title: str
    gan: GanTraining
    start: Callable[[PublicGan], RoundSearch]
    first_share: float
    uses_target: bool
    precision: machine.Precision


def search_in_rounds(rounds: Rounds, door: BlackBox, public: Images, task: Task) -> Reconstructions:
    """Train the GAN, search as long as the budget goes, and draw what was found.

    Args:
        rounds: What is searched, and how.
        door: Access to the target.
        public: What the GAN learns.
        task: How many images, of which seed; its cache keeps the GAN.
    """
    began = time.perf_counter()
    state = task.checkpoint.load()
    if state is None:
        gan = public_gan(
            public,
            rounds.gan,
            seed=task.seed,
            cache=task.cache,
            progress=task.progress,
            precision=rounds.precision,
        )
        run = _Run(rounds, gan, door)
        run.seconds = time.perf_counter() - began
    else:
        gan = restored_gan(state["gan"], rounds.gan, image_shape=door.image_shape)
        run = _Run(rounds, gan, door)
        run.restore(state["run"])
        machine.restore_random_state(state["random"])

    def take(step: Callable[[], None]) -> None:
        """One round, with all that a round brings."""
        began = time.perf_counter()
        step()
        run.round += 1
        run.seconds += time.perf_counter() - began
        if task.observe is not unobserved and (run.round - 1) % OBSERVED_EVERY == 0:
            task.observe(run.round - 1, {**run.search.progress(), "seconds": run.seconds})
        task.checkpoint.save_if_due(
            lambda: {"gan": gan.state(), "run": run.state(), "random": machine.random_state()}
        )

    with task.checkpoint.guard():
        if rounds.uses_target:
            _finish(run, take, task.progress, task.title(rounds.title))
    run.keep_snapshot()
    labels = torch.arange(door.class_count).repeat_interleave(task.count_per_class)
    noise = torch.randn(door.class_count, task.count_per_class, gan.latent_size)
    return Reconstructions(
        run.images(noise).float() / 255,
        labels,
        torch.full_like(labels, task.seed),
        merge_snapshots([vars(run)]),
        run.search.notes() if rounds.uses_target else (),
    )


def _finish(
    run: "_Run", take: Callable[[Callable[[], None]], None], progress: Progress, description: str
) -> None:
    """Take the rounds that are left."""
    if run.main_rounds is None:
        for _ in progress(range(run.round, run.first_round_count), f"{description}: looks around"):
            if run.has_seen_enough:
                break
            take(run.look_around)
        run.main_rounds = range(run.round, run.round + run.door.left // run.search.begin())
    main = run.main_rounds
    snapshots_at = {main.start + round(share * len(main)) for share in SNAPSHOT_SHARES[:-1]}
    for number in progress(range(run.round, main.stop), description):
        if number in snapshots_at:
            run.keep_snapshot()
        take(run.search.advance)


class _Run:
    """A search on its way, with its clock and its snapshots."""

    def __init__(self, rounds: Rounds, gan: PublicGan, door: BlackBox) -> None:
        self.gan, self.door, self.uses_target = gan, door, rounds.uses_target
        first_count = max(1, int(rounds.first_share * door.budget))
        self.looked_at_once = min(ASKED_AT_ONCE, first_count)
        self.first_round_count = first_count // self.looked_at_once
        self.search = rounds.start(gan)
        class_count = door.class_count
        self.snapshot_noise = torch.randn(class_count, snapshot_count(class_count), gan.latent_size)
        self.snapshots: list[dict[str, Any]] = []
        self.round, self.seconds = 0, 0.0
        self.has_seen_enough = False
        self.main_rounds: range | None = None
        """The paper's rounds, once it is known how many the budget leaves."""

    def look_around(self) -> None:
        """One round about latents of no class."""
        self.has_seen_enough = self.search.look_around(self.looked_at_once)

    def images(self, noise: ClassLatents) -> Bytes:
        """What it would answer now, in the order of the classes; without the target, the GAN's images."""
        latents = self.search.answer(noise) if self.uses_target else noise
        return self.gan.draw(latents.flatten(0, 1))

    def keep_snapshot(self) -> None:
        """Keep what it would answer now."""
        class_count, shown_count, _ = self.snapshot_noise.shape
        self.snapshots.append(
            {
                "step": self.round,
                "seconds": self.seconds,
                "images": self.images(self.snapshot_noise),
                "labels": torch.arange(class_count).repeat_interleave(shown_count),
                "queries": self.door.account.asked,
            }
        )

    def state(self) -> dict[str, Any]:
        """All that the next round depends on, but GAN and random state."""
        main = self.main_rounds
        kept = ("snapshot_noise", "snapshots", "round", "seconds", "has_seen_enough")
        return {
            **{name: getattr(self, name) for name in kept},
            "main_rounds": None if main is None else (main.start, main.stop),
            "search": self.search.state(),
            "door": self.door.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        state = dict(state)
        self.door.restore(state.pop("door"))
        self.search.restore(state.pop("search"))
        main = state.pop("main_rounds")
        self.main_rounds = None if main is None else range(*main)
        for name, value in state.items():
            setattr(self, name, value)
