"""The command line: what it prints where, and with which code it ends."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchmi
from patchmi.cli import main
from patchmi.cli.options import Demo
from patchmi.data import leaves, strokes
from patchmi.runs import open_run

PATCHMI = [sys.executable, "-m", "patchmi"]
ENVIRONMENT = {**os.environ, "COLUMNS": "120"}


def ended(arguments: list[str]) -> int:
    """The exit code, whether it was returned or, by the parser, raised."""
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else -1


def refusal(capsys, *arguments: str) -> str:
    """The message of a command that must end with 2, with nothing on stdout and no traceback."""
    assert ended([*arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


def one_line(message: str) -> str:
    assert message.startswith("patchmi: error: ")
    assert message.endswith("\n")
    assert message.count("\n") == 1
    return message


# Help


def test_help_does_not_import_torch():
    heavy = "{'torch', 'kornia', 'pyarrow', 'matplotlib', 'scipy'}"
    code = (
        "import sys\nfrom patchmi.cli import main\n"
        "try: main(['--help'])\n"
        f"finally: print('loaded:', sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0
    assert done.stderr == "loaded: []\n"
    for command in ("demo", "audit", "attack", "score", "train", "defend", "report", "data"):
        assert f"Example: patchmi {command} " in done.stdout


def test_it_tells_its_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"patchmi {patchmi.__version__}\n"


@pytest.mark.parametrize("arguments", ["audit --help", "data inspect strokes"])
def test_a_reader_who_stops_reading_is_no_error(arguments):
    # A pipe of no room: the first line goes through, the rest finds nobody.
    done = subprocess.run(
        f"{shlex.join(PATCHMI)} {arguments} | true",
        shell=True,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize(
    "command",
    ["demo", "audit", "attack", "score", "train", "defend", "report", "data", "data inspect", "data make"],
)
def test_every_command_has_help_with_an_example(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert ended([*command.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"Example: patchmi {command} " in out
    assert err == ""


# Refusals


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [
        ("--seeds", "0", 1),
        ("--seeds", "-3", 1),
        ("--count-per-class", "3", 4),
        ("--public-count", "0", 1),
        ("--step-count", "0", 1),
    ],
)
def test_too_small_a_count_is_refused_before_a_folder_is_made(option, value, least, capsys, tmp_path):
    message = refusal(capsys, "demo", "--out", str(tmp_path / "run"), option, value)
    assert one_line(message) == f"patchmi: error: {option} {value}: give {least} or more\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--count", "--image-size"])
def test_no_pictures_or_pictures_of_no_size_are_refused(option, capsys, tmp_path):
    message = refusal(capsys, "data", "make", "strokes", "--out", str(tmp_path / "out"), option, "0")
    assert one_line(message) == f"patchmi: error: {option} 0: give 1 or more\n"
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_not_there_is_refused_with_its_name(capsys, tmp_path):
    pytest.importorskip("mlxtend")
    message = refusal(capsys, "demo", "--out", str(tmp_path), "--public", "no/such/folder")
    assert "no/such/folder: no such source; give strokes, glyphs, leaves" in one_line(message)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_a_run_is_refused_without_resume(capsys, tmp_path):
    open_run(tmp_path, config={}, resume=False).close()
    message = refusal(capsys, "demo", "--public-count", "4", "--out", str(tmp_path))
    assert "--resume" in one_line(message)


def test_another_configuration_is_refused_on_resume_and_the_difference_shown(capsys, tmp_path):
    asked = Demo(out=tmp_path, seeds=2, public_count=2)
    open_run(tmp_path, config={**asdict(asked), "out": None, "resume": None}, resume=False).close()
    before = (tmp_path / "config.json").read_bytes()
    message = refusal(
        capsys, "demo", "--out", str(tmp_path), "--public-count", "2", "--seeds", "3", "--resume"
    )
    first, *differences = message.splitlines()
    assert "another configuration" in first
    assert [line.strip() for line in differences] == ["seeds: 2 -> 3"]
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_run_in_use_is_refused_with_the_owner_s_number(capsys, tmp_path):
    with open_run(tmp_path, config={}, resume=False):
        message = refusal(capsys, "demo", "--public-count", "4", "--out", str(tmp_path), "--resume")
    assert f"process {os.getpid()}" in one_line(message)


def test_a_report_needs_a_run(capsys, tmp_path):
    assert "result.json: no such file" in one_line(refusal(capsys, "report", str(tmp_path)))


def test_a_damaged_result_is_refused_with_its_place(capsys, tmp_path):
    (tmp_path / "result.json").write_text('{"schema": "patchmi.result/1"}')
    assert str(tmp_path / "result.json") in one_line(refusal(capsys, "report", str(tmp_path)))


def test_a_file_in_the_place_of_a_folder_is_refused(capsys, tmp_path):
    (tmp_path / "taken").write_text("")
    for command in (["data", "make", "strokes", "--count", "1"], ["demo", "--public-count", "4"]):
        assert str(tmp_path / "taken") in one_line(
            refusal(capsys, *command, "--out", str(tmp_path / "taken"))
        )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "{demo, audit, attack, score, train, defend, report, data, suite}"),
        (["nonsense"], "nonsense"),
        (["demo", "--nonsense", "3"], "--nonsense"),
        (["demo", "--seeds", "two"], "--seeds"),
        (["demo", "--attack", "patchmi"], "--attack"),
        (["data", "make", "pebbles", "--out", "out"], "pebbles"),
        (["data", "make", "strokes"], "--out"),
        (["report"], "patchmi report"),
    ],
    ids=str,
)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_what_the_parser_does_not_know_is_one_line_that_names_it(
    arguments, named, columns, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", columns)
    message = one_line(refusal(capsys, *arguments))
    assert named in message
    assert "; `patchmi --help`" in message
    assert not set(message) & set("│─╭╮╰╯")
    assert list(tmp_path.iterdir()) == []


# Data


@pytest.mark.parametrize(("source", "drawn"), [("strokes", strokes), ("leaves", leaves)])
def test_data_draws_pictures_into_a_folder_and_prints_where_it_is(source, drawn, capsys, tmp_path):
    folder = tmp_path / "some" / "where"
    assert (
        main(
            [
                "data",
                "make",
                source,
                "--count",
                "3",
                "--image-size",
                "16",
                "--seed",
                "4",
                "--out",
                str(folder),
            ]
        )
        == 0
    )
    assert capsys.readouterr() == (f"{folder}\n", "")
    expected = (drawn(3, image_size=16, seed=4) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    for file, picture in zip(files, expected, strict=True):
        with Image.open(file) as image:
            assert np.array_equal(np.asarray(image), picture.squeeze())


def test_a_folder_below_the_working_folder_is_printed_as_it_is_reached_from_there(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for out in ("pictures", str(tmp_path / "pictures")):
        assert main(["data", "make", "strokes", "--count", "1", "--image-size", "8", "--out", out]) == 0
        assert capsys.readouterr().out == "pictures\n"


# Interrupts


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, "the command ended before it began"
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def test_ctrl_c_ends_with_130_says_how_to_go_on_and_leaves_a_run_that_can(tmp_path):
    pytest.importorskip("mlxtend")
    folder = tmp_path / "run"
    command = [*PATCHMI, "demo", "--out", str(folder), "--public-count", "4", "--step-count", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(folder / "config.json", process)
            time.sleep(2)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert out == ""
    assert "patchmi: interrupted; the same command with --resume goes on\n" in err
    assert "Traceback" not in err
    config = json.loads((folder / "config.json").read_text())
    assert (config["public_count"], config["step_count"], config["seeds"]) == (4, 1, 1)
    open_run(folder, config=config, resume=True).close()
    assert not list(folder.rglob(".patchmi-*"))
