"""Losses and pictures of a running attack, for TensorBoard or MLflow: files in a folder, no network.

TensorBoard: event files in `tensorboard/`, one folder a run; `tensorboard --logdir FOLDER/tensorboard`.
MLflow: a database in `mlruns/`; `mlflow ui --backend-store-uri sqlite:///FOLDER/mlruns/mlflow.db`.
Needs `pip install 'patchmi[track]'`.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from patchmi.types import Images

Kind = Literal["tensorboard", "mlflow"]


class TrackerMissing(ValueError):  # noqa: N818 - what is the matter
    """A tracker whose package is not installed: one line with the remedy."""


class Tracker(Protocol):
    """Where a run's numbers and pictures go."""

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Keep numbers of a step, by name."""
        ...

    def log_images(self, name: str, images: Images, *, step: int) -> None:
        """Keep images in [0, 1] of a step, side by side."""
        ...

    def close(self, *, failed: bool = False) -> None:
        """Write what is left to write, and say whether the run came to its end."""
        ...


@contextmanager
def open_tracker(kind: Kind, folder: Path, *, run_name: str) -> Iterator[Tracker]:
    """Lend a tracker that is closed when the block ends, however it ends.

    A run that was tracked in this folder under the same name is gone on with.

    Args:
        kind: `tensorboard` or `mlflow`.
        folder: Where its files go, into a folder of its own.
        run_name: What the run is called beside others; a folder's name, without slashes.

    Raises:
        TrackerMissing: Its package is not installed.
        ValueError: The name is no name of a folder.
    """
    if run_name in ("", "..") or Path(run_name).name != run_name:
        raise ValueError(f"run name {run_name!r}: give the name of a folder, without slashes")
    try:
        tracker = _OPENERS[kind](folder, run_name)
    except ImportError:
        raise TrackerMissing(f"{kind} is not installed: pip install 'patchmi[track]'") from None
    try:
        yield tracker
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close()


class _TensorBoard:
    """Event files below `folder/tensorboard`."""

    def __init__(self, folder: Path, run_name: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard" / run_name))

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def log_images(self, name: str, images: Images, *, step: int) -> None:
        self._writer.add_images(name, images, step)

    def close(self, *, failed: bool = False) -> None:
        del failed  # event files do not say how a run ended
        self._writer.close()


class _MLflow:
    """A run of the experiment `patchmi` in the database `folder/mlruns/mlflow.db`."""

    def __init__(self, folder: Path, run_name: str) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # it is read when the package is imported
        from mlflow import MlflowClient
        from mlflow.entities import Metric
        from sqlalchemy import URL

        place = (folder / "mlruns").absolute()
        place.mkdir(parents=True, exist_ok=True)
        self._metric = Metric
        database = URL.create("sqlite", database=str(place / "mlflow.db"))
        self._client = MlflowClient(tracking_uri=database.render_as_string(hide_password=False))
        experiment = self._client.get_experiment_by_name("patchmi")
        identifier = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment("patchmi", artifact_location=place.as_uri())
        )
        runs = [run for run in self._client.search_runs([identifier]) if run.info.run_name == run_name]
        run = runs[0] if runs else self._client.create_run(identifier, run_name=run_name)
        self._run_id = run.info.run_id
        self._client.update_run(self._run_id, status="RUNNING")

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        now = int(time.time() * 1000)
        batch = [self._metric(name, value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=batch)

    def log_images(self, name: str, images: Images, *, step: int) -> None:
        strip = (images.movedim(0, 2).flatten(2) * 255).round().byte()
        self._client.log_image(self._run_id, strip.movedim(0, 2).cpu().numpy(), key=name, step=step)

    def close(self, *, failed: bool = False) -> None:
        self._client.set_terminated(self._run_id, status="FAILED" if failed else "FINISHED")


_OPENERS = {"tensorboard": _TensorBoard, "mlflow": _MLflow}
