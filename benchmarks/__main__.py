"""Run the benchmarks and write `benchmarks/results/NAME.json`.

python -m benchmarks                         # demo, estimate, steps, prdc, race, baselines
python -m benchmarks quality --data ../shared/data
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import baselines, demo, estimate, prdc, quality, race, steps

BENCHMARKS: dict[str, Callable[[Path | None], dict[str, Any]]] = {
    "demo": demo.measure,
    "estimate": estimate.measure,
    "steps": steps.measure,
    "prdc": prdc.measure,
    "race": race.measure,
    "baselines": baselines.measure,
    "quality": quality.measure,
}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the benchmarks that are named, or all that need no data from outside."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; none: all that can run")
    parser.add_argument("--data", type=Path, help="folder of data sets; `quality` needs it")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    names = options.names or [name for name in BENCHMARKS if name != "quality" or options.data]
    RESULTS.mkdir(exist_ok=True)
    for name in names:
        began = time.perf_counter()
        result = {
            "benchmark": name,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            **BENCHMARKS[name](options.data),
            "wall_seconds": round(time.perf_counter() - began, 1),
        }
        text = json.dumps(result, indent=2)
        (RESULTS / f"{name}.json").write_text(text + "\n")
        print(text)  # noqa: T201 - what the command is for


if __name__ == "__main__":
    main()
