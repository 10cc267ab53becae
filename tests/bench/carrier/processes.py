"""A server under test: a separate process on one core, with its CPU time and memory."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

__all__ = ["ServerProcess", "cores", "serving"]

PATIENCE_S = 60.0
_END_S = 3.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


# Read once: later the load confines itself to its part of the cores.
_USABLE = sorted(os.sched_getaffinity(0))


def cores() -> tuple[int, set[int]]:
    """The core of the server, and those of the load; the same one if there is no other."""
    return _USABLE[0], set(_USABLE[1:] or _USABLE)


class ServerProcess:
    """What a running server has used so far; Linux only (``/proc``)."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port

    def cpu_s(self) -> float:
        """CPU seconds of all its threads, to the nanosecond."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def resident(self) -> int:
        """Bytes in memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE


@contextmanager
def serving(
    command: Sequence[str],
    port: int,
    *,
    environ: Mapping[str, str] | None = None,
    ready: Callable[[int], bool] | None = None,
) -> Iterator[ServerProcess]:
    """Run ``command`` on the server's core inside this context, which is entered when
    ``ready(port)`` is true (without ``ready``: the port is open). Raises ``RuntimeError`` if that
    does not happen."""
    core, _ = cores()
    with TemporaryFile() as log:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, **(environ or {})},
        )
        try:
            end = time.monotonic() + PATIENCE_S
            while not (ready or _open)(port):
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended with {process.returncode}: {_end(log)}")
                if time.monotonic() > end:
                    raise RuntimeError(f"{command} is not ready on port {port}: {_end(log)}")
                time.sleep(0.02)
            yield ServerProcess(process.pid, port)
        finally:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _end(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")[-2000:]


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
