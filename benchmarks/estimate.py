"""A dry run's estimate beside the audit itself: an MNIST classifier, one seed, default settings."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from patchmi.data import load_digits

WANTED_FACTOR = 2


def measure(data: Path | None) -> dict[str, Any]:
    """Estimate, then run, from the command line; each in a process of its own."""
    del data
    digits = load_digits()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        np.savez(
            home / "digits.npz",
            images=(digits.images[:, 0] * 255).byte().numpy(),
            labels=digits.labels.numpy(),
        )
        private = ["--private", f"{home}/digits.npz"]
        _run("train", *private, "--out", f"{home}/model.safetensors")
        audit = ["audit", "--target", f"{home}/model.safetensors", *private, "--seeds", "1"]
        estimated, _ = _run(*audit, "--dry-run")
        stages = {
            name: float(value) for name, value in re.findall(r"^(\w+) +([\d.]+) ", estimated, re.MULTILINE)
        }
        began = time.perf_counter()
        _, peak_bytes = _run(*audit, "--out", f"{home}/run")
        seconds = time.perf_counter() - began
    return {
        "estimated_stages": stages,
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak_bytes,
        "seconds_estimated_to_real": round(stages["all"] / seconds, 2),
        "memory_estimated_to_real": round(stages["memory"] * 1e9 / peak_bytes, 2),
        "wanted": f"within a factor of {WANTED_FACTOR}",
    }


def _run(*arguments: str) -> tuple[str, int]:
    """What a command printed, and the most memory that it held."""
    command = [str(Path(sys.executable).with_name("patchmi")), *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        raise RuntimeError(f"patchmi {arguments[0]} ended with status {status}")
    return printed, usage.ru_maxrss * 1024
