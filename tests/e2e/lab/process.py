"""The ``voicecall`` command in separate processes, with its own home directory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.ports import reserve_port

from .forked import Forked

__all__ = ["START_PATIENCE_S", "Home", "Output", "Process", "port_is_free"]

Process: TypeAlias = subprocess.Popen[str] | Forked

PATIENCE_S = 120.0
START_PATIENCE_S = 30.0
# Tests that are started in the background may ignore the terminal's signals.
_MAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from voicecall_gateway.cli import main
main()
"""


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Output:
    """What a command left behind."""

    status: int
    out: str
    err: str

    def succeeded(self) -> Output:
        """Assert exit status 0; return self."""
        assert self.status == 0, self
        return self

    @property
    def text(self) -> str:
        """The output of a command that succeeded."""
        self.succeeded()
        assert not self.out.lstrip().startswith("{"), self
        return self.out

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document that the command printed."""
        document: dict[str, Any] = json.loads(self.out)
        return document

    def one_sentence(self) -> str:
        """The error: one line on stderr, nothing on stdout, and an exit status that shows it."""
        assert self.status != 0, self
        assert self.out == "", self
        assert self.err.count("\n") == 1, self
        return self.err.strip()


class Home:
    """A home directory. ``packages`` is put on the path of every command.

    Commands are forked from a process that has imported what they need. With ``cold``, each gets
    a new interpreter, which takes several times as long.
    """

    def __init__(self, root: Path, *, cold: bool = False) -> None:
        self.root = root
        self.cold = cold
        self.packages = root / "packages"
        self.state_dir = root / ".voicecall"
        self.config = self.state_dir / "config.json5"
        self.url = "http://127.0.0.1:18790"
        self.variables: dict[str, str] = {}
        """Environment variables of every command."""

    def configure(self, tree: Mapping[str, Any]) -> None:
        """Write the configuration, with a free admin port if it names none."""
        values = {**tree, "gateway": {"port": reserve_port(), **tree.get("gateway", {})}}
        self.url = f"http://127.0.0.1:{values['gateway']['port']}"
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.config.write_text(json.dumps(values))

    @property
    def environ(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if "VOICECALL" not in key}
        paths = [str(self.packages), *filter(None, [kept.get("PYTHONPATH")])]
        own = {"HOME": str(self.root), "PYTHONPATH": os.pathsep.join(paths)}
        return {**kept, **own, **self.variables}

    def popen(self, *arguments: str) -> Process:
        if not self.cold:
            return Forked(arguments, self.environ, self.root)
        return subprocess.Popen(
            [sys.executable, "-c", _MAIN, *arguments],
            env=self.environ,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> Output:
        process = self.popen(*arguments)
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return Output(process.wait(), out, err)

    def run_all(self, *commands: Sequence[str]) -> list[Output]:
        """Run independent commands, two at a time; their outputs in order."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            return list(pool.map(lambda arguments: self.run(*arguments), commands))

    def json(self, *arguments: str) -> dict[str, Any]:
        """A command that succeeds with ``--json``."""
        return self.run(*arguments, "--json").succeeded().document

    def text(self, *arguments: str) -> str:
        """A command that succeeds without ``--json``."""
        return self.run(*arguments).text

    @contextmanager
    def gateway(self) -> Iterator[Process]:
        """A gateway that is ready. At the end it is killed unless it has stopped."""
        process = self.popen("gateway", "run")
        try:
            self.wait_ready(process)
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def wait_ready(self, process: Process) -> None:
        """Until ``process`` is a gateway that is ready."""
        deadline = time.monotonic() + START_PATIENCE_S
        while not _ready(self.url):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the gateway does not become ready"
            time.sleep(0.02)

    def wait_for(self, call_id: str, *states: str) -> dict[str, Any]:
        """Wait until a call is in one of ``states`` that it does not leave; what ``status`` says
        of it then."""
        self.wait_until(call_id, *states)
        call: dict[str, Any] = self.json("status", "--call-id", call_id)["call"]
        assert call["state"] in states, call
        return call

    def wait_until(self, call_id: str, *states: str) -> None:
        """Wait until a call is in one of ``states``.

        The gateway is asked without a command: to start one after the other would keep a core
        busy while the phones are talking.
        """
        deadline = time.monotonic() + PATIENCE_S
        while (call := self._call(call_id))["state"] not in states:
            assert time.monotonic() < deadline, call
            time.sleep(0.02)

    def _call(self, call_id: str) -> dict[str, Any]:
        token = (self.state_dir / "gateway-token").read_text().strip()
        question = {"tool": "voice_call", "action": "get_status", "args": {"callId": call_id}}
        request = urllib.request.Request(
            f"{self.url}/tools/invoke",
            json.dumps(question).encode(),
            {"authorization": f"Bearer {token}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=START_PATIENCE_S) as response:
            call: dict[str, Any] = json.load(response)["result"]["details"]["call"]
        return call


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as response:
            return bool(json.load(response)["ready"])
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False
