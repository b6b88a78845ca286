"""Every attack on one digit classifier, with public images of the same kind: what each was published for.

The target is trained on half of the packaged digits; the other half, without labels, is public. Recipes are
the published ones but for what `SETTINGS` says.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.race import class_rates
from patchmi.attacks import ATTACKS, choose_attack
from patchmi.data import load_digits, split_by_class
from patchmi.demo import DIGIT_SHAPE, JUDGES, TARGET
from patchmi.networks import ARCHITECTURES
from patchmi.target import Target, Training, WhiteBox, train_classifier
from patchmi.types import Images, Labels

COUNT_PER_CLASS = 20
SETTINGS: dict[str, dict[str, Any]] = {
    # Published for ResNet-34 is a weight of 10, which drowns the class here.
    "deep-inversion": {"step_count": 1000, "batch_norm_weight": 1.0},
    "plg-mi": {"gan_step_count": 1500},
    "variational": {"step_count": 310},
}
"""Settings other than the published ones, by attack: budgets of minutes where the published take hours."""


def measure(data: Path | None) -> dict[str, Any]:
    """Train target and judge, and run every attack on the target."""
    del data
    digits = load_digits()
    private, public = split_by_class(digits.images, digits.labels, held_out_share=0.5, seed=0)
    target = Target(_train(*TARGET, private, seed=0), digits.class_names, DIGIT_SHAPE)
    judge = _train("allconv", JUDGES["allconv"], private, seed=1)
    return {
        "count_per_class": COUNT_PER_CLASS,
        "public": f"{len(public[0])} digits, unlabelled",
        "judge_on_public": round(sum(class_rates(judge, *public)) / len(digits.class_names), 3),
        "attacks": {
            name: measure_attack(name, SETTINGS.get(name, {}), target=target, judge=judge, public=public[0])
            for name in ATTACKS
        },
    }


def measure_attack(
    name: str, settings: dict[str, Any], *, target: Target, judge: nn.Module, public: Images
) -> dict[str, Any]:
    """What the judge says of one attack's reconstructions, and what they took."""
    attack, door = choose_attack(name, settings), WhiteBox(target)
    made = attack(door, public, count_per_class=COUNT_PER_CLASS)
    rates = class_rates(judge, made.images, made.labels)
    own = class_rates(target.model, made.images, made.labels)
    return {
        "settings": settings or "published",
        "steps": attack.step_counts(len(public), DIGIT_SHAPE[1]),
        "judge_top1": round(sum(rates) / len(rates), 3),
        "worst_class": min(rates),
        "target_top1": round(sum(own) / len(own), 3),
        "seconds": round(made.snapshots[-1].seconds, 1),
        "images_asked": door.queries.images,
        "notes": made.notes,
    }


def _train(architecture: str, training: Training, private: tuple[Images, Labels], *, seed: int) -> nn.Module:
    images, labels = private
    torch.manual_seed(seed)
    model = ARCHITECTURES[architecture](class_count=10, channel_count=1)
    return train_classifier(model, images=images, labels=labels, training=training, seed=seed)
