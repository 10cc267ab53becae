"""The gateway as a process: imports, exit status, signals, broken packages."""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.teller import TELLER

pytestmark = pytest.mark.e2e

PATIENCE = 30

PLUGIN = """
import sys
from contextlib import asynccontextmanager
import anyio
from voicecall import hookimpl
from voicecall.hosting import PluginInfo

class Service:
    name = "{name}"
    @asynccontextmanager
    async def run(self):
        print("started", file=sys.stderr, flush=True)
        yield
        print("stopped", file=sys.stderr, flush=True)
    async def drain(self):
        print("draining", file=sys.stderr, flush=True)
        await anyio.sleep({drain})
        print("drained", file=sys.stderr, flush=True)
    def problems(self):
        return []

@hookimpl
def voicecall_services(host):
    return [Service()]
"""


class Box:
    """A home directory, an extra folder of packages, and the command."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.packages = root / "packages"
        self.packages.mkdir()
        self.config = root / "config.json5"
        self.processes: list[subprocess.Popen[str]] = []
        self.variables: dict[str, str] = {}
        self.write(0)

    def write(self, port: int, **gateway: Any) -> None:
        tree = {"gateway": {"port": port, **gateway}, "plugins": {"allow": ["fake"]}}
        self.config.write_text(json.dumps(tree))

    def package(self, group: str, name: str, target: str, source: str | None = None) -> None:
        """Install a distribution of one entry point, as far as metadata goes."""
        info = self.packages / f"fake_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fake-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
        if source is not None:
            (self.packages / f"{target}.py").write_text(source)

    @property
    def environ(self) -> Mapping[str, str]:
        kept = {key: value for key, value in os.environ.items() if "VOICECALL" not in key}
        return {
            **kept,
            "HOME": str(self.root),
            "PYTHONPATH": str(self.packages),
            "VOICECALL_CONFIG": str(self.config),
            "VOICECALL_STATE_DIR": str(self.root / "state"),
            **self.variables,
        }

    def popen(
        self, *arguments: str, stdout: Any = subprocess.PIPE, before: str = ""
    ) -> subprocess.Popen[str]:
        code = f"{before}; from voicecall_gateway.cli import main; main()".lstrip("; ")
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=dict(self.environ),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.popen(*arguments)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def gateway(self, before: str = "") -> tuple[subprocess.Popen[str], str]:
        """A running gateway and its URL, once it is ready; ``before`` it the process runs this."""
        process = self.popen("gateway", "run", "--json", before=before)
        assert process.stdout is not None
        document = "".join(iter(process.stdout.readline, "}\n")) + "}"
        url = json.loads(document)["url"]
        deadline = time.monotonic() + PATIENCE
        while not ready(url):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return process, url


def stopped(process: subprocess.Popen[str], status: int = 0, number: int = signal.SIGTERM) -> str:
    """End it with a signal; what is left of what it said on stderr."""
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, err
    return err


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=PATIENCE) as response:
            return bool(json.load(response)["ready"])
    except urllib.error.HTTPError as error:
        error.close()
        return False


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """Lines of stderr up to the one that ends with ``word``."""
    assert process.stderr is not None
    descriptor = process.stderr.fileno()
    seen = b""
    # Byte by byte: what a buffer has taken, no select would tell of.
    while not seen.endswith(f"{word}\n".encode()):
        readable, _, _ = select.select([descriptor], [], [], PATIENCE)
        assert readable, seen
        byte = os.read(descriptor, 1)
        assert byte, seen
        seen += byte
    return seen.decode()


def opened(pipe: Path) -> int:
    """The writing end of a named pipe, once somebody reads."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_help_imports_little() -> None:
    code = (
        "import sys\n"
        "from voicecall_gateway.cli import main\n"
        "sys.argv = ['voicecall', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        "print('MODULES', *sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    help_text, _, modules = done.stdout.partition("MODULES")
    assert "providers" in help_text
    heavy = {
        "anyio",
        "asyncio",
        "httpx",
        "json5",
        "jsonschema",
        "numpy",
        "pydantic",
        "rich",
        "sqlalchemy",
        "starlette",
        "uvicorn",
        "websockets",
    }
    assert heavy & set(modules.split()) == set()


def test_sigterm_drains(box: Box) -> None:
    box.package("voicecall.gateway", "fake", "fake_plugin", PLUGIN.format(name="s", drain=0.1))
    process, url = box.gateway()
    assert url.startswith("http://127.0.0.1:")
    err = stopped(process)
    own = [line for line in err.splitlines() if " " not in line]
    assert own == ["started", "draining", "drained", "stopped"]
    assert "Traceback" not in err


def test_a_gateway_without_file_descriptors_says_so(box: Box) -> None:
    process, url = box.gateway("import voicecall_gateway.descriptors as d; d.LOOK_SECONDS = 0.1")
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    reason = "raise the limit of the gateway's process (LimitNOFILE, ulimit -n)"
    assert "new connections are closed at once (too many open files)" in read_until(process, reason)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
    read_until(process, "connections are accepted again")
    assert ready(url)


def test_a_hangup_while_the_gateway_starts_ends_nothing(box: Box) -> None:
    token = box.root / "state" / "gateway-token"
    token.parent.mkdir(mode=0o700)
    os.mkfifo(token, 0o600)
    process = box.popen("gateway", "run", "--json")
    # The gateway waits for its token, and goes on when the pipe is closed.
    with os.fdopen(opened(token), "w") as writer:
        process.send_signal(signal.SIGHUP)
        token.unlink()
        token.write_text("x" * 32)
        writer.write("x" * 32)
    assert process.stdout is not None
    assert process.stdout.readline() == "{\n"
    stopped(process)


def test_a_second_signal_stops_at_once(box: Box) -> None:
    box.package("voicecall.gateway", "fake", "fake_plugin", PLUGIN.format(name="s", drain=3000))
    box.write(0, drainSeconds=3000)
    process, url = box.gateway()
    process.send_signal(signal.SIGINT)
    read_until(process, "draining")
    assert not ready(url)
    err = stopped(process, 1, signal.SIGINT)
    assert "Traceback" not in err


HANGING = """
import threading
from contextlib import asynccontextmanager
import anyio, anyio.to_thread
from voicecall import hookimpl

class Service:
    name = "s"
    @asynccontextmanager
    async def run(self):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.listen)
            yield
            tasks.cancel_scope.cancel()
        {leaving}
    async def listen(self):
        await anyio.to_thread.run_sync(threading.Event().wait, abandon_on_cancel=True)
    async def drain(self):
        return
    def problems(self):
        return []

@hookimpl
def voicecall_services(host):
    return [Service()]
"""
NEVER = "with anyio.CancelScope(shield=True): await anyio.sleep_forever()"


def test_a_thread_that_hangs_does_not_hold_up_the_end(box: Box) -> None:
    box.package("voicecall.gateway", "fake", "fake_plugin", HANGING.format(leaving=""))
    process, _ = box.gateway("import voicecall_gateway.leaving as l; l.LEAVE_SECONDS = 0.5")
    err = stopped(process)
    assert err.count("still busy: AnyIO worker thread in threading.Condition.wait") == 1


def test_a_service_that_never_stops_does_not_hold_up_the_end(box: Box) -> None:
    box.package("voicecall.gateway", "fake", "fake_plugin", HANGING.format(leaving=NEVER))
    box.write(0, drainSeconds=0)
    process, _ = box.gateway("import voicecall_gateway.runtime as r; r.CLOSING_SECONDS = 0.5")
    err = stopped(process, 1)
    assert "the process does not end by itself and is killed" in err


def test_a_second_signal_ends_a_service_that_never_stops(box: Box) -> None:
    box.package("voicecall.gateway", "fake", "fake_plugin", HANGING.format(leaving=NEVER))
    process, _ = box.gateway("import voicecall_gateway.runtime as r; r.AT_ONCE_SECONDS = 0.5")
    process.send_signal(signal.SIGTERM)
    read_until(process, "SIGTERM: draining, then stopping")
    assert "SIGTERM again: stopping at once" in stopped(process, 1)


def test_a_log_that_takes_nothing_does_not_hold_up_the_end() -> None:
    code = (
        "import logging, threading\n"
        "from voicecall_gateway.leaving import leave\n"
        "handler = logging.StreamHandler()\n"
        "logging.getLogger().addHandler(handler)\n"
        "handler.acquire()\n"
        "leave(3, 0.1)\n"
        "threading.Event().wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=PATIENCE, check=False)
    assert done.returncode == 3


def test_the_drain_time_is_bounded(box: Box) -> None:
    box.package("voicecall.gateway", "fake", "fake_plugin", PLUGIN.format(name="s", drain=3000))
    box.write(0, drainSeconds=0.1)
    process, _ = box.gateway()
    err = stopped(process)
    assert "stopping with work still under way" in err
    assert "drained" not in err.splitlines()


def test_a_port_in_use(box: Box) -> None:
    _, url = box.gateway()
    port = int(url.rpartition(":")[2])
    box.write(port)
    code, out, err = box.run("gateway", "run")
    assert (code, out) == (1, "")
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert lines == [f"a voicecall gateway is already running on 127.0.0.1:{port}"]


def test_commands_find_the_gateway_by_its_token_file(box: Box) -> None:
    _, url = box.gateway()
    box.write(int(url.rpartition(":")[2]))
    code, out, _ = box.run("gateway", "status", "--json")
    assert code == 0
    assert json.loads(out)["url"] == url
    log = box.root / "state" / "logs" / "voicecall.log"
    token = (box.root / "state" / "gateway-token").read_text().strip()
    assert token not in log.read_text()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(line["logger"].startswith("voicecall") for line in lines)
    assert all(line["level"] for line in lines)


KEEPER = """
import sys
from contextlib import asynccontextmanager
from voicecall import hookimpl

class Service:
    name = "keeper"
    def __init__(self, host):
        self.host = host
    @asynccontextmanager
    async def run(self):
        config = self.host.plugin_config("fake")
        self.host.logger("fake").warning("the word is %s", config["word"])
        print("started", len(config["word"]), file=sys.stderr, flush=True)
        yield
    async def drain(self):
        return None
    def problems(self):
        return []
    def live(self):
        return 0

@hookimpl
def voicecall_services(host):
    return [Service(host)]
"""


def test_a_hang_up_reads_configuration_and_secrets_again(box: Box) -> None:
    words = ("open-sesame", "close-sesame-9")
    box.package("voicecall.gateway", "fake", "fake_plugin", KEEPER)
    file = box.root / "word"
    file.write_text(words[0])
    file.chmod(0o600)
    provider = {"source": "file", "path": str(file), "mode": "singleValue"}
    entry = {"config": {"word": {"source": "file", "provider": "s", "id": "value"}}}
    tree = {
        "gateway": {"port": 0},
        "secrets": {"providers": {"s": provider}},
        "plugins": {"allow": ["fake"], "entries": {"fake": entry}},
    }
    box.config.write_text(json.dumps(tree))
    process, url = box.gateway()
    read_until(process, f"started {len(words[0])}")
    file.write_text(words[1])
    process.send_signal(signal.SIGHUP)
    read_until(process, f"started {len(words[1])}")
    box.config.write_text(json.dumps({**tree, "gateway": {"port": int(url.rpartition(":")[2])}}))
    code, out, err = box.run("gateway", "reload", "--json")
    waiting = ["gateway.port has changed: restart the gateway"]
    assert (code, json.loads(out)) == (0, {"applied": [], "waiting": waiting}), err
    code, out, _ = box.run("gateway", "reload")
    assert out == f"waiting: {waiting[0]}\n"
    code, out, _ = box.run("gateway", "status")
    assert out.endswith(f": ready\n  waiting: {waiting[0]}\n")
    box.config.write_text("{a: }")
    err = stopped(process)
    log = (box.root / "state" / "logs" / "voicecall.log").read_text()
    assert log.count("the word is ***") == 2
    for word in words:
        assert word not in log
        assert word not in err


VAULT = """#!/bin/sh
read question
if [ -p "$0.pipe" ]; then
    exec 3> "$0.pipe"
    echo asked >&3
    exec sleep 600
fi
echo '{"protocolVersion": 1, "values": {"word": "open-sesame"}}'
"""
"""Knows the word, and hangs as soon as there is a pipe beside it."""


@pytest.mark.parametrize("starting", [True, False])
def test_a_program_that_hangs_with_a_secret_holds_up_no_stop(box: Box, starting: bool) -> None:
    box.package("voicecall.gateway", "fake", "fake_plugin", KEEPER)
    vault = box.root / "vault"
    vault.write_text(VAULT)
    vault.chmod(0o700)
    provider = {"source": "exec", "command": str(vault), "timeoutMs": 600_000}
    entry = {"config": {"word": {"source": "exec", "provider": "v", "id": "word"}}}
    tree = {
        "gateway": {"port": 0},
        "secrets": {"providers": {"v": provider}},
        "plugins": {"allow": ["fake"], "entries": {"fake": entry}},
    }
    box.config.write_text(json.dumps(tree))
    running = None if starting else box.gateway()[0]
    pipe = Path(f"{vault}.pipe")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    process = running or box.popen("gateway", "run")

    def read() -> bytes:
        assert select.select([reader], [], [], PATIENCE)[0]
        return os.read(reader, 100)

    try:
        if not starting:
            process.send_signal(signal.SIGHUP)
        assert read() == b"asked\n"
        stopped(process)
        # It has gone with the gateway.
        assert read() == b""
    finally:
        os.close(reader)


def test_a_credential_of_the_environment_is_masked_in_the_log(box: Box) -> None:
    box.package("voicecall.gateway", "fake", "fake_plugin", TELLER)
    box.variables["ACME_API_KEY"] = "an-acme-key-of-the-test"
    process, _ = box.gateway()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    log = (box.root / "state" / "logs" / "voicecall.log").read_text()
    for told in (err, log):
        assert "refused is ***" in told
        assert "an-acme-key-of-the-test" not in told


def test_a_broken_provider_package_is_listed(box: Box) -> None:
    box.package("voicecall.tts", "broken", "broken_voice", "import a_library_that_is_not_there\n")
    code, out, _ = box.run("providers", "list", "--json")
    assert code == 0
    assert {"kind": "tts", "id": "broken", "package": "fake-broken", "version": "1.0"} in (
        json.loads(out)["providers"]
    )
    code, out, _ = box.run("providers", "list", "--check", "--json")
    row = next(row for row in json.loads(out)["providers"] if row["id"] == "broken")
    assert code == 1
    assert row["ok"] is False
    assert "ModuleNotFoundError: No module named 'a_library_that_is_not_there'" in row["error"]


def test_a_broken_gateway_plugin_does_not_take_the_gateway_down(box: Box) -> None:
    box.package("voicecall.gateway", "fake", "fake_plugin", "raise RuntimeError('broken')\n")
    process = box.popen("gateway", "run", "--json")
    assert process.stdout is not None
    url = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["url"]
    with urllib.request.urlopen(f"{url}/healthz", timeout=PATIENCE) as response:
        assert json.load(response)["ok"] is True
    assert not ready(url)
    err = stopped(process)
    assert "'fake' of fake-fake cannot be imported: RuntimeError: broken" in err


def test_output_that_cannot_be_written_is_told(box: Box) -> None:
    # Also what others print: typer the help, an emulator where it listens.
    for arguments in (("config", "check"), ("setup", "--help"), ("emulate", "mock")):
        with Path("/dev/full").open("w") as full:
            process = box.popen(*arguments, stdout=full)
            _, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (
            1,
            "cannot write the output: No space left on device\n",
        )
    # Without any stdout there is nobody to tell.
    command = [sys.executable, "-c", "from voicecall_gateway.cli import main; main()", "config"]
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command, "check"]
    done = subprocess.run(closed, env=dict(box.environ), capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_has_gone_ends_a_command_without_a_word(box: Box) -> None:
    log = box.root / "state" / "logs" / "voicecall.log"
    log.parent.mkdir(parents=True)
    line = json.dumps({"message": "x" * 1000})
    log.write_text(f"{line}\n" * 1000)
    process = box.popen("logs", "--follow", "--lines", "1000")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("x")
    process.stdout.close()
    assert process.wait(PATIENCE) == 1
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_what_the_terminal_cannot_show_is_written_in_another_way(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code, out, err = box.run("config", "check", "--config", "\N{BLACK TELEPHONE}.json5")
    assert (code, err) == (1, "")
    assert out.startswith("\\u260e.json5: needs attention\n")
