"""What an audit will take, from a few steps of it on this machine."""

import resource
import sys
import time
from dataclasses import dataclass, replace

import torch

from patchmi.attacks import PatchMI
from patchmi.audit.plan import Plan, Private
from patchmi.metrics.student import STUDENT, STUDENT_TRAINING
from patchmi.networks import ARCHITECTURES
from patchmi.target import Target, Training, WhiteBox, train_classifier
from patchmi.types import Images, Labels

TRIED_STEPS = 24
"""Steps of the attack that are run: two or more between any two snapshots but the first ones."""
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

    @property
    def seconds(self) -> float:
        """All stages."""
        return self.judges_seconds + self.attack_seconds + self.control_seconds + self.scores_seconds


def estimate_cost(
    target: Target, private: Private | None, plan: Plan, *, attack: PatchMI, judges: dict[str, Training]
) -> Cost:
    """Time a few steps of each stage and draw them out to the whole.

    Args:
        target: The classifier under attack.
        private: Its images; None for an audit without.
        plan: How often the attack is run, and on what.
        attack: The plan's attack.
        judges: Networks of patchmi's own that are to be trained, by architecture.
    """
    own, without = (_attack_seconds(one, target, plan) for one in (attack, attack.without_target()))
    seed_count = len(plan.seeds)
    trained = students = 0.0
    if private is not None:
        images, labels = private.train_images, private.train_labels
        trained = sum(
            _training_seconds(name, images, labels, training, class_count=target.class_count)
            for name, training in judges.items()
        )
        students = seed_count * _training_seconds(
            STUDENT, images, labels, STUDENT_TRAINING, class_count=target.class_count
        )
    # A page, its figures and the looks at every arm; small beside the rest, and never nothing.
    looks = 10.0
    runs = seed_count * (2 if plan.reference is not None else 1)
    return Cost(trained, runs * own, without, students + looks, round(1.1 * _peak_memory_bytes()))


def _attack_seconds(attack: PatchMI, target: Target, plan: Plan) -> float:
    """Seconds of one run: before the first step, the steps at the pace of those tried, and the drawing."""
    step_count = attack.settings(target.image_shape[1]).steps_on(len(plan.public.images))
    began = time.perf_counter()
    tried = replace(attack, step_count=TRIED_STEPS)
    made = tried(WhiteBox(target), plan.public.images, count_per_class=plan.count_per_class)
    drawing = time.perf_counter() - began - made.snapshots[-1].seconds
    first, last = made.snapshots[0].seconds, made.snapshots[-1].seconds
    return first + step_count * (last - first) / TRIED_STEPS + drawing


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
