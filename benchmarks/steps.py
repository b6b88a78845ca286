"""What a step costs: against its plain formulation, against the machine's peak, and where the time goes."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.race import digit_door
from patchmi import machine
from patchmi.attacks import RECIPES, PatchMI
from patchmi.data import strokes
from patchmi.target import WhiteBox
from patchmi.types import Images

ROUNDS = 3
STEPS = 6


def measure(data: Path | None) -> dict[str, Any]:
    """Ratios measured in turn, so that a drifting machine moves both sides."""
    del data
    door, public = digit_door(), strokes(500)
    frozen, plain = [], []
    for _ in range(ROUNDS):
        frozen.append(_seconds(lambda: _run("paper-mnist", door, public, step_count=1)))
        door._model.requires_grad_(True)  # as published: the target's weights get gradients nobody uses
        plain.append(_seconds(lambda: _run("paper-mnist", door, public, step_count=1)))
        door._model.requires_grad_(False)
    seconds = _step_seconds(door, public)
    with FlopCounterMode(display=False) as counter:
        _run("default", door, public, step_count=1)
    flops = counter.get_total_flops()
    peak = _matrix_product_peak()
    return {
        "paper_step_frozen_over_plain": round(_median(frozen) / _median(plain), 3),
        "default_step_seconds": round(seconds, 4),
        "default_step_gflop": round(flops / 1e9, 2),
        "matrix_product_peak_gflops": round(peak / 1e9, 1),
        "share_of_peak": round(flops / seconds / peak, 3),
        "number_format": machine.number_format(),
        "profile": _profile(door, public),
    }


def _run(name: str, door: WhiteBox, public: Images, *, step_count: int) -> None:
    # Nothing but steps, and only such in which the target has a word.
    recipe = replace(
        RECIPES[name], student_warm_up=1, public_weights=None, prior_share=0.0, candidate_factor=1.0
    )
    PatchMI(recipe=recipe, step_count=step_count)(door, public, count_per_class=1)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _step_seconds(door: WhiteBox, public: Images) -> float:
    """Median over rounds of the time that `STEPS` further steps take, a step."""
    few = [_seconds(lambda: _run("default", door, public, step_count=2)) for _ in range(ROUNDS)]
    many = [_seconds(lambda: _run("default", door, public, step_count=2 + STEPS)) for _ in range(ROUNDS)]
    return (_median(many) - _median(few)) / STEPS


def _matrix_product_peak(side: int = 2048) -> float:
    """Operations a second of a square matrix product in the attack's number format, the best of ten."""
    dtype = getattr(torch, machine.number_format())
    left = torch.randn(side, side, device=machine.device(), dtype=dtype)
    best = min(_seconds(lambda: (left @ left).sum().item()) for _ in range(10))
    return 2 * side**3 / best


def _profile(door: WhiteBox, public: Images) -> list[dict[str, Any]]:
    """The dozen operators that take most of a step's own time."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        _run("default", door, public, step_count=10)
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [
        {"operator": event.key, "share": round(event.self_cpu_time_total / total, 3), "calls": event.count}
        for event in events[:12]
    ]


def _median(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).median())
