"""The demo: an audit of a digit classifier from nothing but what is installed."""

from pathlib import Path

from patchmi.attacks import AbstractAttack
from patchmi.audit import WHITE_BOX, Grant, Plan, Private, audit, fit_judge, fit_target
from patchmi.data import Source, load_digits, split_by_class
from patchmi.runs import RunFolder
from patchmi.target import Training
from patchmi.types import Progress

DIGIT_SHAPE = (1, 32, 32)
TARGET = ("resnet10", Training(step_count=400, learning_rate=5e-3))
JUDGES = {
    "allconv": Training(step_count=300, learning_rate=5e-3),
    "convmixer": Training(step_count=400, learning_rate=5e-3),
    "mlp": Training(step_count=1500, learning_rate=2e-3),
}
"""Three kinds of network, none of them the target's or that of a student in the attack: what is drawn to
convince a network convinces its kin."""


def run_demo(
    run: RunFolder,
    *,
    attack: AbstractAttack,
    public: Source,
    seeds: tuple[int, ...],
    count_per_class: int,
    command: str,
    progress: Progress,
    grant: Grant = WHITE_BOX,
) -> Path:
    """Train target and judges on 4,000 digits, attack the target, and report.

    Args:
        run: Where everything is kept, and taken from if it is there.
        attack: The attack to run.
        public: What the attacker has, in `DIGIT_SHAPE`.
        seeds: Seeds of the attack.
        count_per_class: Reconstructions of each class and seed.
        command: The command line, for the report.
        progress: How to show how far each stage is.
        grant: What the attack sees of the target.

    Returns:
        The path of the report.
    """
    digits = load_digits()
    train, held_out = split_by_class(digits.images, digits.labels, held_out_share=0.2, seed=0)
    private = Private(*train, *held_out, digits.class_names, "5,000 MNIST digits", may_be_shown=True)
    plan = Plan(
        attack,
        public,
        seeds=seeds,
        count_per_class=count_per_class,
        release_context="open-weights" if grant.access == "white-box" else "public-api",
        command=command,
        grant=grant,
    )
    architecture, training = TARGET
    target = fit_target(run, private, architecture=architecture, training=training, seed=0, progress=progress)
    judges = [
        fit_judge(run, private, architecture=name, training=schedule, seed=number, progress=progress)
        for number, (name, schedule) in enumerate(JUDGES.items(), start=1)
    ]
    return audit(
        run,
        target=target,
        target_digest=run.digest("target.safetensors"),
        private=private,
        judges=judges,
        plan=plan,
        progress=progress,
    )
