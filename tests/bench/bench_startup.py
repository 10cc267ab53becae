"""Start-up: the command line's help and its imports, and the gateway until it is ready.

    python tests/bench/bench_startup.py [runs]

Every figure is the median of new processes. Exits with 1 if help imports forbidden packages.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from voicecall.providers import ProviderKind
from voicecall.registry import Registry

HELP_GOAL = 2.0
READY_GOAL_S = 1.5
HEAVY = {"numpy", "sqlalchemy", "uvicorn", "websockets"}
# The packages of the gateway and its plugins, which also contain providers.
HOUSE = {"voicecall_gateway", "voicecall_calls"}
# An empty configuration, except for free ports.
CONFIG = {
    "gateway": {"port": 0},
    "plugins": {"entries": {"voice-call": {"config": {"serve": {"port": 0}}}}},
}
COMMAND = [sys.executable, "-c", "from voicecall_gateway.cli import main; main()"]
LOADED = """
import os, sys
from voicecall.registry import Registry
from voicecall_gateway.cli import run
status = run(["--help"], Registry(), os.environ)
print("\\n" + " ".join({name.partition(".")[0] for name in sys.modules}))
sys.exit(status)
"""


def forbidden_for_help() -> set[str]:
    """Packages that ``voicecall --help`` must not import: heavy ones and all providers."""
    registry = Registry()
    packages = {
        found.entry.value.partition(":")[0].partition(".")[0]
        for kind in ProviderKind
        for found in registry.found(kind.group)
    }
    return HEAVY | packages - HOUSE


def loaded_by_help() -> set[str]:
    """Top-level packages in a process that printed the help."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def wall_s(command: list[str]) -> float:
    """Seconds of a process that must succeed."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def help_times(runs: int) -> tuple[float, float]:
    """Medians of (help, importing typer and rich) in seconds, measured in turn."""
    floor = [sys.executable, "-c", "import typer, rich"]
    helped, imported = [], []
    for _ in range(runs):
        imported.append(wall_s(floor))
        helped.append(wall_s([*COMMAND, "--help"]))
    return statistics.median(helped), statistics.median(imported)


def ready_s(directory: Path) -> float:
    """Seconds from the start of ``voicecall gateway run`` to 200 on ``/readyz``."""
    file = directory / "config.json5"
    file.write_text(json.dumps(CONFIG), encoding="utf-8")
    environ = {**os.environ, "VOICECALL_STATE_DIR": str(directory / "state")}
    begin = time.perf_counter()
    with subprocess.Popen(
        [*COMMAND, "gateway", "run", "--config", str(file), "--json"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            url = _document(process.stdout)["url"]
            while not _ready(url):
                if time.perf_counter() - begin > 30:
                    raise RuntimeError("the gateway is not ready after 30 s")
                time.sleep(0.005)
            return time.perf_counter() - begin
        finally:
            process.terminate()


def _document(lines: Iterable[str] | None) -> dict[str, Any]:
    """The JSON object at the beginning of the lines, which go on after it."""
    text = ""
    for line in lines or ():
        text += line
        if line.startswith("}"):
            break
    document: dict[str, Any] = json.loads(text)
    return document


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False


def main(runs: int = 7) -> None:
    helped, floor = help_times(runs)
    print(
        f"voicecall --help {helped * 1000:.0f} ms, importing typer and rich {floor * 1000:.0f} ms"
    )
    print(f"help ratio to importing typer and rich: {helped / floor:.2f} (goal {HELP_GOAL})")
    ready = []
    for _ in range(max(3, runs // 2)):
        with tempfile.TemporaryDirectory(prefix="voicecall-bench-") as directory:
            ready.append(ready_s(Path(directory)))
    median = statistics.median(ready)
    print(f"gateway ready after {median:.2f} s (worst {max(ready):.2f}, goal {READY_GOAL_S})")
    print(f"ready ratio to its goal: {median / READY_GOAL_S:.2f}")
    surplus = sorted(loaded_by_help() & forbidden_for_help())
    print(f"forbidden imports of --help: {', '.join(surplus) or 'none'}")
    if surplus:
        sys.exit(1)


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
