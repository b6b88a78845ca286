"""The scheduler with real processes that do little: it knows nothing of what a cell computes."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from patchmi.runs import terminate_as_interrupt
from patchmi.suite.display import Display
from patchmi.suite.jobs import Job, failure_of, log_file, record_failure
from patchmi.suite.schedule import Bounds, local_bounds, run_locally

AMPLE = Bounds(jobs=8, memory_gb=100.0, gpus=8.0)
CELL = """
import json, os, signal, sys, time
folder, name = sys.argv[1:]
print("this is", name, "with", os.environ["OMP_NUM_THREADS"], flush=True)
with open(f"{folder}/{name}.pid", "w") as file:
    file.write(str(os.getpid()))
began = time.time()
if name.startswith("patient"):
    while os.read(0, 1):
        pass
    open(f"{folder}/{name}.saved", "w").close()
    sys.exit(130)
if name.startswith("killed"):
    os.kill(os.getpid(), signal.SIGKILL)
if name.startswith("failed"):
    sys.exit(7)
if name.startswith("stubborn"):
    time.sleep(60)
time.sleep(0.15)
with open(f"{folder}/{name}.json", "w") as file:
    json.dump([began, time.time()], file)
"""


def cell(folder: Path, name: str) -> list[str]:
    return [sys.executable, "-S", "-c", CELL, str(folder), name]


def job(name: str, *needs: str, memory_gb: float = 1.0, gpus: float = 0.0) -> Job:
    return Job(name, needs, memory_gb, gpus, threads=1)


def run(folder: Path, jobs: Sequence[Job], bounds: Bounds = AMPLE) -> tuple[str, ...]:
    with Display(job_count=len(jobs)) as display:
        return run_locally(folder, jobs, bounds=bounds, display=display, command=cell)


def times(folder: Path, name: str) -> tuple[float, float]:
    began, ended = json.loads((folder / f"{name}.json").read_text())
    return began, ended


def most_at_once(folder: Path, names: Sequence[str]) -> int:
    spans = [times(folder, name) for name in names]
    return max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans)


def interrupt_once_begun(folder: Path, name: str, *numbers: signal.Signals) -> None:
    """Send this process signals, some time apart, when a cell has begun."""

    def send() -> None:
        while not (folder / f"{name}.pid").exists():
            time.sleep(0.01)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.5)

    threading.Thread(target=send, daemon=True).start()


def test_cells_whose_memory_does_not_fit_never_overlap(tmp_path: Path) -> None:
    jobs = [job(name, memory_gb=2.0) for name in "abc"]
    assert run(tmp_path, jobs, Bounds(jobs=8, memory_gb=3.0, gpus=8.0)) == ()
    spans = sorted(times(tmp_path, name) for name in "abc")
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))


def test_cells_whose_memory_fits_run_side_by_side(tmp_path: Path) -> None:
    jobs = [job(name, memory_gb=1.5) for name in "abcd"]
    assert run(tmp_path, jobs, Bounds(jobs=8, memory_gb=3.0, gpus=8.0)) == ()
    assert most_at_once(tmp_path, "abcd") == 2


def test_no_more_cells_run_than_asked_for(tmp_path: Path) -> None:
    assert run(tmp_path, [job(name) for name in "abcd"], Bounds(jobs=2, memory_gb=100.0, gpus=8.0)) == ()
    assert most_at_once(tmp_path, "abcd") == 2


def test_cells_share_the_accelerator_as_they_ask(tmp_path: Path) -> None:
    jobs = [job(name, gpus=0.6) for name in "ab"]
    assert run(tmp_path, jobs, Bounds(jobs=8, memory_gb=100.0, gpus=1.0)) == ()
    assert most_at_once(tmp_path, "ab") == 1


def test_a_cell_above_the_bound_runs_alone_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job("a"), job("large", memory_gb=9.0), job("b")]
    assert run(tmp_path, jobs, Bounds(jobs=8, memory_gb=3.0, gpus=8.0)) == ()
    began, ended = times(tmp_path, "large")
    assert all(times(tmp_path, name)[1] <= began or times(tmp_path, name)[0] >= ended for name in "ab")
    said = capsys.readouterr()
    assert "runs alone, as it asks for more than 3.0 GB: large" in said.err
    assert not said.out


def test_a_cell_begins_when_all_it_needs_is_done(tmp_path: Path) -> None:
    assert run(tmp_path, [job("last", "a", "b", "done before"), job("a"), job("b", "a")]) == ()
    assert times(tmp_path, "a")[1] <= times(tmp_path, "b")[0]
    assert times(tmp_path, "b")[1] <= times(tmp_path, "last")[0]


def test_what_a_cell_says_stands_in_its_log(tmp_path: Path) -> None:
    run(tmp_path, [job("a")])
    run(tmp_path, [job("a")])
    assert log_file(tmp_path, "a").read_text() == "this is a with 1\n" * 2


def test_a_failure_takes_only_what_needs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [job("failed"), job("a"), job("b", "failed"), job("c", "b"), job("d", "a"), job("killed")]
    assert set(run(tmp_path, jobs)) == {"failed", "killed"}
    assert [name for name in "abcd" if (tmp_path / f"{name}.json").exists()] == ["a", "d"]
    reason = "its process ended with code 7"
    assert failure_of(tmp_path, "failed") == reason
    assert "was killed, perhaps for want of memory" in str(failure_of(tmp_path, "killed"))
    for lost in "bc":
        assert failure_of(tmp_path, lost) == f"not begun, because failed failed: {reason}"
    assert failure_of(tmp_path, "a") is None
    lines = capsys.readouterr().err.splitlines()
    assert f"patchmi: failed: failed: {reason} ({log_file(tmp_path, 'failed')})" in lines
    assert sum(line.startswith("patchmi: ") for line in lines) == len(jobs)


def test_what_a_cell_wrote_down_of_its_failure_is_what_is_said(tmp_path: Path) -> None:
    record_failure(tmp_path, "failed", "no such\nfolder: x")
    assert run(tmp_path, [job("failed")]) == ("failed",)
    assert failure_of(tmp_path, "failed") == "no such folder: x"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_lets_cells_save_and_begins_no_other(tmp_path: Path, number: signal.Signals) -> None:
    jobs = [job("patient"), job("patient-too"), job("a", "patient")]
    interrupt_once_begun(tmp_path, "patient-too", number)
    with pytest.raises(KeyboardInterrupt), terminate_as_interrupt():
        run(tmp_path, jobs)
    assert sorted(path.name for path in tmp_path.glob("*.saved")) == ["patient-too.saved", "patient.saved"]
    assert failure_of(tmp_path, "patient") is None
    assert not (tmp_path / "a.pid").exists()


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    interrupt_once_begun(tmp_path, "stubborn", signal.SIGINT, signal.SIGINT)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [job("stubborn")])
    assert time.monotonic() - began < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "stubborn.pid").read_text()), 0)


def test_this_machine_bounds_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    processors = len(os.sched_getaffinity(0))
    given = local_bounds(threads=1, jobs=3, memory_gb=7.5)
    assert (given.jobs, given.memory_gb) == (3, 7.5)
    assert local_bounds(threads=1, jobs=None, memory_gb=1.0).jobs == processors
    assert local_bounds(threads=2 * processors, jobs=None, memory_gb=1.0).jobs == 1
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total_gb = int(rows["MemTotal"].split()[0]) * 1024 / 1e9
    assert 0 < local_bounds(threads=1, jobs=None, memory_gb=None).memory_gb <= 0.8 * total_gb


def test_bounds_that_allow_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="--jobs 0: give 1 or more"):
        local_bounds(threads=1, jobs=0, memory_gb=1.0)
    for memory_gb in (0.0, -2.0, float("nan")):
        with pytest.raises(ValueError, match=r"--memory .*above 0"):
            local_bounds(threads=1, jobs=1, memory_gb=memory_gb)
