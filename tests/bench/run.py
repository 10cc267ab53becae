"""Run all benchmarks, one after another, each in its own process; then print their ratios.

    python tests/bench/run.py

Takes about eight minutes; the first run installs the peers into ``.bench``. Ratios can be compared
between machines; other figures only within one run, while nothing else uses the machine.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
PATIENCE_S = 900


def figures(name: str) -> Sequence[str]:
    """Run one benchmark and print its lines as they come; a failure ends the run."""
    module = f"tests.bench.bench_{name}"
    print(f"{name}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", module],
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
        cwd=FOLDER.parents[1],
    )
    lines = done.stdout.splitlines()
    for line in lines:
        print(f"  {line}")
    if done.returncode:
        sys.exit(f"{module} failed with status {done.returncode}")
    return lines


def main() -> None:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load}\n", flush=True)
    names = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    ratios = [(name, line) for name in names for line in figures(name) if "ratio" in line]
    print("\nratios")
    for name, line in ratios:
        print(f"  {name:15} {line}")


if __name__ == "__main__":
    main()
