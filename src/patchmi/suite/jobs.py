"""The cells of a suite: what there is to do, what each needs, and what has become of it."""

import hashlib
import json
import shutil
import socket
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from patchmi.attacks import AbstractAttack
from patchmi.audit import Grant
from patchmi.audit.document import describe
from patchmi.defences import NoDefence
from patchmi.runs import ConfigChanged, RunError, RunFolder, RunLocked, atomic_write, open_run
from patchmi.suite.tables import Suite, SuiteAttack, SuiteTarget

DONE = "done.json"
"""Written last in a cell's folder: when it was done, how long it took, and on which host."""
INPUTS = "inputs.json"
"""Digests of the model and the images that a cell works on."""
LOCKED_SECONDS = 180.0
"""How long a cell waits for the process that has its folder: one whose parent died saves its state first, and
network storage may keep a dead machine's lock for 90 seconds."""


@dataclass(frozen=True)
class Job:
    """One cell: a target, its judges, a run of an attack, its control, or a row of the table.

    Args:
        name: `target/T`, `defended/T/DEFENCE`, `judges/T`, a run as `run_cells` names it, `row/ROW`, where
            ROW is T/ATTACK/PUBLIC/DEFENCE, or a control as `control_of` names it.
        needs: Names of the jobs that must be done before.
        memory_gb: What it may need.
        gpus: Likewise, shares of one allowed.
        threads: Of its arithmetic, on which the last bits depend.
    """

    name: str
    needs: tuple[str, ...]
    memory_gb: float
    gpus: float
    threads: int


def plan_jobs(suite: Suite) -> tuple[Job, ...]:
    """Every cell, what others need before them; controls after runs, whose GANs they share."""
    targets, runs, controls, rows = ({} for _ in range(4))
    for parts in suite.rows():
        name, first = parts[0], suite.first_alike(parts[0])
        target, judges, row = target_of(suite, name, parts[3]), f"judges/{first}", "/".join(parts)
        own = tuple(run for seed in suite.seeds_of(name) for run in run_cells(suite, row, seed))
        targets |= {f"target/{one}": () for one in (first, name)} | {target: ()}
        targets[judges] = (f"target/{first}",)
        runs |= dict.fromkeys(own, (target,))
        control = control_of(suite, parts)
        controls[control] = (f"target/{first}",)
        rows[f"row/{row}"] = (target, judges, *own, control)
    needs: dict[str, tuple[str, ...]] = {**targets, **runs, **controls, **rows}
    return tuple(
        Job(name, needed, suite.memory_gb, suite.gpus, suite.threads) for name, needed in needs.items()
    )


def target_of(suite: Suite, target: str, defence: str) -> str:
    """The cell of a network, `target/T` or `defended/T/DEFENCE`; what changes answers alone has no own."""
    if suite.defences[defence].changes_training():
        return f"defended/{target}/{defence}"
    return f"target/{target}"


def run_cells(suite: Suite, row: str, seed: int) -> tuple[str, ...]:
    """The cells of a run: `attack/ROW/seed-N`, or one for each shard, `attack/ROW/seed-N/shard-K`."""
    name = f"attack/{row}/seed-{seed}"
    shard_count = int(suite.attacks[row.split("/")[1]].number("shard_count") or 1)
    if shard_count == 1:
        return (name,)
    return tuple(f"{name}/shard-{shard}" for shard in range(shard_count))


def control_of(suite: Suite, row: tuple[str, ...]) -> str:
    """A row's control, `control/T/KIND-DIGEST/PUBLIC/none`.

    Attacks that draw alike without the target have one digest, and share it; so do targets that are alike,
    whatever defends them, since none of them has a word in it.
    """
    target, attack, public, _ = row
    return f"control/{suite.first_alike(target)}/{_control_id(suite.attacks[attack])}/{public}/none"


def attack_of(suite: Suite, name: str) -> AbstractAttack:
    """The attack of a cell `attack/…`, `control/…` or `row/…`; of a control, without the target's word."""
    made, shard = _entry_of(suite, name).made(), _number(name, "shard")
    if name.startswith("control/"):
        return made.without_target()
    return made if shard is None else replace(made, shard=shard)  # pyright: ignore[reportCallIssue]


def grant_of(suite: Suite, name: str) -> Grant:
    """What the attack of a cell is allowed."""
    kind, *rest = name.split("/")
    return _entry_of(suite, name).grant(None if kind == "control" else suite.defences[rest[3]])


def _entry_of(suite: Suite, name: str) -> SuiteAttack:
    """The suite's entry for a cell's attack; of a control, one of those that share it."""
    kind, _, attack, *_ = name.split("/")
    if kind != "control":
        return suite.attacks[attack]
    return next(one for one in suite.attacks.values() if _control_id(one) == attack)


def _control_id(attack: SuiteAttack) -> str:
    described = json.dumps(describe(attack.made().without_target()), sort_keys=True)
    return f"{attack.attack}-{hashlib.sha256(described.encode()).hexdigest()[:8]}"


def cell_folder(folder: Path, name: str) -> Path:
    """Where a cell keeps its run."""
    return folder / "cells" / name


def log_file(folder: Path, name: str) -> Path:
    """Where what a cell says is written."""
    return folder / "logs" / f"{name}.log"


def cell_config(suite: Suite, name: str) -> dict[str, Any]:
    """All that a cell's results depend on, but for the content of images, which the cell pins."""
    kind, target, *rest = name.split("/")
    config: dict[str, Any] = {"threads": suite.threads, "target": _settings_of(suite.targets[target])}
    if kind in ("target", "judges"):
        return config
    defence = rest[-1] if kind == "defended" else rest[2]
    if kind != "control" and (made := suite.defences[defence].made()) != NoDefence():
        config["defence"] = {"name": type(made).__name__, **asdict(made)}
    if kind == "defended":
        return config
    public = rest[1]
    made = attack_of(suite, name)
    config |= {
        "attack": {"name": type(made).__name__, **describe(made)},
        "public": {"source": suite.public[public].source, "count": suite.public[public].count},
        "count_per_class": suite.count_per_class,
    }
    grant = grant_of(suite, name)
    if grant.access != "white-box" and kind != "control":
        config |= {"access": grant.access, "budget": grant.budget}
    if kind == "row":
        return config | {"seeds": suite.seeds, "show_private": suite.targets[target].show_private}
    return config | {"seed": _number(name, "seed") or 0}


def _settings_of(target: SuiteTarget) -> dict[str, Any]:
    """What is set in a target's table, but for what changes nothing that is computed.

    What is as by default is left out: a folder of an older version goes on when tables gain a key.
    """
    no_part = ("hub", "show_private")
    return {
        one.name: value
        for one in fields(target)
        if one.name not in no_part and (value := getattr(target, one.name)) != one.default
    }


def _number(name: str, what: str) -> int | None:
    """The number in a part of a cell's name such as `seed-3`, which comes after those that users choose."""
    numbered = name.split("/")[5:]
    return next((int(one.removeprefix(f"{what}-")) for one in numbered if one.startswith(f"{what}-")), None)


def open_cell(folder: Path, suite: Suite, name: str) -> RunFolder:
    """Take a cell's folder, once a process that is about to end has let it go.

    Raises:
        ConfigChanged: The cell was begun with other settings. A row is then begun anew: it only counts what
            other cells hold.
        RunLocked: Another process has had it for `LOCKED_SECONDS`.
    """
    cell, deadline = cell_folder(folder, name), time.monotonic() + LOCKED_SECONDS
    while True:
        try:
            return open_run(cell, config=cell_config(suite, name), resume=True)
        except ConfigChanged:
            if not name.startswith("row/"):
                raise
            shutil.rmtree(cell)
        except RunLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def is_done(folder: Path, suite: Suite, name: str) -> bool:
    """Whether a cell is done with the settings that the suite has now."""
    cell = cell_folder(folder, name)
    if not (cell / DONE).is_file():
        return False
    return read_json(cell / "config.json") == json.loads(json.dumps(cell_config(suite, name)))


def skip_dependants(folder: Path, name: str, jobs: Iterable[Job]) -> tuple[str, ...]:
    """Write down of all jobs that need a failed one, at first or second hand, that they were not begun.

    Returns:
        Their names.
    """
    reason, lost = failure_of(folder, name), {name: None}
    for job in jobs:
        if lost.keys() & set(job.needs):
            lost[job.name] = None
            record_failure(folder, job.name, f"not begun, because {name} failed: {reason}")
    return tuple(lost)[1:]


def reason_of(error: Exception) -> str:
    """An error in one line: patchmi's own speak for themselves, others with their kind."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    if not text:
        return kind
    return text if isinstance(error, ValueError | RunError) else f"{kind}: {text}"


def record_failure(folder: Path, name: str, reason: str) -> None:
    """Write down in one line why a cell is not done."""
    failure = {
        "job": name,
        "error": " ".join(reason.split()),
        "host": socket.gethostname(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    atomic_write(_failure_file(folder, name), (json.dumps(failure, indent=2) + "\n").encode())


def failure_of(folder: Path, name: str) -> str | None:
    """Why a cell is not done; None if it has not failed since it was last begun."""
    file = _failure_file(folder, name)
    return read_json(file)["error"] if file.is_file() else None


def forget_failure(folder: Path, name: str) -> None:
    """A new attempt begins."""
    _failure_file(folder, name).unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """A file that a cell left, read without taking its folder."""
    return json.loads(path.read_text(encoding="utf-8"))


def _failure_file(folder: Path, name: str) -> Path:
    return folder / "failures" / f"{name}.json"
