"""All benchmarks, one after another, each in a process of its own; then their ratios.

    python tests/bench/run.py

Takes about eight minutes; the first time it installs the peers into ``.bench``. Ratios can be
compared between machines; the other figures only within one run, and only while nothing else uses
the machine.
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
    """Lines of one benchmark, printed as they are; a failed one ends the run."""
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
