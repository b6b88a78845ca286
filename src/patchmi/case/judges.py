"""Who judges: three networks trained on the private images, or those that the user brings."""

from dataclasses import replace
from pathlib import Path

from patchmi.audit import Judge, Private, fit_judge, fit_target
from patchmi.runs import RunFolder
from patchmi.target import (
    AsClassifier,
    Target,
    TargetFile,
    TargetInvalid,
    Training,
    check_accuracy,
    is_address,
    open_target,
    probe_target,
)
from patchmi.types import Progress

JUDGES = {"allconv": 5e-3, "convmixer": 5e-3, "mlp": 2e-3}
"""Networks that patchmi trains as judges, with their peak learning rates: three kinds, none a student's."""


def judge_trainings(step_count: int, *, flips: bool = False) -> dict[str, Training]:
    """How each judge is trained."""
    return {
        name: Training(step_count=step_count, learning_rate=rate, flips=flips)
        for name, rate in JUDGES.items()
    }


def train_judges(
    run: RunFolder, private: Private, *, step_count: int, flips: bool = False, progress: Progress
) -> list[Judge]:
    """Three judges of different kinds, trained on the private images or taken from the run folder."""
    trainings = judge_trainings(step_count, flips=flips)
    return [
        fit_judge(run, private, architecture=name, training=training, seed=number, progress=progress)
        for number, (name, training) in enumerate(trainings.items(), start=1)
    ]


def open_judges(
    specifications: tuple[str, ...],
    private: Private | None,
    *,
    class_names: tuple[str, ...],
    image_shape: tuple[int, int, int],
) -> tuple[list[Judge], tuple[str, ...]]:
    """Judges that the user brings.

    Args:
        specifications: `SOURCE` or `ARCHITECTURE@SOURCE`, opened like a target.
        private: To check them with.
        class_names: The target's; a judge answers in the same order.
        image_shape: What a judge is shown.

    Returns:
        The judges, and what was noticed.

    Raises:
        UnsafeInput: If a file could run code.
        TargetInvalid: If one cannot be opened, or answers for other classes.
    """
    judges, findings = [], []
    for specification in specifications:
        source, architecture = _parts(specification)
        if is_address(source):
            raise TargetInvalid(f"--judge {specification}: a judge sees private images; give one in a file")
        opened = open_target(
            TargetFile(source, architecture=architecture, image_shape=image_shape),
            class_count=len(class_names),
        )
        probed, noticed = probe_target(opened.target)
        if len(probed.class_names) != len(class_names):
            raise TargetInvalid(
                f"--judge {specification}: answers for {len(probed.class_names)} classes, the target for "
                f"{len(class_names)}; give judges of the target's classes, in its order"
            )
        named = replace(probed, class_names=class_names)
        if private is not None:
            check_accuracy(
                named, images=private.held_out_images, labels=private.held_out_labels, declared=None
            )
        judges.append(
            Judge(
                _name(source, judges),
                probed.architecture,
                AsClassifier(named),
                "images its owner knows",
                opened.sha256,
            )
        )
        findings += [f"Judge {judges[-1].name}: {finding}" for finding in (*opened.findings, *noticed)]
    return judges, tuple(findings)


def _parts(specification: str) -> tuple[str, str | None]:
    """Source and architecture; in `hub:OWNER/NAME@REVISION`, and in a file's own name, an @ is no sign."""
    architecture, at, source = specification.partition("@")
    if not at or specification.startswith("hub:") or Path(specification).exists():
        return specification, None
    return source, architecture


def _name(source: str, judges: list[Judge]) -> str:
    """A short name, unlike those of the judges before it."""
    name = Path(source.rpartition(":")[2]).stem[:24] or "judge"
    taken = {judge.name for judge in judges}
    return name if name not in taken else f"{name} {len(judges) + 1}"


def reference_training(step_count: int) -> dict[str, Training]:
    """How the positive control is trained."""
    return {"resnet10": Training(step_count=step_count, learning_rate=5e-3)}


def train_reference(run: RunFolder, private: Private, *, step_count: int, progress: Progress) -> Target:
    """The positive control: a plain network trained on the private images, without a defence."""
    ((architecture, training),) = reference_training(step_count).items()
    return fit_target(
        run,
        private,
        architecture=architecture,
        training=training,
        seed=len(JUDGES) + 1,
        progress=progress,
        role="reference",
    )
