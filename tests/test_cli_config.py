"""Options in a TOML file."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from patchmi.cli import main
from patchmi.cli.config import field_helps, read_options, write_options
from patchmi.cli.options import Audit, Demo, Score

FULL = Audit(
    out=Path("runs/mine"),
    target='a "quoted" model.pt',
    architecture="timm:resnet18",
    image_shape=(3, 32, 32),
    mean=(0.5, 0.25, 0.0),
    std=(1.0, 2.0, 3.0),
    class_names=("Zürich", "back\\slash"),
    declared_accuracy=0.93,
    private="data/train",
    judge=("a@b", "c"),
    seeds=5,
    precision="float32",
    gate=True,
    track="mlflow",
)


def written(options: Audit | Score, folder: Path) -> Path:
    path = folder / "audit.toml"
    path.write_text(write_options(options), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "options", [Audit(), FULL, replace(FULL, recipe="paper-mnist", max_bad=0.5)], ids=str
)
def test_what_is_written_is_read_again(options, tmp_path):
    assert read_options(Audit, written(options, tmp_path)) == options


def test_the_options_of_score_can_stand_in_a_file_too(tmp_path):
    options = Score(reconstructions="theirs.npz", made_by="A tool", access="label", judge=("x",))
    assert read_options(Score, written(options, tmp_path)) == options


def test_every_option_stands_in_the_file_with_its_help_but_those_for_the_moment(tmp_path):
    text = write_options(Audit())
    for field in fields(Audit):
        is_there = f"\n{field.name} = " in text or f"\n# {field.name} = " in text
        assert is_there == (field.name not in {"config", "init", "dry_run", "resume"})
    assert "# Runs of the attack; a firm verdict needs 3.\nseeds = 3  # default" in text


def test_every_option_of_every_command_has_a_help():
    for command in (Demo, Audit, Score):
        assert set(field_helps(command)) == {field.name for field in fields(command)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("seeds = 'three'", "seeds = 'three' is not a whole number"),
        ("seeds = true", "seeds = True is not a whole number"),
        ("seeds = 2.0", "seeds = 2.0 is not a whole number"),
        ("gate = 1", "gate = 1 is not true or false"),
        ("target = 3", "target = 3 is not a text"),
        ("out = false", "out = False is not a path"),
        ("max_bad = 'much'", "max_bad = 'much' is not a number"),
        ("attack = 'patchmi'", "attack = 'patchmi' is not one of patch-mi, general"),
        ("track = 'wandb'", "track = 'wandb' is not one of tensorboard, mlflow"),
        ("image_shape = [3, 32]", "image_shape = [3, 32] is not a list of 3 whole numbers"),
        ("mean = 0.5", "mean = 0.5 is not a list of numbers"),
        ("mean = ['a']", "mean = ['a'] is not a list of numbers"),
        ("judge = 'a@b'", "judge = 'a@b' is not a list of texts"),
        ("sedes = 3", "no option sedes; is it seeds?"),
        ("resume = true", "no option resume"),
        ("x = 1", "no option x; there are target, architecture"),
        ("seeds = ", "cannot be read as TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_file_and_option(line, said, tmp_path, capsys):
    path = tmp_path / "audit.toml"
    path.write_text(line)
    assert main(["audit", "--config", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"patchmi: error: --config {path}: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path, capsys):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name, said in (("none.toml", "no such file"), ("binary.toml", "cannot be read as TOML")):
        assert main(["audit", f"--config={tmp_path / name}"]) == 2
        assert said in capsys.readouterr().err


def test_the_command_line_goes_before_the_file(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("patchmi.cli.run_command", lambda options, arguments: seen.append(options) or 0)
    path = written(FULL, tmp_path)
    assert main(["audit", "--config", str(path), "--seeds", "1", "--no-gate", "--mean", "0.1"]) == 0
    assert seen == [replace(FULL, config=path, seeds=1, gate=False, mean=(0.1,))]
    assert main(["audit", "--seeds", "2"]) == 0
    assert seen[1] == Audit(seeds=2)


def test_init_writes_a_file_for_what_was_given_and_never_over_another(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["audit", "--init", "--target", "m.pt", "--private", "data", "--seeds", "4"]
    assert main(given) == 0
    assert capsys.readouterr().out == "audit.toml\n"
    assert read_options(Audit, Path("audit.toml")) == Audit(target="m.pt", private="data", seeds=4)
    before = Path("audit.toml").read_bytes()
    assert main(given) == 2
    assert "audit.toml is there already" in capsys.readouterr().err
    assert Path("audit.toml").read_bytes() == before
    assert main([*given, "--config", "other.toml"]) == 0
    assert Path("other.toml").read_bytes() == before
