"""What each cell does, in its own run folder and in this process."""

import shutil
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from patchmi.audit import Findings, Judge, Plan, audit, audit_inputs
from patchmi.audit.document import describe_environment
from patchmi.audit.scores import Arm
from patchmi.audit.stages import RECONSTRUCTIONS, attack_target, draw_without_target, join_runs, to_unit_range
from patchmi.defences import OutputDefence
from patchmi.metrics import Estimate, cluster_interval, predict_logits, top_k_hits
from patchmi.runs import RunFolder, atomic_path
from patchmi.suite.images import open_attackers_images
from patchmi.suite.jobs import (
    DONE,
    INPUTS,
    attack_of,
    cell_folder,
    control_of,
    grant_of,
    open_cell,
    read_json,
    run_cells,
    target_of,
)
from patchmi.suite.tables import UNDEFENDED, Suite
from patchmi.suite.targets import (
    answered_accuracy,
    disjoint_judge,
    logged,
    open_attacked,
    open_subject,
    prepare_judges,
    prepare_target,
    suite_judges,
)

ANSWERED = "answered.json"
"""How often the answers name a held-out image's class, in a row whose defence changes answers."""
EXTRA = "extra.json"
"""A row's scores that no result has."""


def run_job(folder: Path, suite: Suite, name: str) -> None:
    """Do one cell in this process, or go on with it; nothing if it is done. Sets torch's thread count.

    Args:
        folder: The suite's.
        suite: What was read.
        name: A job of `plan_jobs`, whose needs are done.

    Raises:
        ConfigChanged: The cell was begun with other settings, or its images or model have changed.
        OutOfResources: The disk is full.
        RunError: Its folder is damaged, or another process keeps it.
        ValueError: Its images or its model cannot be used.
    """
    torch.set_num_threads(suite.threads)
    with open_cell(folder, suite, name) as run:
        if run.has(DONE):
            return
        began, started = time.time(), time.monotonic()
        kind, target, *row = name.split("/")
        if kind in ("target", "defended"):
            prepare_target(run, suite, target, suite.defences[row[0]] if row else UNDEFENDED)
        elif kind == "judges":
            prepare_judges(run, suite, target, cell_folder(folder, f"target/{target}"))
        elif kind == "row":
            _count_row(run, folder, suite, target, row)
        else:
            _attack(run, folder, suite, name)
        seconds = time.monotonic() - started
        done = {
            "began": began,
            "ended": began + seconds,
            "seconds": seconds,
            "peak_memory_bytes": describe_environment()["peak_memory_bytes"],
            "host": socket.gethostname(),
        }
        run.write_json(DONE, done)


def _attack(run: RunFolder, folder: Path, suite: Suite, name: str) -> None:
    """One run of an attack, or what it draws without its target."""
    kind, target_name, _, public_name, defence, *_ = name.split("/")
    cell = f"target/{target_name}" if kind == "control" else target_of(suite, target_name, defence)
    target, digest = open_attacked(suite, folder, cell)
    public, _ = open_attackers_images(suite, public_name, None, image_shape=target.image_shape)
    run.pin_inputs(audit_inputs(digest, None, [], public))
    plan = Plan(
        attack_of(suite, name),
        public,
        seeds=(run.config["seed"],),
        count_per_class=suite.count_per_class,
        checkpoint_seconds=suite.checkpoint_seconds,
        cache=folder / "cache",
        grant=grant_of(suite, name),
    )
    if kind == "attack":
        attack_target(run, target, plan, progress=logged)
    else:
        draw_without_target(run, target, plan, progress=logged)


def _count_row(run: RunFolder, folder: Path, suite: Suite, target_name: str, row: list[str]) -> None:
    """Score what the runs of an attack and its control left: an audit that finds its long stages done."""
    attack, public_name, defence = row
    subject = open_subject(suite, target_name, cell_folder(folder, target_of(suite, target_name, defence)))
    case, private = subject.case, subject.private
    public, notes = open_attackers_images(suite, public_name, private, image_shape=case.target.image_shape)
    plan = Plan(
        suite.attacks[attack].made(),
        public,
        seeds=tuple(suite.seeds_of(target_name)),
        count_per_class=suite.count_per_class,
        command=suite.origin.command,
        grant=suite.attacks[attack].grant(suite.defences[defence]),
    )
    judges = cell_folder(folder, f"judges/{suite.first_alike(target_name)}")
    _take(run, judges, "**/judges/*.safetensors", audit_inputs(None, private, [], None))
    inputs = audit_inputs(case.target_digest, None, [], public)
    parts = target_name, attack, public_name, defence
    for seed in plan.seeds:
        _take_run(run, folder, run_cells(suite, "/".join(parts), seed), inputs, seed=seed)
    # Controls ask nothing of a target: those of targets that are alike share one.
    _take(run, cell_folder(folder, control_of(suite, parts)), "controls/*", inputs | {"target": None})
    audit(
        run,
        target=case.target,
        target_digest=case.target_digest,
        private=private,
        judges=suite_judges(run, suite.targets[target_name], private),
        plan=plan,
        findings=Findings(case.findings.target, (*case.findings.images, *notes)),
        progress=logged,
    )
    made = suite.defences[defence].made()
    if isinstance(made, OutputDefence):
        rates = answered_accuracy(case.target, private, made.mode)
        run.write_json(ANSWERED, {"class_accuracy": rates})
    judge = disjoint_judge(run, suite, suite.targets[target_name], subject)
    top1 = None if judge is None else asdict(_recognised(run, judge, case.target.class_count))
    run.write_json(EXTRA, {"disjoint_top1": top1})


def _take_run(
    run: RunFolder, folder: Path, cells: tuple[str, ...], inputs: dict[str, Any], *, seed: int
) -> None:
    """Copy one run of the attack into a row; of several shards, joined."""
    if len(cells) == 1:
        _take(run, cell_folder(folder, cells[0]), "attack/*", inputs)
        return
    for cell in cells:
        _take(run, cell_folder(folder, cell), "attack/*", inputs, into=Path("shards", cell))
    join_runs(run, [f"shards/{cell}/attack/seed-{seed}" for cell in cells], f"attack/seed-{seed}")


def _take(run: RunFolder, cell: Path, pattern: str, inputs: dict[str, Any], *, into: Path = Path()) -> None:
    """Copy a cell's files into a row, if the cell worked on what the row has before it.

    Raises:
        ValueError: Model or images have changed since.
    """
    worked_on = read_json(cell / INPUTS)
    if any(worked_on[what] != digests for what, digests in inputs.items() if digests is not None):
        raise ValueError(f"{cell} worked on another model or on other images; remove it, and run again")
    for path in cell.glob(pattern):
        with atomic_path(run.path((into / path.relative_to(cell)).as_posix())) as copy:
            shutil.copyfile(path, copy)


def _recognised(run: RunFolder, judge: Judge, class_count: int) -> Estimate:
    """How often a judge names the class of the row's reconstructions."""
    tensors, _ = run.read_tensors(RECONSTRUCTIONS)
    arm = Arm(to_unit_range(tensors["images"]), tensors["labels"], tensors["seeds"])
    return cluster_interval(
        arm.rates(top_k_hits(predict_logits(judge.model, arm.images), arm.labels), class_count)
    )
