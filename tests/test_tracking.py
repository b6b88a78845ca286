"""Trackers, with TensorBoard and MLflow really installed, read back by their own readers."""

import dataclasses
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from patchmi.attacks import RECIPES, ClassPatchScale, PatchMI
from patchmi.target import Target, WhiteBox
from patchmi.tracking import Kind, open_tracker

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # on import, of each other's versions
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow.store.tracking.sqlalchemy_store")
    from mlflow import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Series = dict[str, list[tuple[int, float]]]
BOTH = pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])


def mlflow_runs(folder: Path) -> tuple[MlflowClient, list[Any]]:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("patchmi")
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))


def tensorboard_run(folder: Path, run_name: str) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard" / run_name)).Reload()


def numbers_of(kind: Kind, folder: Path, run_name: str) -> Series:
    """What the tracker's own reader finds: steps and values by name."""
    if kind == "tensorboard":
        run = tensorboard_run(folder, run_name)
        return {
            name: [(event.step, event.value) for event in run.Scalars(name)] for name in run.Tags()["scalars"]
        }
    client, runs = mlflow_runs(folder)
    (run,) = [run for run in runs if run.info.run_name == run_name]
    return {
        name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def picture_of(kind: Kind, folder: Path, run_name: str) -> Image.Image:
    """The one picture that was kept, of step 7."""
    if kind == "tensorboard":
        (event,) = tensorboard_run(folder, run_name).Images("snapshot")
        assert event.step == 7
        return Image.open(io.BytesIO(event.encoded_image_string))
    (path,) = (folder / "mlruns").rglob("snapshot*step+7*.png")
    return Image.open(path)


@BOTH
def test_numbers_are_found_again_by_name_and_step(kind, tmp_path):
    with open_tracker(kind, tmp_path, run_name="seed-0") as tracker:
        tracker.log({"prior": 0.5, "attack": 2.0}, step=0)
        tracker.log({"prior": 0.25}, step=10)
    assert numbers_of(kind, tmp_path, "seed-0") == {"prior": [(0, 0.5), (10, 0.25)], "attack": [(0, 2.0)]}


@BOTH
def test_a_run_opened_again_is_gone_on_with_and_another_name_is_another_run(kind, tmp_path):
    for step, name in enumerate(("seed-0", "seed-1", "seed-0")):
        with open_tracker(kind, tmp_path, run_name=name) as tracker:
            tracker.log({"prior": float(step)}, step=step)
    assert numbers_of(kind, tmp_path, "seed-0") == {"prior": [(0, 0.0), (2, 2.0)]}
    assert numbers_of(kind, tmp_path, "seed-1") == {"prior": [(1, 1.0)]}


@BOTH
@pytest.mark.parametrize("channel_count", [1, 3])
def test_images_are_kept_side_by_side_pixel_by_pixel(kind, channel_count, tmp_path):
    values = torch.randint(0, 256, (3, channel_count, 6, 5), generator=torch.Generator().manual_seed(0))
    with open_tracker(kind, tmp_path, run_name="seed-0") as tracker:
        tracker.log_images("snapshot", values / 255, step=7)
    picture = picture_of(kind, tmp_path, "seed-0").convert("L" if channel_count == 1 else "RGB")
    expected = torch.cat([*values], dim=2).movedim(0, 2).numpy()
    assert np.array_equal(np.asarray(picture).reshape(6, 15, channel_count), expected)


@BOTH
def test_nothing_is_written_but_in_a_folder_of_its_own(kind, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "elsewhere").as_uri())
    with open_tracker(kind, Path("run"), run_name="seed-0") as tracker:
        tracker.log({"prior": 0.5}, step=0)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert [path.name for path in here.iterdir()] == ["run"]
    own = {"tensorboard": "tensorboard", "mlflow": "mlruns"}[kind]
    assert [path.name for path in (here / "run").iterdir()] == [own]


def test_mlflow_knows_how_a_run_ended(tmp_path):
    with open_tracker("mlflow", tmp_path, run_name="well"):
        assert {run.info.status for run in mlflow_runs(tmp_path)[1]} == {"RUNNING"}
    with pytest.raises(KeyboardInterrupt), open_tracker("mlflow", tmp_path, run_name="cut"):
        raise KeyboardInterrupt
    statuses = {run.info.run_name: run.info.status for run in mlflow_runs(tmp_path)[1]}
    assert statuses == {"well": "FINISHED", "cut": "FAILED"}


def test_what_was_tracked_before_an_error_is_on_the_disk(tmp_path):
    with pytest.raises(RuntimeError), open_tracker("tensorboard", tmp_path, run_name="cut") as tracker:
        tracker.log({"prior": 0.5}, step=3)
        raise RuntimeError
    assert numbers_of("tensorboard", tmp_path, "cut") == {"prior": [(3, 0.5)]}


@BOTH
@pytest.mark.parametrize("name", ["a/b", "../a", "", ".."])
def test_a_name_that_would_lead_elsewhere_is_refused_in_one_line(kind, name, tmp_path):
    with (
        pytest.raises(ValueError, match="without slashes") as refused,
        open_tracker(kind, tmp_path, run_name=name),
    ):
        pass
    assert "\n" not in str(refused.value)
    assert not [*tmp_path.iterdir()]


@BOTH
def test_the_losses_of_a_running_attack_arrive(
    kind, tmp_path, fit: Callable[..., nn.Module], blobs: Callable[..., torch.Tensor]
):
    recipe = dataclasses.replace(
        RECIPES["default"], generator_width=4, scales=(ClassPatchScale(width=8),), prior_share=0.0
    )
    attack = PatchMI(recipe, step_count=11, students=False, weights=False)
    target = Target(fit("resnet10", width=4, step_count=1), ("a", "b", "c", "d"), (1, 16, 16))
    with open_tracker(kind, tmp_path, run_name="seed-0") as tracker:
        attack(
            WhiteBox(target),
            blobs(30),
            count_per_class=1,
            observe=lambda step, losses: tracker.log(losses, step=step),
        )
    numbers = numbers_of(kind, tmp_path, "seed-0")
    assert set(numbers) == {"discriminator", "prior", "attack", "batch_norm", "diversity", "seconds"}
    assert all([step for step, _ in series] == [0, 10] for series in numbers.values())


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # MLflow would be discreet by itself where it sees CI or tests.
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("CI", "PYTEST", "GITHUB"))
    }
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=kept | environment
    )


USE = """
from pathlib import Path
from patchmi.tracking import open_tracker
with open_tracker({kind!r}, Path({folder!r}), run_name="seed-0") as tracker:
    tracker.log({{"prior": 0.5}}, step=0)
"""
OFFLINE = """
import socket, sys
def refuse(*where, **_):
    print("reached out", where)
    raise OSError
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse
"""


@BOTH
def test_neither_network_nor_home_is_touched(kind, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    code = OFFLINE + USE.format(kind=kind, folder=str(tmp_path / "run"))
    done = run_python(code, HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not [*home.rglob("*")]
    assert numbers_of(kind, tmp_path / "run", "seed-0") == {"prior": [(0, 0.5)]}


@pytest.mark.parametrize(
    ("kind", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("mlflow", "sqlalchemy")]
)
def test_without_its_package_one_line_says_how_to_install_it(kind, package, tmp_path):
    done = run_python(
        f"import sys; sys.modules[{package!r}] = None\n" + USE.format(kind=kind, folder=str(tmp_path))
    )
    assert done.stderr.splitlines()[-1] == (
        f"patchmi.tracking.TrackerMissing: {kind} is not installed: pip install 'patchmi[track]'"
    )


def test_nothing_else_imports_a_tracker():
    done = run_python(
        "import sys, patchmi.tracking, patchmi.attacks; print({'tensorboard', 'mlflow'} & set(sys.modules))"
    )
    assert done.stdout.strip() == "set()", done.stderr
