"""`default` against `paper-mnist`, same target and machine, one run: who rebuilds all ten classes, and when.

The time of `default` is that of its first snapshot in which a judge recognises nine tenths of every class.
`paper-mnist` has a generator a class: each then gets its tenth of fifty times as long, one class after the
other, until one has not got there in its time. Then all ten have not.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchmi.attacks import PatchMI
from patchmi.data import load_digits, strokes
from patchmi.demo import JUDGES, TARGET
from patchmi.metrics import extract_features
from patchmi.networks import ARCHITECTURES
from patchmi.target import Target, WhiteBox, train_classifier
from patchmi.types import Images, Labels

GOAL = 0.9
FACTOR = 50


def train_on_digits(architecture: str, training: Any, seed: int) -> nn.Module:
    """A classifier of the demo's digits."""
    digits = load_digits()
    torch.manual_seed(seed)
    model = ARCHITECTURES[architecture](class_count=10, channel_count=1)
    return train_classifier(model, images=digits.images, labels=digits.labels, training=training, seed=seed)


def digit_door() -> WhiteBox:
    """White-box access to the demo's kind of target."""
    model = train_on_digits(*TARGET, seed=0)
    return WhiteBox(Target(model, tuple("0123456789"), (1, 32, 32)))


def measure(data: Path | None) -> dict[str, Any]:
    """Race the two recipes."""
    del data
    door, public = digit_door(), strokes(15_000)
    judge = train_on_digits("allconv", JUDGES["allconv"], seed=1)
    ours = PatchMI()(door, public)
    times = [
        (snapshot.seconds, class_rates(judge, snapshot.images, snapshot.labels))
        for snapshot in ours.snapshots
    ]
    won = [seconds for seconds, rates in times if min(rates) >= GOAL]
    seconds = won[0] if won else times[-1][0]
    share = FACTOR * seconds / door.class_count
    step_count = max(1, round(share / _paper_step_seconds(door, public)))
    classes: list[dict[str, float]] = []
    for label in range(door.class_count):
        attack = PatchMI(
            recipe="paper-mnist", step_count=step_count, shard_count=door.class_count, shard=label
        )
        theirs = attack(door, public, count_per_class=20)
        rate = class_rates(judge, theirs.images, theirs.labels)[label]
        classes.append({"rate": rate, "seconds": round(theirs.snapshots[-1].seconds, 1)})
        if rate < GOAL:
            break
    return {
        "goal": f"judge top-1 of every class >= {GOAL}",
        "default_reached_goal": bool(won),
        "default_seconds": round(seconds, 1),
        "default_history": [{"seconds": round(at, 1), "worst": min(rates)} for at, rates in times],
        "paper_got_times_as_long": FACTOR,
        "paper_seconds_a_class": round(share, 1),
        "paper_steps_a_class": step_count,
        "paper_classes": classes,
        "paper_reached_goal": classes[-1]["rate"] >= GOAL,
    }


def _paper_step_seconds(door: WhiteBox, public: Images, *, step_count: int = 10) -> float:
    """Seconds of training a step, without what each generator costs before and after."""
    made = PatchMI(recipe="paper-mnist", step_count=step_count)(door, public, count_per_class=1)
    return made.snapshots[-1].seconds / (door.class_count * step_count)


def class_rates(judge: nn.Module, images: Images, labels: Labels) -> list[float]:
    """Share of each digit's images in which the judge sees it; NaN for a digit of which there is none."""
    _, logits = extract_features(judge, images)
    hits = (logits.argmax(dim=1) == labels).float()
    return [round(float(hits[labels == label].mean()), 3) for label in range(10)]
