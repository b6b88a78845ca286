"""Precision, recall, density and coverage of 10,000 × 10,000 features, beside the package `prdc`."""

import contextlib
import io
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

COUNT, FEATURE_COUNT, NEIGHBOURS = 10_000, 128, 3
WANTED_BYTES = 10**9
_NAMES = ("precision", "recall", "density", "coverage")


def measure(data: Path | None) -> dict[str, Any]:
    """Each in a process of its own, one after the other."""
    del data
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as processes:
        ours, package = processes.map(_run, (True, False))
    scores = {name: (ours.pop(name), package.pop(name)) for name in _NAMES}
    return {
        "points": [COUNT, COUNT],
        "features": FEATURE_COUNT,
        "patchmi": ours,
        "prdc": package,
        "largest_difference": max(abs(one - other) for one, other in scores.values()),
        "seconds_ours_to_theirs": round(ours["seconds"] / package["seconds"], 2),
        "wanted": f"faster, in {WANTED_BYTES:,} bytes",
    }


def _run(is_ours: bool) -> dict[str, float]:
    from prdc import compute_prdc

    from patchmi.metrics import prdc

    generator = torch.Generator().manual_seed(0)
    real, fake = (
        torch.randn(COUNT, FEATURE_COUNT, generator=generator).relu() * size for size in (1.0, 1.05)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    if is_ours:
        found = prdc(real=real, fake=fake, neighbours=NEIGHBOURS)._asdict()
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            found = compute_prdc(real.numpy(), fake.numpy(), nearest_k=NEIGHBOURS)
    seconds = time.perf_counter() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    scores = {name: float(found[name]) for name in _NAMES}
    return {**scores, "seconds": round(seconds, 2), "grown_bytes": 1024 * grown}
