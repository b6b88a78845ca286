"""A suite's targets: opened or trained on the spot, and their judges."""

from collections.abc import Iterable, Iterator, Sized
from dataclasses import asdict, dataclass, replace
from logging import getLogger
from pathlib import Path
from time import monotonic
from typing import Any

from torch import Tensor

from patchmi.audit import Findings, Judge, Private, audit_inputs, fit_judge
from patchmi.audit.controls import held_out_arm
from patchmi.case import Case, judge_trainings, open_case, open_private, train_judges
from patchmi.machine import seeded
from patchmi.metrics import cluster_interval, predict_logits, top_k_hits
from patchmi.networks import ARCHITECTURES
from patchmi.runs import RunFolder, open_run
from patchmi.suite.images import from_elsewhere, private_files, share_out
from patchmi.suite.jobs import cell_folder, read_json
from patchmi.suite.tables import Suite, SuiteTarget
from patchmi.target import Description, Target, TargetFile, Training, answers, train_classifier

ABOUT = "target.json"
"""What a target's cell says of it."""
ABOUT_JUDGES = "judges.json"
"""What the cell of its judges says of them."""
DISJOINT_JUDGE = "convmixer"
_SAID_EVERY_SECONDS = 30.0
_WEIGHTS = "target.safetensors"


@dataclass(frozen=True)
class Subject:
    """A target, the private images that it and its judges were trained on, and those put aside."""

    case: Case
    private: Private
    disjoint: Private | None


def prepare_target(run: RunFolder, suite: Suite, name: str) -> None:
    """Train or open a target, and write down what it is worth."""
    subject = open_subject(suite, name, run.folder, train_in=run)
    case, private = subject.case, subject.private
    about = {
        "name": name,
        "architecture": case.target.architecture,
        "private": private.description,
        "class_count": case.target.class_count,
        "class_names": case.target.class_names,
        "image_shape": case.target.image_shape,
        "sha256": case.target_digest,
        "accuracy": _accuracy(answers(case.target, private.held_out_images), private),
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


def open_subject(suite: Suite, name: str, cell: Path, *, train_in: RunFolder | None = None) -> Subject:
    """A target with its private images.

    Args:
        suite: What was read.
        name: The target's.
        cell: Its cell's folder.
        train_in: The cell, taken, where the target is still to be trained.

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
        if target.model is None and not train_in.has(_WEIGHTS):
            _train(train_in, target, kept)
    if case is None:
        case = open_case(_file(suite, target, cell), None)
    case = replace(
        case,
        target=replace(case.target, name=name),
        private=kept,
        findings=Findings(case.findings.target, noticed),
    )
    return Subject(case, kept, disjoint)


def open_attacked(suite: Suite, folder: Path, name: str) -> tuple[Target, str]:
    """The target of a finished cell and the SHA-256 of its weights, without any private image.

    Raises:
        ValueError: It is not the model that the cell opened.
    """
    cell = cell_folder(folder, f"target/{name}")
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


def _train(run: RunFolder, target: SuiteTarget, private: Private) -> None:
    """Train the target on the spot and write it as `patchmi train` does."""
    shape = _shape(target)
    sizes = {"class_count": len(private.class_names), "channel_count": shape[0]}
    if target.width is not None:
        sizes["width"] = target.width
    with seeded(0):
        network = ARCHITECTURES[target.architecture or ""](**sizes)
    train_classifier(
        network,
        images=private.train_images,
        labels=private.train_labels,
        training=Training(step_count=target.step_count, learning_rate=5e-3, flips=target.flips),
        seed=0,
        progress=logged,
        description="Training the target",
    )
    description = Description(f"patchmi:{target.architecture}", private.class_names, shape)
    run.write_tensors(_WEIGHTS, network.state_dict(), description.metadata())


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


def _accuracy(logits: Tensor, private: Private) -> dict[str, Any]:
    """Share of held-out images whose class is named, with its interval."""
    hits = top_k_hits(logits, private.held_out_labels)
    return asdict(cluster_interval(held_out_arm(private).rates(hits, len(private.class_names))))
