"""Searching images batch after batch, each class as often in every one: the frame around a paper's step."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

import torch

from patchmi import machine
from patchmi.attacks.base import (
    OBSERVED_EVERY,
    SNAPSHOT_SHARES,
    Task,
    merge_snapshots,
    snapshot_count,
    to_bytes,
)
from patchmi.attacks.identity import IdentityTerm
from patchmi.losses import Scalar
from patchmi.target import Queries, WhiteBox
from patchmi.types import Images, Labels, Observer, Progress, Reconstructions, unobserved


def refuse_public_terms(identity: IdentityTerm, *, attack: str) -> None:
    """Refuse what an identity term needs public images for, in an attack that uses none.

    Raises:
        ValueError: If it has students or a weight of the features.
    """
    if identity.student_count > 0 or identity.feature_weight > 0:
        raise ValueError(
            f"identity: {attack} uses no public images, which students and features are learnt from: "
            "leave student_count and feature_weight at 0"
        )


@runtime_checkable
class Search(Protocol):
    """A batch of images on its way, one for each label that it was started with."""

    def advance(self, share_done: float) -> Mapping[str, Scalar]:
        """Take one step; gives the terms of the loss, by name."""
        ...

    def images(self) -> Images:
        """What it would answer now, in [0, 1]."""
        ...

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, but the random state and the queries."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        ...


def search_in_batches(
    start: Callable[[Labels], Search],
    door: WhiteBox,
    task: Task,
    *,
    batch_size: int,
    step_count: int,
    description: str,
) -> Reconstructions:
    """Search all classes together in batches of about one size, and put the images in the order of classes.

    Args:
        start: Begins the search of a batch of images of these classes, on the device.
        door: Access to the target; its count of questions is kept with the search.
        task: How many images of each class; every batch draws from its own stream of the seed.
        batch_size: Images that are searched together, at most.
        step_count: Steps of each batch.
        description: What the progress calls it.
    """
    # By turns, so that batches, and the first few images of each class, are balanced.
    labels = torch.arange(door.class_count).repeat(task.count_per_class)
    batches = labels.tensor_split(math.ceil(len(labels) / batch_size))
    shown_count = snapshot_count(door.class_count) * door.class_count
    shown_counts = torch.arange(len(labels)).lt(shown_count).tensor_split(len(batches))
    state = task.checkpoint.load() or {"batch": 0, "answers": []}
    answers: list[dict[str, Any]] = state["answers"]
    for number in range(state["batch"], len(batches)):
        torch.manual_seed(task.seed * 1_000_003 + number)
        run = _Run(
            start(batches[number].to(machine.device())), batches[number], int(shown_counts[number].sum())
        )
        if "run" in state:
            run.restore(state.pop("run"))
            machine.restore_random_state(state["random"])
            door.queries = Queries(**state["queries"])
        which = "" if len(batches) == 1 else f", batch {number + 1} of {len(batches)}"
        with task.checkpoint.guard():
            run.finish(
                step_count=step_count,
                progress=task.progress,
                description=f"{description}{which}",
                observe=task.observe,
                first_step=number * step_count,
                after_step=lambda run=run, number=number: task.checkpoint.save_if_due(
                    lambda: {
                        "batch": number,
                        "answers": answers,
                        "run": run.state(),
                        "queries": asdict(door.queries),
                        "random": machine.random_state(),
                    }
                ),
            )
        answers.append({"images": to_bytes(run.search.images()), "snapshots": run.snapshots})
    order = labels.argsort(stable=True)
    images = torch.cat([answer["images"] for answer in answers])[order].float() / 255
    return Reconstructions(
        images,
        labels[order],
        torch.full_like(labels, task.seed),
        merge_snapshots(answers),
    )


class _Run:
    """The search of one batch, with its clock and its snapshots."""

    def __init__(self, search: Search, labels: Labels, shown_count: int) -> None:
        self.search, self.shown_labels = search, labels[:shown_count]
        self.step, self.seconds = 0, 0.0
        self.snapshots: list[dict[str, Any]] = []

    def finish(
        self,
        *,
        step_count: int,
        progress: Progress,
        description: str,
        observe: Observer,
        first_step: int,
        after_step: Callable[[], None],
    ) -> None:
        """Take the steps that are left."""
        snapshot_steps = {round(share * step_count) for share in SNAPSHOT_SHARES[:-1]}
        began = time.perf_counter()
        for step in progress(range(self.step, step_count), description):
            if step in snapshot_steps:
                self._keep_snapshot()
            terms = self.search.advance(step / step_count)
            self.step = step + 1
            now = time.perf_counter()
            self.seconds += now - began
            began = now
            # Reading a loss waits for the device that computes it.
            if observe is not unobserved and step % OBSERVED_EVERY == 0:
                seen = {name: term.item() for name, term in terms.items()}
                observe(first_step + step, {**seen, "seconds": self.seconds})
            after_step()
        self._keep_snapshot()

    def _keep_snapshot(self) -> None:
        images = to_bytes(self.search.images()[: len(self.shown_labels)])
        self.snapshots.append(
            {"step": self.step, "seconds": self.seconds, "images": images, "labels": self.shown_labels}
        )

    def state(self) -> dict[str, Any]:
        return {
            "search": self.search.state(),
            "step": self.step,
            "seconds": self.seconds,
            "snapshots": self.snapshots,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.search.restore(state["search"])
        self.step, self.seconds, self.snapshots = state["step"], state["seconds"], state["snapshots"]
