"""A bad value of every option of every command: exit code 2 and one line that names it."""

from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from patchmi.cli import main
from patchmi.cli.options import (
    Attack,
    Audit,
    Defend,
    Demo,
    Inspect,
    Make,
    Report,
    Score,
    SuiteReport,
    SuiteRun,
    Train,
)

COMMANDS = {
    "demo": Demo,
    "audit": Audit,
    "attack": Attack,
    "score": Score,
    "train": Train,
    "defend": Defend,
    "report": Report,
    "data inspect": Inspect,
    "data make": Make,
    "suite run": SuiteRun,
    "suite report": SuiteReport,
}
READABLE = ["--target", "model.safetensors", "--architecture", "patchmi:mlp", "--image-shape", "1", "8", "8"]
AT_AN_ADDRESS = ["--target", "http://127.0.0.1:9/infer", "--image-shape", "1", "8", "8"]
SCORED = ["pictures"]
DRAWN = ["strokes", "--out", "drawn"]
SUITE = ["suite.toml", "--out", "suite", "--data", "."]
DEFENDED = ["--target-data", "pictures"]
TRAINED = ["--private", "pictures", "--out", "trained.safetensors"]

BAD = {
    "demo": {
        "out": ["--out", "a-file", "--public-count", "2"],
        "public": ["--public", "pebbles"],
        "seeds": ["--seeds", "0"],
        "attack": ["--attack", "patchmi"],
        "setting": ["--setting", "views=maybe"],
        "recipe": ["--recipe", "paper"],
        "step_count": ["--step-count", "-1"],
        "count_per_class": ["--count-per-class", "3"],
        "public_count": ["--public-count", "many"],
        "precision": ["--precision", "float64"],
        "access": ["--access", "grey-box"],
        "budget": ["--access", "label", "--budget", "0"],
        "top_k": ["--access", "score", "--top-k", "0"],
        "decimals": ["--decimals", "2"],
        "noise": ["--access", "score", "--noise", "-1"],
        "temperature": ["--access", "label", "--temperature", "0"],
        "rate": ["--access", "label", "--rate", "0"],
    },
    "audit": {
        "config": ["--config", "none.toml"],
        "out": [*READABLE, "--public-count", "2", "--out", "a-file"],
        "target": ["--target", "none.pt"],
        "architecture": [*READABLE[:2], "--architecture", "resnet18"],
        "weights": [*READABLE, "--weights", "none.pt"],
        "image_shape": [*READABLE[:4], "--image-shape", "1", "8"],
        "mean": [*READABLE, "--mean", "0.5"],
        "std": [*READABLE, "--mean", "0.5", "--std", "0"],
        "class_names": [*READABLE, "--class-names", "one", "too", "many"],
        "declared_accuracy": [*READABLE, "--declared-accuracy", "97"],
        "private": [*READABLE, "--private", "none"],
        "held_out": [*READABLE, "--private", "pictures", "--held-out", "none"],
        "held_out_share": [*READABLE, "--held-out-share", "1"],
        "max_bad": [*READABLE, "--max-bad", "-0.1"],
        "judge": [*READABLE, "--public-count", "2", "--judge", "none.onnx"],
        "judge_steps": [*READABLE, "--judge-steps", "0"],
        "public": [*READABLE, "--public", "pebbles"],
        "public_count": [*READABLE, "--public-count", "0"],
        "attack": [*READABLE, "--attack", "patchmi"],
        "setting": [*READABLE, "--setting", "views"],
        "recipe": [*READABLE, "--recipe", "paper"],
        "step_count": [*READABLE, "--step-count", "0"],
        "seeds": [*READABLE, "--seeds", "none"],
        "count_per_class": [*READABLE, "--count-per-class", "1"],
        "precision": [*READABLE, "--precision", "float64"],
        "access": [*READABLE, "--access", "grey-box"],
        "budget": [*READABLE, "--access", "label", "--budget", "0"],
        "top_k": [*READABLE, "--access", "score", "--top-k", "0"],
        "decimals": [*READABLE, "--decimals", "2"],
        "noise": [*READABLE, "--access", "score", "--noise", "-1"],
        "temperature": [*READABLE, "--access", "label", "--temperature", "0"],
        "rate": [*READABLE, "--rate", "10"],
        "class_count": [*READABLE, "--class-count", "3"],
        "input_name": [*READABLE, "--input-name", "pixels"],
        "pixel_type": [*READABLE, "--pixel-type", "float32"],
        "images_per_request": [*AT_AN_ADDRESS, "--access", "label", "--images-per-request", "0"],
        "release_context": [*READABLE, "--release-context", "secret"],
        "track": [*READABLE, "--track", "wandb"],
    },
    "attack": {
        "config": ["--config", "none.toml"],
        "out": [*READABLE, "--public-count", "2", "--out", "a-file"],
        "target": ["--target", "none.pt"],
        "architecture": [*READABLE[:2], "--architecture", "resnet18"],
        "weights": [*READABLE, "--weights", "none.pt"],
        "image_shape": READABLE[:4],
        "mean": [*READABLE, "--mean", "0.5"],
        "std": [*READABLE, "--mean", "0.5", "--std", "-1"],
        "class_names": [*READABLE, "--class-names", "one", "too", "many"],
        "public": [*READABLE, "--public", "pebbles"],
        "public_count": [*READABLE, "--public-count", "0"],
        "attack": [*READABLE, "--attack", "patchmi"],
        "setting": [*READABLE, "--setting", "views"],
        "recipe": [*READABLE, "--recipe", "paper"],
        "step_count": [*READABLE, "--step-count", "0"],
        "seeds": [*READABLE, "--seeds", "0"],
        "count_per_class": [*READABLE, "--count-per-class", "1"],
        "precision": [*READABLE, "--precision", "float64"],
        "access": [*READABLE, "--access", "grey-box"],
        "budget": [*READABLE, "--access", "label", "--budget", "0"],
        "top_k": [*READABLE, "--access", "score", "--top-k", "0"],
        "decimals": [*READABLE, "--decimals", "2"],
        "noise": [*READABLE, "--access", "score", "--noise", "-1"],
        "temperature": [*READABLE, "--access", "label", "--temperature", "0"],
        "rate": [*AT_AN_ADDRESS, "--access", "label", "--rate", "-1"],
        "class_count": [*AT_AN_ADDRESS, "--access", "label", "--class-count", "0"],
        "input_name": [*READABLE, "--input-name", "pixels"],
        "pixel_type": [*READABLE, "--pixel-type", "float32"],
        "images_per_request": [*READABLE, "--images-per-request", "8"],
        "track": [*READABLE, "--track", "wandb"],
    },
    "score": {
        "reconstructions": ["none.npz"],
        "config": ["--config", "none.toml"],
        "out": [*SCORED, "--out", "a-file"],
        "made_by": [*SCORED, "--made-by", ""],
        "access": [*SCORED, "--access", "grey-box"],
        "untrained": [*SCORED, "--untrained", "none"],
        "public": [*SCORED, "--public", "pebbles"],
        "public_count": [*SCORED, "--public-count", "0"],
        "private": [*SCORED, "--private", "none"],
        "held_out": [*SCORED, "--held-out", "pictures"],
        "held_out_share": [*SCORED, "--held-out-share", "0"],
        "max_bad": [*SCORED, "--max-bad", "2"],
        "judge": [*SCORED, "--judge", "none.onnx"],
        "judge_steps": [*SCORED, "--judge-steps", "-5"],
        "target": [*SCORED, "--target", "none.pt"],
        "architecture": [*SCORED, "--target", "model.safetensors", "--architecture", "mlp"],
        "weights": [*SCORED, *READABLE[:4], "--weights", "none.pt"],
        "image_shape": [*SCORED, "--image-shape", "8", "8"],
        "class_names": [*SCORED, *READABLE[:4], "--class-names", "one", "too", "many"],
        "mean": [*SCORED, *READABLE[:4], "--mean", "0.5"],
        "std": [*SCORED, *READABLE[:4], "--std", "0.5"],
        "rate": [*SCORED, *READABLE[:4], "--rate", "3"],
        "class_count": [*SCORED, *READABLE[:4], "--class-count", "5"],
        "input_name": [*SCORED, *READABLE[:4], "--input-name", "pixels"],
        "pixel_type": [*SCORED, *AT_AN_ADDRESS, "--pixel-type", "int4"],
        "images_per_request": [*SCORED, *AT_AN_ADDRESS, "--images-per-request", "0"],
        "release_context": [*SCORED, "--release-context", "secret"],
    },
    "train": {
        "private": ["--private", "none", "--out", "trained.safetensors"],
        "out": ["--private", "pictures", "--step-count", "1", "--out", "a-file/trained.safetensors"],
        "architecture": [*TRAINED, "--architecture", "vit"],
        "image_shape": [*TRAINED, "--image-shape", "1", "0", "8"],
        "step_count": [*TRAINED, "--step-count", "0"],
        "seed": [*TRAINED, "--seed", "one"],
        "max_bad": [*TRAINED, "--max-bad", "7"],
        "defence": [*TRAINED, "--defence", "rounding"],
        "strength": [*TRAINED, "--defence", "mid", "--strength", "-1"],
        "pretraining": [*TRAINED, "--pretraining", "none"],
        "validation_share": [*TRAINED, "--validation-share", "1"],
    },
    "defend": {
        "target_data": ["--target-data", "none"],
        "defences": [*DEFENDED, "--defences", "wall"],
        "strengths": [*DEFENDED, "--strengths", "0"],
        "seeds": [*DEFENDED, "--seeds", "0"],
        "architecture": [*DEFENDED, "--architecture", "lenet", "--defences", "rolss"],
        "image_shape": [*DEFENDED, "--image-shape", "1", "0", "8"],
        "step_count": [*DEFENDED, "--step-count", "0"],
        "judge_steps": [*DEFENDED, "--judge-steps", "0"],
        "validation_share": [*DEFENDED, "--validation-share", "1"],
        "pretraining": [*DEFENDED, "--defences", "tl-dmi"],
        "public": [*DEFENDED, "--public", "pebbles"],
        "public_count": [*DEFENDED, "--public-count", "0"],
        "attack_steps": [*DEFENDED, "--attack-steps", "0"],
        "adaptive": [*DEFENDED, "--adaptive", "might"],
        "budget": [*DEFENDED, "--budget", "0"],
        "count_per_class": [*DEFENDED, "--count-per-class", "3"],
        "out": [*DEFENDED, "--out", "a-file"],
        "jobs": [*DEFENDED, "--jobs", "0"],
        "memory": [*DEFENDED, "--memory", "0"],
        "cluster": [*DEFENDED, "--cluster", "nowhere"],
    },
    "report": {"run": ["none"]},
    "data inspect": {
        "source": ["none"],
        "split": ["pictures", "--split", "middle"],
        "sheet": ["pictures", "--sheet", "no/where.png"],
    },
    "data make": {
        "source": ["pebbles", "--out", "drawn"],
        "out": ["strokes", "--count", "1", "--out", "a-file"],
        "count": [*DRAWN, "--count", "0"],
        "image_size": [*DRAWN, "--image-size", "-1"],
        "seed": [*DRAWN, "--seed", "x"],
    },
    "suite run": {
        "file": ["none.toml", "--out", "suite"],
        "out": [*SUITE[:1], "--data", ".", "--out", "a-file"],
        "data": [*SUITE[:3], "--data", "none"],
        "jobs": [*SUITE, "--jobs", "0"],
        "memory": [*SUITE, "--memory", "0"],
        "cluster": [*SUITE, "--cluster", "nowhere"],
    },
    "suite report": {"out": ["none"]},
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working folder with a model of two classes, eight pictures and a file in the way."""
    monkeypatch.chdir(tmp_path)
    Path("a-file").write_text("")
    random = np.random.default_rng(0)
    for number in range(16):
        place = Path("pictures", "ab"[number % 2])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(place / f"{number}.png")
    sizes = {"trunk.2": (16, 1024), "trunk.4": (16, 16), "head": (2, 16)}
    tensors = {f"{name}.weight": random.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    biases = {f"{name}.bias": np.zeros(size[0], np.float32) for name, size in sizes.items()}
    save_file({**tensors, **biases}, "model.safetensors")
    Path("suite.toml").write_text(
        'title = "One cell"\n[targets.t]\nprivate = "data:pictures"\nimage_shape = [1, 8, 8]\n'
        'architecture = "mlp"\n[public.strokes]\nsource = "strokes"\n[attacks.a]\nattack = "general"\n'
    )
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_the_table_of_bad_values_names_every_option_that_can_have_one(command):
    hints = get_type_hints(COMMANDS[command])
    named = {field.name for field in fields(COMMANDS[command]) if hints[field.name] is not bool}
    assert set(BAD[command]) == named


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, options in BAD.items() for option in options]
)
def test_a_bad_value_is_one_line_and_exit_code_2(command, option, home, capsys):
    before = {path for path in home.rglob("*") if path.is_file()}
    try:
        code = main([*command.split(), *BAD[command][option]])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("patchmi: error: ")]
    assert code == 2
    assert len(errors) == 1
    assert err.splitlines()[-1] == errors[0]
    assert "Traceback" not in err
    if command != "data inspect":
        assert out == ""
        assert {path for path in home.rglob("*") if path.is_file()} == before
