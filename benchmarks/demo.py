"""The demo with default settings: its scores beside the numbers it is held to."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WANTED = {
    "judge_top1": 0.95,
    "worst_class_top1": 0.85,
    "coverage": 0.25,
    "student_accuracy": 0.70,
}
CONTROL_LIMIT = 0.25
MEMORY_LIMIT_BYTES = 2_000_000_000


def measure(data: Path | None) -> dict[str, Any]:
    """Run `patchmi demo` in a fresh folder and compare."""
    del data
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = Path(sys.executable).with_name("patchmi")
        child = subprocess.Popen([command, "demo", "--out", folder, "--resume"])
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        if status != 0:
            raise RuntimeError(f"the demo ended with status {status}")
        result = json.loads(Path(folder, "result.json").read_text())
    return {
        "seconds": round(seconds, 1),
        "attack_seconds": round(result["attack"]["seconds"], 1),
        "peak_memory_bytes": usage.ru_maxrss * 1024,
        "memory_limit_bytes": MEMORY_LIMIT_BYTES,
        "scores": {
            name: {**result["scores"][name], "wanted_at_least": limit} for name, limit in WANTED.items()
        },
        "controls": {
            name: {**result["controls"][name]["judge_top1"], "wanted_at_most": CONTROL_LIMIT}
            for name in ("untrained_attack", "random")
        },
        "other_scores": {name: score for name, score in result["scores"].items() if name not in WANTED},
    }
