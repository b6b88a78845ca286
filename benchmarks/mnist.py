"""The demo's attack on a target trained on all of MNIST: 60,000 private images, strokes as public ones."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchmi import report
from patchmi.attacks import PatchMI
from patchmi.audit import Plan, Private, audit, fit_judge, fit_target
from patchmi.data import load_labelled, load_public
from patchmi.demo import JUDGES, TARGET
from patchmi.runs import open_run

STEP_COUNT = 1200
PUBLIC_COUNT = 15_000
SHAPE = (1, 32, 32)
TRAINING_STEP_COUNT = 900


def measure(data: Path | None) -> dict[str, Any]:
    """Train target and judges on MNIST's training split, attack, and score."""
    if data is None:
        raise ValueError("mnist needs --data FOLDER with MNIST as parquet files")
    train = load_labelled(str(data), image_shape=SHAPE, split="train")
    test = load_labelled(str(data), image_shape=SHAPE, split="test")
    private = Private(train.images, train.labels, test.images, test.labels, train.class_names, "MNIST")
    with tempfile.TemporaryDirectory() as folder, open_run(folder, config={}, resume=True) as run:
        architecture, schedule = TARGET
        training = replace(schedule, step_count=TRAINING_STEP_COUNT)
        target = fit_target(run, private, architecture=architecture, training=training, seed=0)
        judges = [
            fit_judge(
                run,
                private,
                architecture=name,
                training=replace(schedule, step_count=max(TRAINING_STEP_COUNT, schedule.step_count)),
                seed=number,
            )
            for number, (name, schedule) in enumerate(JUDGES.items(), start=1)
        ]
        public = load_public("strokes", image_shape=SHAPE, count=PUBLIC_COUNT)
        plan = Plan(PatchMI(step_count=STEP_COUNT), public)
        audit(
            run,
            target=target,
            target_digest=run.digest("target.safetensors"),
            private=private,
            judges=judges,
            plan=plan,
        )
        result = report.read_result(run.path("result.json"))
    return {
        "attack_seconds": round(result["attack"]["seconds"], 1),
        "steps": STEP_COUNT,
        "wanted": {"judge_top1": 0.98, "worst_class_top1": 0.94, "attack_seconds_at_most": 360},
        "scores": result["scores"],
        "controls": result["controls"],
        "target_accuracy": result["target"]["accuracy_interval"],
    }
