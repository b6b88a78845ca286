"""What a journal was told is there, whatever happened after."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmi.runs import Journal, OutOfResources, RunError


@given(st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=6))
def test_records_come_back_in_order(tmp_path_factory, calls):
    journal = Journal(tmp_path_factory.mktemp("journal") / "sub" / "queries")
    assert journal.read() == []
    for records in calls:
        journal.append(records)
    assert journal.read() == [record for records in calls for record in records]


def test_half_a_record_is_cut_off_wherever_it_was_torn(tmp_path):
    whole = tmp_path / "whole"
    Journal(whole).append([b"first", b"second"])
    data = whole.read_bytes()
    for length in range(len(data)):
        torn = tmp_path / "torn"
        torn.write_bytes(data[:length])
        kept = Journal(torn).read()
        assert kept == ([b"first"] if length >= 8 + len(b"first") else [])
        Journal(torn).append([b"third"])
        assert Journal(torn).read() == [*kept, b"third"]


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "queries"
    Journal(path).append([b"first", b"second"])
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match="damaged at byte 0; remove it, and begin the run anew"):
        Journal(path).read()


def test_a_full_disk_takes_nothing_of_the_call(tmp_path):
    journal = Journal(tmp_path / "queries")
    journal.append([b"a" * 100])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutOfResources, match=os.strerror(errno.EFBIG)):
            journal.append([b"b" * 5000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert journal.read() == [b"a" * 100]


def test_a_killed_process_leaves_all_that_it_was_told_is_kept(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from patchmi.runs import Journal\n"
        f"journal = Journal(Path({str(tmp_path / 'queries')!r}))\n"
        "for number in range(10**6):\n"
        "    journal.append([str(number).encode()]); print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(30)]
        time.sleep(0.01)
        child.kill()
        told += [int(line) for line in child.stdout.read().splitlines() if line.strip().isdigit()]
    kept = Journal(tmp_path / "queries").read()
    assert len(kept) >= len(told)
    assert kept == [str(number).encode() for number in range(len(kept))]
