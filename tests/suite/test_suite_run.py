"""A suite run for real, by real workers, some of them really killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.suite.quarters import ADDED, STRONG, SUITE, WEAK

from patchmi.audit.scores import SCORES
from patchmi.data import SourceInvalid
from patchmi.report.suite_result import read_suite as read_document
from patchmi.runs import RunLocked, open_run
from patchmi.suite import load_suite, plan_jobs, report_suite, run_job, run_suite
from patchmi.suite.display import Display
from patchmi.suite.file import save_suite
from patchmi.suite.jobs import cell_folder, control_of, failure_of, is_done, read_json
from patchmi.suite.schedule import Bounds, run_locally
from patchmi.suite.tables import SuiteAttack, SuitePublic, SuiteTarget

pytestmark = pytest.mark.xdist_group("suite")  # one process, one finished suite

Write = Callable[[str], Path]
KILLED = f"attack/{STRONG}/seed-0"
MADE = "attack/seed-0.safetensors"
OFTEN_SAVED = "checkpoint_seconds = 0\n"


def copied(finished: Path, out: Path, *without: str) -> Path:
    """The finished suite, some of its cells not yet begun."""
    shutil.copytree(finished, out)
    for name in without:
        shutil.rmtree(cell_folder(out, name))
    return out


def wait_for_checkpoint(out: Path) -> int:
    """The process that has the cell to be killed, once it is in the middle of its attack."""
    folder = cell_folder(out, KILLED)
    deadline = time.monotonic() + 60
    while len(list((folder / "checkpoint").glob("*.safetensors"))) < 2:
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.005)
    return int((folder / "lock").read_text())


def is_alive(process: int) -> bool:
    """Whether it runs; one that ended and whom nobody asked about does not."""
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def bytes_made(folder: Path) -> dict[str, bytes]:
    """Everything that was trained or rebuilt."""
    cells = folder / "cells"
    return {
        str(path.relative_to(cells)): path.read_bytes()
        for path in cells.rglob("*.safetensors")
        if path.name != "evidence.safetensors"
    }


def test_a_suite_is_run_to_the_end(finished: Path) -> None:
    document = read_document(finished / "suite.json")
    suite = load_suite(finished)
    assert all(is_done(finished, suite, job.name) for job in plan_jobs(suite))
    assert (document["title"], document["seeds"], document["missing"]) == ("Quarters", [0, 1], 0)
    assert [(row["id"], row["state"]) for row in document["rows"]] == [(WEAK, "done"), (STRONG, "done")]
    for row in document["rows"]:
        result = read_json(finished / row["folder"] / "result.json")
        assert {name: row["scores"][name] for name in SCORES} == result["scores"]
        assert row["verdict"] == result["verdict"]["word"]
        assert result["attack"]["seeds"] == [0, 1]
        assert result["command"] == document["command"] == "patchmi suite run suite.toml --out suite"
        assert 0 <= row["scores"]["disjoint_top1"]["value"] <= 1
        # classes × seeds
        assert row["scores"]["disjoint_top1"]["n"] == 8
        assert row["peak_memory_bytes"] > 1e8
        assert (finished / row["folder"] / "report.html").is_file()
    assert [row["steps"] for row in document["rows"]] == [8, 30]
    (target,) = document["targets"]
    assert (target["class_count"], target["shown_classes"]) == (4, ["0", "1", "2", "3"])
    assert [judge["name"] for judge in target["judges"]] == ["allconv", "convmixer", "mlp"]
    assert target["disjoint_judge"]["accuracy"]["value"] > 0.8
    assert document["published"][0]["scores"] == {"judge_top1": 0.4754}
    assert document["curves"][0]["points"] == [{"row": WEAK, "x": 1.0}, {"row": STRONG, "x": 3.0}]
    assert "Quarters" in (finished / "suite.html").read_text()


def test_pictures_are_the_first_of_each_class(finished: Path) -> None:
    pictures = load_file(finished / "suite-pictures.safetensors")
    assert set(pictures) == {WEAK, STRONG, "quarters/held_out"}
    made = load_file(cell_folder(finished, f"row/{STRONG}") / "reconstructions.safetensors")
    for label in range(4):
        assert pictures[STRONG][label].equal(made["images"][made["labels"] == label][:4])
    assert pictures["quarters/held_out"].shape == (4, 4, 1, 16, 16)
    assert pictures["quarters/held_out"].dtype == torch.uint8


def test_an_added_attack_is_all_that_is_run(finished: Path, first_done: dict[str, bytes]) -> None:
    now = {str(path.relative_to(finished)): path.read_bytes() for path in finished.rglob("done.json")}
    assert first_done.items() < now.items()
    added = {name for name in now if name not in first_done}
    suite = load_suite(finished)
    controls = [f"cells/{control_of(suite, tuple(row.split('/')))}/done.json" for row in (WEAK, STRONG)]
    assert controls[0] in first_done
    assert added == {
        controls[1],
        *(name.replace("weak", "strong") for name in first_done if "weak" in name),
    }


def test_a_log_says_what_was_done_and_when(finished: Path) -> None:
    log = (finished / "logs" / "target" / "quarters.log").read_text()
    lines = [re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (.+)", line) for line in log.splitlines()]
    said = [line[1] for line in lines if line is not None]
    assert len(said) == len(lines)
    assert re.fullmatch(r"target/quarters begins on \S+, process \d+", said[0])
    assert re.fullmatch(r"Training the target: done in \d+\.\d s", said[1])
    assert said[-1] == "target/quarters is done"


def test_the_disjoint_judge_and_the_target_share_no_private_image(finished: Path) -> None:
    from patchmi.suite.targets import open_subject

    suite = load_suite(finished)
    subject = open_subject(suite, "quarters", cell_folder(finished, "target/quarters"))
    assert subject.disjoint is not None
    sets = [
        {image.numpy().tobytes() for image in part.train_images}
        for part in (subject.private, subject.disjoint)
    ]
    assert not sets[0] & sets[1]
    assert len(sets[1]) / sum(map(len, sets)) == pytest.approx(0.3, abs=0.05)


def test_killed_with_its_parent_and_run_again_by_one_job_a_suite_makes_the_same_bytes(
    finished: Path, tmp_path: Path, images: Path, write: Write
) -> None:
    out = copied(finished, tmp_path / "out", KILLED)
    file = write(OFTEN_SAVED + SUITE + ADDED)
    call = f"run_suite({str(file)!r}, {str(out)!r}, data={str(images)!r}, jobs=1)"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"from patchmi.suite import run_suite; {call}"], stderr=subprocess.DEVNULL
    )
    worker = wait_for_checkpoint(out)
    parent.kill()
    parent.wait()
    # At once, while the worker still has the cell.
    assert run_suite(file, out, data=images, jobs=1) == ()
    assert not is_alive(worker), "a worker ends with its parent"
    log = (out / "logs" / f"{KILLED}.log").read_text()
    assert f"{KILLED} was interrupted and can go on" in log
    assert bytes_made(out) == bytes_made(finished)


def test_a_run_in_shards_becomes_one_row(finished: Path, tmp_path: Path, images: Path, write: Write) -> None:
    out = copied(finished, tmp_path / "out")
    shared = (
        ADDED.partition("[[curves]]")[0].replace("attacks.strong", "attacks.shared") + "shard_count = 2\n"
    )
    assert run_suite(write(SUITE + shared), out, data=images, jobs=2) == ()
    row = "quarters/shared/blobs/none"
    cells = {path.parent.name for path in (cell_folder(out, f"attack/{row}/seed-1")).glob("*/done.json")}
    assert cells == {"shard-0", "shard-1"}
    made = load_file(cell_folder(out, f"row/{row}") / "reconstructions.safetensors")
    for seed in range(2):
        own = made["labels"][made["seeds"] == seed]
        assert own.tolist() == [label for label in range(4) for _ in range(8)]
        for shard in range(2):
            cell = cell_folder(out, f"attack/{row}/seed-{seed}/shard-{shard}")
            part = load_file(cell / f"attack/seed-{seed}.safetensors")
            theirs = torch.isin(made["labels"], part["labels"]) & (made["seeds"] == seed)
            assert torch.equal(made["images"][theirs], part["images"])
    (described,) = [one for one in read_document(out / "suite.json")["rows"] if one["id"] == row]
    assert (described["state"], described["steps"]) == ("done", 30)


def test_a_killed_worker_is_a_failed_cell_that_the_next_run_mends(
    finished: Path, tmp_path: Path, images: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    control = control_of(load_suite(finished), tuple(WEAK.split("/")))
    out = copied(finished, tmp_path / "out", KILLED, control, f"row/{STRONG}")
    file = write(OFTEN_SAVED + SUITE + ADDED)
    killer = threading.Thread(target=lambda: os.kill(wait_for_checkpoint(out), signal.SIGKILL))
    killer.start()
    assert run_suite(file, out, data=images, jobs=2) == (KILLED,)
    killer.join()
    assert (cell_folder(out, control) / "done.json").is_file()
    said = capsys.readouterr().err
    assert f"{KILLED}: failed: its process was killed, perhaps for want of memory" in said
    assert f"row/{STRONG}: not begun, because {KILLED} failed" in said
    weak, strong = read_document(out / "suite.json")["rows"]
    assert (weak["state"], strong["state"], strong["folder"]) == ("done", "failed", None)
    assert strong["error"].startswith(f"not begun, because {KILLED} failed: its process was killed")
    suite = load_suite(out)
    (again,) = [job for job in plan_jobs(suite) if job.name == KILLED]
    with Display(job_count=1) as display:
        assert run_locally(out, [again], bounds=Bounds(1, 9.0, 1.0), display=display) == ()
    made = cell_folder(out, KILLED) / MADE
    assert made.read_bytes() == (cell_folder(finished, KILLED) / MADE).read_bytes()


def test_a_cell_that_raises_is_a_failed_row_and_no_more(finished: Path, images: Path, tmp_path: Path) -> None:
    out = copied(finished, tmp_path / "out")
    suite = load_suite(out)
    suite = replace(
        suite,
        public={**suite.public, "gone": SuitePublic("data:gone.npz")},
        attacks={**suite.attacks, "lost": SuiteAttack("patch-mi", {}, publics=("gone",))},
    )
    save_suite(out, suite)
    name, row = "attack/quarters/lost/gone/none/seed-1", "row/quarters/lost/gone/none"
    todo = [job for job in plan_jobs(suite) if job.name in (name, row)]
    with Display(job_count=2) as display:
        assert run_locally(out, todo, bounds=Bounds(2, 9.0, 1.0), display=display) == (name,)
    reason = failure_of(out, name)
    assert reason is not None
    assert "gone.npz: no such source" in reason
    report_suite(out)
    rows = {row["id"]: row for row in read_document(out / "suite.json")["rows"]}
    states = {row["attack"]: row["state"] for row in rows.values() if row["public"] == "blobs"}
    assert states == {"weak": "done", "strong": "done"}
    lost = rows["quarters/lost/gone/none"]
    assert lost["state"] == "failed"
    assert lost["error"].startswith(f"not begun, because {name} failed: data:gone.npz: no such source")
    assert "data:gone.npz: no such source" in (out / "suite.html").read_text()
    assert str(images) not in (out / "suite.html").read_text()
    with pytest.raises(SourceInvalid, match=re.escape("gone.npz")):
        run_job(out, suite, name)


def test_a_half_done_suite_can_be_reported(finished: Path, tmp_path: Path) -> None:
    out = copied(finished, tmp_path / "out", f"row/{STRONG}", "judges/quarters", f"attack/{WEAK}")
    assert report_suite(out) == out / "suite.html"
    document = read_document(out / "suite.json")
    assert [row["state"] for row in document["rows"]] == ["done", "missing"]
    assert document["missing"] == 1
    assert document["rows"][0]["peak_memory_bytes"] > 1e8
    assert document["targets"][0]["judges"] == []


def test_a_suite_of_which_nothing_is_done_can_be_reported(finished: Path, tmp_path: Path) -> None:
    save_suite(tmp_path, load_suite(finished))
    page = report_suite(tmp_path).read_text()
    assert [row["state"] for row in read_document(tmp_path / "suite.json")["rows"]] == ["missing"] * 2
    assert "Quarters" in page


def test_seconds_in_which_several_cells_ran_count_once_and_pauses_never(
    finished: Path, tmp_path: Path
) -> None:
    out = copied(finished, tmp_path / "out")
    spans = [(100.0, 110.0), (105.0, 120.0), (106.0, 107.0), (200.0, 230.0)]
    for place, path in enumerate(sorted(out.rglob("done.json"))):
        began, ended = spans[place % len(spans)]
        path.write_text(json.dumps(read_json(path) | {"began": began, "ended": ended}))
    report_suite(out)
    assert read_document(out / "suite.json")["wall_seconds"] == 20.0 + 30.0


def test_a_row_counts_again_when_seeds_are_taken_away(finished: Path, tmp_path: Path) -> None:
    out = copied(finished, tmp_path / "out", f"row/{STRONG}")
    suite = replace(load_suite(out), seeds=1)
    before = torch.get_num_threads()
    run_job(out, suite, f"row/{WEAK}")
    torch.set_num_threads(before)
    result = read_json(cell_folder(out, f"row/{WEAK}") / "result.json")
    assert result["attack"]["seeds"] == [0]
    extra = read_json(cell_folder(out, f"row/{WEAK}") / "extra.json")
    assert extra["disjoint_top1"]["n"] == 4
    # Done is done: the second call must not touch it.
    before_again = (cell_folder(out, f"row/{WEAK}") / "result.json").stat().st_mtime_ns
    run_job(out, suite, f"row/{WEAK}")
    assert (cell_folder(out, f"row/{WEAK}") / "result.json").stat().st_mtime_ns == before_again


def test_a_row_takes_nothing_that_was_made_of_another_target(finished: Path, tmp_path: Path) -> None:
    out = copied(finished, tmp_path / "out", f"row/{WEAK}")
    inputs = cell_folder(out, f"attack/{WEAK}/seed-1") / "inputs.json"
    changed = json.loads(inputs.read_text())
    changed["target"]["sha256"] = "0" * 64
    inputs.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"seed-1 worked on another model or on other images; remove it"):
        run_job(out, load_suite(out), f"row/{WEAK}")


def test_the_disjoint_judge_of_another_collection_is_for_the_judges_alone(
    finished: Path, images: Path, tmp_path: Path
) -> None:
    """A target is trained whatever becomes of images that only one judge needs."""
    suite = load_suite(finished)
    target = replace(suite.targets["quarters"], disjoint_share=0.0, disjoint=str(tmp_path / "others.npz"))
    suite = replace(suite, targets={"quarters": replace(target, step_count=4, judge_steps=4)})
    run_job(tmp_path, suite, "target/quarters")
    with pytest.raises(SourceInvalid, match=r"others\.npz"):
        run_job(tmp_path, suite, "judges/quarters")
    shutil.copy(images / "quarters.npz", tmp_path / "others.npz")
    run_job(tmp_path, suite, "judges/quarters")
    cell = cell_folder(tmp_path, "judges/quarters")
    assert read_json(cell / "judges.json")["disjoint_judge"]["name"] == "disjoint convmixer"


def test_a_finished_model_is_a_target_too(finished: Path, tmp_path: Path) -> None:
    model = cell_folder(finished, "target/quarters") / "target.safetensors"
    suite = load_suite(finished)
    target = SuiteTarget(suite.targets["quarters"].private, model=str(model), judge_steps=4)
    suite = replace(suite, targets={"theirs": target})
    run_job(tmp_path, suite, "target/theirs")
    about = read_json(cell_folder(tmp_path, "target/theirs") / "target.json")
    trained = read_json(cell_folder(finished, "target/quarters") / "target.json")
    assert (about["sha256"], about["accuracy"]) == (trained["sha256"], trained["accuracy"])
    run_job(tmp_path, suite, "judges/theirs")
    judged = read_json(cell_folder(tmp_path, "judges/theirs") / "judges.json")
    assert (judged["disjoint_judge"], len(judged["judges"])) == (None, 3)
    control = control_of(suite, ("theirs", "weak", "blobs", "none"))
    run_job(tmp_path, suite, control)
    assert (cell_folder(tmp_path, control) / "controls/untrained.safetensors").is_file()


def test_one_suite_at_a_time_runs_in_a_folder(tmp_path: Path, images: Path, write: Write) -> None:
    with open_run(tmp_path / "out" / "scheduler", config={}, resume=True):
        with pytest.raises(RunLocked, match="in use by process"):
            run_suite(write(SUITE), tmp_path / "out", data=images)
