"""A suite small enough to be run whole: a classifier of four quarters, two attacks, two seeds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.suite.quarters import ADDED, SUITE

from patchmi.suite import run_suite

COMMAND = "patchmi suite run suite.toml --out suite"


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, quarters: Callable, blobs: Callable) -> Path:
    """The folder for `--data`."""
    folder = tmp_path_factory.mktemp("images")

    def as_bytes(values: torch.Tensor) -> np.ndarray:
        return (values * 255).round().byte().numpy()

    private, labels = quarters(160, seed=1)
    np.savez(folder / "quarters.npz", images=as_bytes(private), labels=labels.numpy())
    np.savez(folder / "blobs.npz", images=as_bytes(blobs(64, seed=2)))
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a suite file."""

    def written(text: str) -> Path:
        path = tmp_path / "suite.toml"
        path.write_text(text)
        return path

    return written


@pytest.fixture(scope="session")
def first_done(tmp_path_factory: pytest.TempPathFactory, images: Path) -> dict[str, bytes]:
    """What `done.json` of every cell held before the second attack was added."""
    file = tmp_path_factory.getbasetemp() / "suite.toml"
    out = tmp_path_factory.getbasetemp() / "suite"
    file.write_text(SUITE)
    assert run_suite(file, out, data=images, jobs=2, command=COMMAND) == ()
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("done.json")}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, images: Path, first_done: dict[str, bytes]) -> Path:
    """The suite's folder, run to the end by two jobs at a time. Tests must leave it as it is."""
    del first_done
    file = tmp_path_factory.getbasetemp() / "suite.toml"
    out = tmp_path_factory.getbasetemp() / "suite"
    file.write_text(SUITE + ADDED)
    assert run_suite(file, out, data=images, jobs=2, command=COMMAND) == ()
    return out
