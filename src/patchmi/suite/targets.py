"""A suite's targets: opened or trained on the spot, and their judges."""

from collections.abc import Iterable, Iterator, Sized
from dataclasses import asdict, dataclass, replace
from logging import getLogger
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from patchmi.audit import Findings, Judge, Private, audit_inputs, fit_judge
from patchmi.audit.controls import held_out_arm
from patchmi.audit.stages import to_bytes
from patchmi.case import (
    Case,
    Course,
    judge_trainings,
    open_case,
    open_private,
    train_judges,
    train_on,
)
from patchmi.defences import Defended
from patchmi.metrics import cluster_interval, predict_logits, robust_hits, top_k_hits
from patchmi.runs import RunFolder, open_run
from patchmi.suite.images import evenly, from_elsewhere, private_files, share_out
from patchmi.suite.jobs import cell_folder, read_json
from patchmi.suite.tables import UNDEFENDED, Suite, SuiteDefence, SuiteTarget
from patchmi.target import (
    AsClassifier,
    Description,
    LabelAccess,
    OutputMode,
    Target,
    TargetFile,
    answers,
    oracle_of,
)

ABOUT = "target.json"
"""What a target's cell says of it."""
TRAINED = "training.json"
"""What a network's training took, and what its defence says of itself: written when its weights are."""
ABOUT_JUDGES = "judges.json"
"""What the cell of its judges says of them."""
DISJOINT_JUDGE = "convmixer"
ROBUST_RADII = (0.25, 1.0)
"""Of the perturbations, in 255ths."""
ROBUST_COUNT = 400
"""Held-out images that robust accuracy is measured on."""
_SAID_EVERY_SECONDS = 30.0
_WEIGHTS = "target.safetensors"


@dataclass(frozen=True)
class Subject:
    """A target, the private images that it and its judges were trained on, and those put aside."""

    case: Case
    private: Private
    disjoint: Private | None


def prepare_target(run: RunFolder, suite: Suite, name: str, defence: SuiteDefence) -> None:
    """Train or open a target, and write down what it is worth."""
    subject = open_subject(suite, name, run.folder, train_in=run, defence=defence)
    case, private = subject.case, subject.private
    logits = answers(case.target, private.held_out_images)
    is_compared = len(suite.defences) > 1 and case.target.access == "white-box"
    about = {
        "name": name,
        "architecture": case.target.architecture,
        "private": private.description,
        "class_count": case.target.class_count,
        "class_names": case.target.class_names,
        "image_shape": case.target.image_shape,
        "sha256": case.target_digest,
        "accuracy": _accuracy(logits, private),
        "class_accuracy": _class_rates(top_k_hits(logits, private.held_out_labels), private),
        "training": run.read_json(TRAINED) if run.has(TRAINED) else None,
        "robust_accuracy": _robust_accuracy(case.target, private) if is_compared else None,
    }
    run.write_json(ABOUT, about)


def prepare_judges(run: RunFolder, suite: Suite, name: str, target_cell: Path) -> None:
    """Train a target's judges, and write down what they are worth."""
    target = suite.targets[name]
    subject = open_subject(suite, name, target_cell)
    private = subject.private
    run.pin_inputs(audit_inputs(None, private, [], None))
    # First the one whose images may be missing: nobody should wait long to hear of it.
    disjoint = disjoint_judge(run, suite, target, subject)
    judges = suite_judges(run, target, private)
    about = {
        "judges": [_describe(judge, private) for judge in judges],
        "disjoint_judge": None if disjoint is None else _describe(disjoint, private),
    }
    run.write_json(ABOUT_JUDGES, about)


def open_subject(
    suite: Suite,
    name: str,
    cell: Path,
    *,
    train_in: RunFolder | None = None,
    defence: SuiteDefence = UNDEFENDED,
) -> Subject:
    """A target with its private images.

    Args:
        suite: What was read.
        name: The target's.
        cell: Its cell's folder.
        train_in: The cell, taken, where the target is still to be trained.
        defence: What it is trained with then.

    Raises:
        ConfigChanged: The private images are not those that the cell began with.
        ValueError: Model or images cannot be used, or there are too few.
    """
    target = suite.targets[name]
    files = private_files(suite, target)
    case = None
    if target.model is not None:
        case = open_case(_file(suite, target, cell), files)
        private, noticed = case.private, case.findings.images
    else:
        private, noticed = open_private(files, image_shape=_shape(target))
    assert private is not None
    kept, disjoint = share_out(private, target)
    if train_in is not None:
        train_in.pin_inputs(audit_inputs(None, kept, [], None))
        if target.model is None and not train_in.has(TRAINED):
            _write(train_in, train_network(suite, target, kept, defence), target, kept)
    if case is None:
        case = open_case(_file(suite, target, cell), None)
    case = replace(
        case,
        target=replace(case.target, name=name),
        private=kept,
        findings=Findings(case.findings.target, noticed),
    )
    return Subject(case, kept, disjoint)


def open_attacked(suite: Suite, folder: Path, cell_name: str) -> tuple[Target, str]:
    """The target of a finished cell and the SHA-256 of its weights, without any private image.

    Args:
        suite: What was read.
        folder: The suite's.
        cell_name: As `target_of` names it.

    Raises:
        ValueError: It is not the model that the cell opened.
    """
    cell, name = cell_folder(folder, cell_name), cell_name.split("/")[1]
    about = read_json(cell / ABOUT)
    file = replace(
        _file(suite, suite.targets[name], cell),
        class_names=tuple(about["class_names"]),
        image_shape=tuple(about["image_shape"]),
    )
    opened = open_case(file, None)
    if opened.target_digest != about["sha256"]:
        raise ValueError(f"{file.source}: is not the model that {cell} opened; remove the cells of {name}")
    return replace(opened.target, name=name), opened.target_digest


def suite_judges(run: RunFolder, target: SuiteTarget, private: Private) -> list[Judge]:
    """A target's judges, trained as the suite says or taken from the run folder."""
    return train_judges(run, private, step_count=target.judge_steps, flips=target.flips, progress=logged)


def disjoint_judge(run: RunFolder, suite: Suite, target: SuiteTarget, subject: Subject) -> Judge | None:
    """A judge that saw none of the target's images, trained or taken up; None where there are no others.

    Raises:
        ValueError: Images from elsewhere cannot be read, or lack a class.
    """
    disjoint = subject.disjoint or from_elsewhere(suite, target, subject.private)
    if disjoint is None:
        return None
    training = judge_trainings(target.judge_steps, flips=target.flips)[DISJOINT_JUDGE]
    with open_run(run.path("disjoint"), config={}, resume=True) as inner:
        judge = fit_judge(
            inner, disjoint, architecture=DISJOINT_JUDGE, training=training, seed=0, progress=logged
        )
    return replace(judge, name=f"disjoint {judge.name}")


def logged(steps: Iterable[int], description: str) -> Iterator[int]:
    """A progress that says now and then in the cell's log how far it is."""
    log = getLogger("patchmi")
    total = f" of {len(steps):,}" if isinstance(steps, Sized) else ""
    began = said = monotonic()
    for number, step in enumerate(steps, start=1):
        yield step
        if monotonic() - said >= _SAID_EVERY_SECONDS:
            said = monotonic()
            log.info("%s: step %s%s after %.0f s", description, f"{number:,}", total, said - began)
    log.info("%s: done in %.1f s", description, monotonic() - began)


def train_network(suite: Suite, target: SuiteTarget, private: Private, defence: SuiteDefence) -> Defended:
    """Train a target's network on its private training images."""
    course = Course(
        architecture=target.architecture or "",
        defence=defence.made(),
        step_count=target.step_count,
        seed=target.seed,
        validation_share=target.validation_share,
        pretraining=None if target.pretraining is None else suite.locate(target.pretraining),
        width=target.width,
        flips=target.flips,
    )
    learnt = private.train_images, private.train_labels
    return train_on(learnt, course, class_count=len(private.class_names), progress=logged)


def _write(run: RunFolder, made: Defended, target: SuiteTarget, private: Private) -> None:
    """Write a network as `patchmi train` does."""
    description = Description(f"patchmi:{made.architecture}", private.class_names, _shape(target))
    run.write_tensors(_WEIGHTS, made.network.state_dict(), description.metadata())
    run.write_json(TRAINED, {"seconds": made.seconds, "notes": made.notes})


def _file(suite: Suite, target: SuiteTarget, cell: Path) -> TargetFile:
    """The model as it is opened: the user's, or the one that was trained."""
    if target.model is None:
        return TargetFile(str(cell / _WEIGHTS))
    return TargetFile(
        suite.locate(target.model),
        architecture=target.architecture,
        class_names=target.class_names,
        image_shape=target.image_shape,
        mean=target.mean,
        std=target.std,
    )


def _shape(target: SuiteTarget) -> tuple[int, int, int]:
    assert target.image_shape is not None
    return target.image_shape


def _describe(judge: Judge, private: Private) -> dict[str, Any]:
    accuracy = _accuracy(predict_logits(judge.model, private.held_out_images), private)
    return {"name": judge.name, "architecture": judge.architecture, "accuracy": accuracy}


def _robust_accuracy(target: Target, private: Private) -> dict[str, list[float]]:
    """Accuracy of each class under small perturbations, by their radius in 255ths."""
    labels = private.held_out_labels
    chosen = evenly(labels, ROBUST_COUNT, class_count=len(private.class_names))
    some = replace(private, held_out_images=private.held_out_images[chosen], held_out_labels=labels[chosen])
    hits = robust_hits(
        AsClassifier(target),
        images=some.held_out_images,
        labels=some.held_out_labels,
        epsilons_255=ROBUST_RADII,
    )
    return {f"{radius:g}": _class_rates(own, some) for radius, own in zip(ROBUST_RADII, hits, strict=True)}


def answered_accuracy(target: Target, private: Private, mode: OutputMode) -> list[float]:
    """Share of each class's held-out images to which the deployed model gives their class."""
    door = LabelAccess(
        oracle_of(target),
        class_names=target.class_names,
        image_shape=target.image_shape,
        budget=len(private.held_out_images),
        mode=mode,
        remembers=False,
    )
    answered = door.labels(to_bytes(private.held_out_images), stage="accuracy")
    return _class_rates(answered == private.held_out_labels, private)


def _class_rates(hits: Tensor, private: Private) -> list[float]:
    """Share of hits among the held-out images of each class."""
    return held_out_arm(private).rates(hits, len(private.class_names))[0].tolist()


def _accuracy(logits: Tensor, private: Private) -> dict[str, Any]:
    """Share of held-out images whose class is named, with its interval."""
    hits = top_k_hits(logits, private.held_out_labels)
    return asdict(cluster_interval(torch.tensor([_class_rates(hits, private)], dtype=torch.float64)))
