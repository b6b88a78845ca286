"""What an audit will take, from a few steps of it on this machine."""

import math
import resource
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from patchmi.attacks import AbstractAttack
from patchmi.audit.plan import Plan, Private
from patchmi.audit.questions import expected_questions
from patchmi.audit.stages import open_door
from patchmi.machine import seeded
from patchmi.metrics.student import STUDENT, STUDENT_TRAINING
from patchmi.networks import ARCHITECTURES
from patchmi.target import Target, Training, train_classifier
from patchmi.types import Images, Labels

TRIED_STEPS = 24
"""Steps of each of the attack's loops that are run: two or more between any two snapshots but the first."""
TRIED_BATCHES = 12
"""Batches that a network is trained for to time one."""


@dataclass(frozen=True)
class Cost:
    """Seconds of an audit's stages on this machine, and the memory of its process."""

    judges_seconds: float
    attack_seconds: float
    control_seconds: float
    scores_seconds: float
    peak_memory_bytes: int
    waiting_seconds: float | None = None
    """For a model at an address: what the rate alone makes all questions take; None without a rate."""
    questions: dict[str, int] = field(default_factory=dict)
    """Images that the audit itself will send to an address at most, by what for."""

    @property
    def seconds(self) -> float:
        """All stages."""
        computed = self.judges_seconds + self.attack_seconds + self.control_seconds + self.scores_seconds
        return computed + (self.waiting_seconds or 0.0)


def estimate_cost(
    target: Target, private: Private | None, plan: Plan, *, judges: dict[str, Training]
) -> Cost:
    """Time a few steps of each stage and draw them out to the whole.

    Nothing is sent to a target at an address: a network at hand that learnt nothing answers in its place.

    Args:
        target: The classifier under attack.
        private: Its images; None for an audit without.
        plan: How often the attack is run, and on what.
        judges: Networks of patchmi's own that are to be trained, by architecture.
    """
    questions, waiting = {}, None
    if target.address is not None:
        questions = expected_questions(plan, target, private)
        if (rate := plan.grant.images_per_second) is not None:
            waiting = (len(plan.seeds) * plan.grant.budget + sum(questions.values())) / rate
        target = _stand_in(target)
    own, without = (_attack_seconds(one, target, plan) for one in (plan.attack, plan.attack.without_target()))
    seed_count = len(plan.seeds)
    trained = students = 0.0
    if private is not None:
        images, labels = private.train_images, private.train_labels
        trained = math.fsum(
            _training_seconds(name, images, labels, training, class_count=target.class_count)
            for name, training in judges.items()
        )
        students = seed_count * _training_seconds(
            STUDENT, images, labels, STUDENT_TRAINING, class_count=target.class_count
        )
    # A page, its figures and the looks at every arm; small beside the rest, and never nothing.
    looks = 10.0
    runs = seed_count * (2 if plan.reference is not None else 1)
    return Cost(
        trained,
        runs * own,
        without,
        students + looks,
        round(1.1 * _peak_memory_bytes()),
        waiting,
        questions,
    )


def _stand_in(target: Target) -> Target:
    """A network at hand with the same classes and images."""
    with seeded(0):
        model = ARCHITECTURES["lenet"](class_count=target.class_count, channel_count=target.image_shape[0])
    return Target(model.eval(), target.class_names, target.image_shape)


def _attack_seconds(attack: AbstractAttack, target: Target, plan: Plan) -> float:
    """Seconds of one run: with few steps of each loop, and what the others add at the pace of those tried."""
    counts = attack.step_counts(len(plan.public.images), target.image_shape[1])
    tried = attack
    for name in counts:
        tried = _with_count(tried, name, TRIED_STEPS)
    seconds, in_steps = _run_seconds(tried, target, plan)
    if list(counts) == ["step_count"]:
        return seconds + (counts["step_count"] - TRIED_STEPS) * in_steps / TRIED_STEPS
    drawn_out = seconds
    for name, count in counts.items():
        longer, _ = _run_seconds(_with_count(tried, name, 3 * TRIED_STEPS), target, plan)
        drawn_out += (count - TRIED_STEPS) * max(0.0, longer - seconds) / (2 * TRIED_STEPS)
    return drawn_out


def _run_seconds(attack: AbstractAttack, target: Target, plan: Plan) -> tuple[float, float]:
    """Seconds of a run, and those between its first step and its last."""
    began = time.perf_counter()
    made = attack(open_door(target, plan), plan.public.images, count_per_class=plan.count_per_class)
    times = [snapshot.seconds for snapshot in made.snapshots] or [0.0]
    return time.perf_counter() - began, times[-1] - times[0]


def _with_count(attack: Any, name: str, count: int) -> Any:
    """The attack with another number of steps; a dot in the name leads into a group of settings."""
    first, _, rest = name.partition(".")
    return replace(attack, **{first: _with_count(getattr(attack, first), rest, count) if rest else count})


def _training_seconds(
    name: str, images: Images, labels: Labels, training: Training, *, class_count: int
) -> float:
    """Seconds of a training, from some batches after as many that warm up."""
    model = ARCHITECTURES[name](class_count=class_count, channel_count=images.shape[1])
    tried = replace(training, step_count=TRIED_BATCHES)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        train_classifier(model, images=images, labels=labels, training=tried, seed=0)
        seconds.append(time.perf_counter() - began)
    return seconds[1] / TRIED_BATCHES * training.step_count


def _peak_memory_bytes() -> int:
    """The most that this process has held, on its processor and its accelerator."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    accelerator = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return (peak if sys.platform == "darwin" else peak * 1024) + accelerator
