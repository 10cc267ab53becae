"""``voicecall`` commands in separate processes, forked by the tests' nursery."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock, Thread
from typing import IO

import certifi

from .nursery import NUMBER

__all__ = ["Forked"]

_NURSERY = Path(__file__).with_name("nursery.py")
_lock = Lock()


@cache
def _nursery() -> socket.socket:
    """The socket for orders. The nursery ends with this process."""
    ours, theirs = socket.socketpair()
    with theirs:
        nursery = subprocess.Popen(
            [sys.executable, str(_NURSERY), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def close() -> None:
        ours.close()
        nursery.wait()

    atexit.register(close)
    return ours


class Forked:
    """One command: what these tests use of ``subprocess.Popen``, with pipes of text.

    ``output``: the descriptor of a file that gets what it writes, in place of the pipes.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        directory: Path,
        output: int | None = None,
    ) -> None:
        self.args = ["voicecall", *arguments]
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        self.returncode: int | None = None
        order, written = os.pipe()
        fate, told = os.pipe()
        theirs = [order, told]
        if output is None:
            (out, their_out), (err, their_err) = os.pipe(), os.pipe()
            self.stdout, self.stderr = open(out), open(err)  # noqa: SIM115 (closed by communicate)
            theirs += [their_out, their_err]
            descriptors = [order, their_out, their_err, told]
        else:
            descriptors = [order, output, output, told]
        with _lock:
            socket.send_fds(_nursery(), [b"!"], descriptors)
        for descriptor in theirs:
            os.close(descriptor)
        wanted = {
            "arguments": list(arguments),
            "environ": dict(environ),
            "directory": str(directory),
            "certificates": certifi.where(),
        }
        with open(written, "w", encoding="utf-8") as stream:
            json.dump(wanted, stream)
        self._fate = open(fate, "rb", buffering=0)  # noqa: SIM115 (closed once it is gone)
        self.pid = self._told()

    def _told(self) -> int:
        number = self._fate.read(NUMBER.size)
        assert number, "the nursery is gone"
        told: int = NUMBER.unpack(number)[0]
        return told

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._fate], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._told()
            self._fate.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All further output, until the process has ended."""
        begun = time.monotonic()
        texts = ["", ""]

        def read(number: int, stream: IO[str]) -> None:
            with stream:
                texts[number] = stream.read()

        threads = [
            Thread(target=read, args=(number, stream), daemon=True)
            for number, stream in enumerate((self.stdout, self.stderr))
            if stream is not None and not stream.closed
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(None if timeout is None else max(0, begun + timeout - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if timeout is None else max(0, begun + timeout - time.monotonic()))
        return texts[0], texts[1]
