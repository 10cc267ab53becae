"""The ``voicecall`` command line in this process, with fake plugins and providers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import typer

from voicecall import ProviderInfo, ProviderKind, hookimpl
from voicecall.configuring import ConfigModel
from voicecall.errors import VoicecallError
from voicecall.hosting import RpcCall, RpcMethod, SetupCheck
from voicecall.registry import Registry
from voicecall_gateway.cli import run
from voicecall_gateway.client import (
    GatewayClient,
    GatewayTimeout,
    GatewayUnreachable,
    RpcError,
)
from voicecall_gateway.commandline import ConfigOption, JsonOption, command_line
from voicecall_gateway.output import print_json

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


class FakeConfig(ConfigModel):
    max_calls: int = 3


class Voices:
    @hookimpl
    def voicecall_tts_providers(self) -> Sequence[ProviderInfo]:
        return [
            ProviderInfo(
                kind=ProviderKind.TTS, id="fake", label="Fake voice", factory=lambda c, x: None
            )
        ]


class Shell:
    """Runs commands and collects what they print."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.config = home / "config.json5"
        self.environ = {
            "HOME": str(home),
            "VOICECALL_CONFIG": str(self.config),
            "VOICECALL_STATE_DIR": str(home / "state"),
        }
        self.extra: list[tuple[str, str, object]] = []
        self._capsys = capsys
        self.config.write_text("{}")

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = run(arguments, Registry(entries=[], extra=self.extra), self.environ)
        output = self._capsys.readouterr()
        return code, output.out, output.err

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The one document on stdout."""
        got, out, err = self(*arguments, "--json")
        assert (got, err) == (code, "")
        document = json.loads(out)
        assert out == json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        return document


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


async def test_providers(shell: Shell) -> None:
    shell.extra = [("voicecall.tts", "fake", Voices()), ("voicecall.stt", "not-a-kind", Voices())]
    row = {"kind": "tts", "id": "fake", "package": "extra", "version": "0"}
    assert shell.json("providers", "list") == {"providers": [row]}
    checked = shell.json("providers", "list", "--check")["providers"][0]
    assert (checked["ok"], checked["label"]) == (True, "Fake voice")
    shell.extra.append(("voicecall.tts", "empty", Voices()))
    broken, _ = shell.json("providers", "list", "--check", code=1)["providers"]
    assert broken["ok"] is False
    assert "offers no provider of that id" in broken["error"]
    code, out, _ = shell("providers", "list", "--check")
    assert code == 1
    assert out.splitlines()[0].split() == ["KIND", "ID", "PACKAGE", "VERSION", "STATE"]
    assert "error: voicecall.tts 'empty'" in out


@pytest.mark.parametrize("denial", ["{deny: ['a']}", "{allow: ['b']}"])
async def test_a_denied_plugin_runs_no_command(
    shell: Shell, fake_plugin: Any, tmp_path: Path, denial: str
) -> None:
    ran: list[str] = []

    def commands(name: str) -> Any:
        def add(app: typer.Typer) -> None:
            def plain(context: typer.Context, config: ConfigOption = None) -> None:
                """Say that it ran."""
                ran.append(name)

            inner = typer.Typer(no_args_is_help=True)
            inner.command("inside")(lambda: ran.append(f"{name} inside"))
            inner.command("other")(lambda: None)
            app.command(name)(plain)
            app.add_typer(inner, name=f"{name}-group")

        return add

    shell.extra = [
        ("voicecall.gateway", name, fake_plugin(name, commands=commands(name)))
        for name in ("a", "b")
    ]
    shell.config.write_text(f"{{plugins: {denial}}}")
    for command in (("a",), ("a-group", "inside")):
        code, out, err = shell(*command)
        assert (code, out) == (1, "")
        assert err.startswith("this command belongs to the plugin 'a', which plugins.")
        assert str(shell.config) in err
        assert len(err.splitlines()) == 1
    assert ran == []
    assert shell("b") == shell("b-group", "inside") == (0, "", "")
    assert ran == ["b", "b inside"]
    # The file that the command was given is the one that counts.
    free = tmp_path / "free.json5"
    free.write_text("{}")
    assert shell("a", "--config", str(free)) == (0, "", "")
    code, out, _ = shell("a", "--help")
    assert (code, "Say that it ran." in out) == (0, True)


async def test_plugins(shell: Shell, fake_plugin: Any) -> None:
    shell.extra = [
        ("voicecall.gateway", name, fake_plugin(name, model=FakeConfig)) for name in ("a", "b", "c")
    ]
    shell.config.write_text(
        "{plugins: {deny: ['a'], entries: {b: {config: {x: 1}}, c: {config: {maxCalls: 1}}}}}"
    )
    rows = {row["id"]: row for row in shell.json("plugins", "list")["plugins"]}
    assert [rows[name]["enabled"] for name in "abc"] == [False, True, True]
    assert [rows[name]["ok"] for name in "abc"] == [True, False, True]
    assert "plugins.entries.b.config.x: unknown key" in rows["b"]["error"]
    _, out, _ = shell("plugins", "list")
    assert "a   extra    0        disabled" in out


async def test_config_check(shell: Shell, fake_plugin: Any) -> None:
    shell.extra = [("voicecall.gateway", "a", fake_plugin("a", model=FakeConfig))]
    shell.config.write_text("{other: 1, tts: {x: '${NOT_SET}'}}")
    report = shell.json("config", "check")
    assert (report["ok"], report["problems"]) == (True, [])
    assert "tts.x: the environment variable NOT_SET is not set" in report["warnings"][0]
    assert "other" in report["notes"][0]
    shell.config.write_text("{gateway: {prot: 1}}")
    report = shell.json("config", "check", code=1)
    assert report["problems"] == [
        f"{shell.config}: gateway.prot: unknown key; did you mean 'port'?"
    ]
    shell.config.write_text("{plugins: {entries: {a: {config: {maxCals: 1}}}}}")
    code, out, _ = shell("config", "check")
    assert code == 1
    assert "problem: " in out
    assert "did you mean 'maxCalls'?" in out


async def test_a_configuration_error_is_one_line(shell: Shell) -> None:
    shell.config.write_text("{a: }")
    for command in (["gateway", "run"], ["gateway", "status"], ["setup"], ["plugins", "list"]):
        code, out, err = shell(*command)
        assert (code, out) == (1, "")
        assert err == f'{shell.config}: is not valid JSON5: line 1, column 5: unexpected "}}"\n'


@pytest.mark.parametrize(
    "command", [("gateway", "status"), ("setup",), ("config", "check"), ("doctor",)]
)
async def test_paths_that_cannot_be_looked_at(shell: Shell, command: tuple[str, ...]) -> None:
    long = shell.home / ("x" * 300)
    reason = f"{long}: cannot be read: File name too long; make it readable, or name another"
    code, out, err = shell(*command, "--config", str(long))
    assert (code, (out + err).count(reason)) == (1, 1)
    # The default file, in a home directory that cannot be looked into.
    del shell.environ["VOICECALL_CONFIG"]
    shell.environ["HOME"] = str(long)
    code, out, err = shell(*command)
    assert (code, (out + err).count("cannot be read: File name too long")) == (1, 1)
    shell.environ["HOME"] = str(shell.home)
    shell.environ["VOICECALL_STATE_DIR"] = "~no-such-user/x"
    code, out, err = shell(*command)
    text = "~no-such-user/x: the home directory that ~ stands for is not known; write the path"
    assert (code, (out + err).count(text)) == (1, 1)


async def test_setup(shell: Shell, fake_plugin: Any) -> None:
    good = SetupCheck("provider", True, "mock is used")
    bad = SetupCheck("number", False, "set fromNumber")
    shell.extra = [("voicecall.gateway", "a", fake_plugin("a", checks=[good]))]
    assert shell.json("setup") == {
        "ok": True,
        "checks": [{"id": "provider", "ok": True, "message": "mock is used"}],
        "warnings": [],
        "notes": [],
    }
    shell.extra = [("voicecall.gateway", "a", fake_plugin("a", checks=[good, bad]))]
    code, out, _ = shell("setup")
    assert code == 1
    assert out.splitlines() == [
        "voicecall setup: needs attention",
        "OK provider: mock is used",
        "FAIL number: set fromNumber",
    ]


@pytest.mark.parametrize(
    ("denial", "plugins", "message"),
    [
        ("{deny: ['a']}", ("a",), "plugins.allow and plugins.deny allow none of the installed "),
        ("{allow: ['ab']}", ("a", "b"), "none of the installed plugins: a, b"),
        ("{}", (), "no gateway plugin is installed"),
        ("{}", ("a",), "no gateway plugin has anything to check"),
    ],
)
async def test_setup_says_why_there_is_nothing_to_check(
    shell: Shell, fake_plugin: Any, denial: str, plugins: Sequence[str], message: str
) -> None:
    shell.extra = [("voicecall.gateway", name, fake_plugin(name)) for name in plugins]
    shell.config.write_text(f"{{plugins: {denial}}}")
    (check,) = shell.json("setup", code=1)["checks"]
    assert (check["id"], check["ok"]) == ("plugins", False)
    assert message in check["message"]


async def test_setup_and_config_check_say_what_the_log_of_a_start_does(
    shell: Shell, fake_plugin: Any
) -> None:
    good = SetupCheck("provider", True, "mock is used")
    shell.extra = [("voicecall.gateway", "voice-call", fake_plugin("voice-call", checks=[good]))]
    shell.config.write_text(
        "{other: 1, tts: {x: '${NOT_SET}'}, agents: {backends: {scriptd: {}}},"
        " plugins: {entries: {voicecall: {}, 'voice-call': {}}, deny: ['voicecall', 'telegram']}}"
    )
    passed = "plugins.entries.voicecall: no plugin of this name is installed; the entry is passed"
    for command in (("setup",), ("config", "check")):
        report = shell.json(*command)
        variable, entry, denied = report["warnings"]
        assert "the environment variable NOT_SET is not set" in variable
        assert entry == f"{passed} over; did you mean 'voice-call'?"
        assert denied == (
            "plugins.deny: no plugin 'voicecall' is installed; did you mean 'voice-call'?"
        )
        sections, backend = report["notes"]
        assert "passed over: other" in sections
        assert "agents.backends.scriptd: no agent of this name is installed" in backend
        _, out, _ = shell(*command)
        assert f"\nwarning: {entry}\n" in out
        assert out.endswith(f"note: {backend}\n")


async def test_setup_names_a_plugin_that_is_broken(shell: Shell, fake_plugin: Any) -> None:
    class Broken:
        @hookimpl
        def voicecall_setup_checks(self, context: Any) -> Any:
            return context.plugin_config("missing")

    shell.extra = [
        ("voicecall.gateway", "a", Broken()),
        ("voicecall.gateway", "b", fake_plugin("x")),
    ]
    checks = shell.json("setup", code=1)["checks"]
    assert [check["id"] for check in checks] == ["plugin:a", "plugin:b"]
    assert "'missing' is installed" in checks[0]["message"]
    assert "calls itself 'x'" in checks[1]["message"]


async def test_commands_of_plugins(shell: Shell, fake_plugin: Any) -> None:
    def add(app: typer.Typer) -> None:
        @app.command()
        def hello(context: typer.Context, json: JsonOption = False) -> None:
            print_json({"home": command_line(context).environ["HOME"]})

        @app.command()
        def fail() -> None:
            raise VoicecallError("it cannot be done")

    def broken(app: typer.Typer) -> None:
        raise RuntimeError("oops")

    shell.extra = [("voicecall.gateway", "a", fake_plugin("a", commands=add))]
    assert shell.json("hello") == {"home": str(shell.home)}
    assert shell("fail") == (1, "", "it cannot be done\n")
    shell.extra.append(("voicecall.gateway", "b", fake_plugin("b", commands=broken)))
    code, _, err = shell("hello")
    assert code == 0
    assert err.count("\n") == 1
    assert err.startswith("warning: the commands of the plugin 'b' cannot be added")


async def test_emulate(shell: Shell) -> None:
    given: list[Any] = []

    def emulator(**options: Any) -> None:
        given.append(options)
        print("exchange on http://127.0.0.1:5")

    def taken(**options: Any) -> None:
        raise OSError(98, "Address already in use")

    shell.extra = [
        ("voicecall.emulator", "fake", emulator),
        ("voicecall.emulator", "taken", taken),
        ("voicecall.emulator", "wrong", "no callable"),
    ]
    options = ("--port", "5", "--auth-token", "t", "--tts", "x")
    assert shell("emulate", "fake", *options) == (0, "exchange on http://127.0.0.1:5\n", "")
    code, out, err = shell("emulate", "fake", "--json")
    assert (code, err) == (0, "exchange on http://127.0.0.1:5\n")
    # Who reads the document learns the port that is used.
    port = json.loads(out)["port"]
    assert port > 0
    assert json.loads(out) == {"carrier": "fake", "host": "127.0.0.1", "port": port}
    assert given == [
        {"host": "127.0.0.1", "port": 5, "auth_token": "t", "tts": "x"},
        {"host": "127.0.0.1", "port": port, "auth_token": None, "tts": None},
    ]
    code, out, err = shell("emulate", "fake", "--json", "--host", "203.0.113.1")
    assert (code, out) == (1, "")
    assert err.startswith("the emulator cannot listen on 203.0.113.1 port 0: ")
    expected = "the emulator cannot listen on 127.0.0.1 port 5: Address already in use\n"
    assert shell("emulate", "taken", "--port", "5") == (1, "", expected)
    assert shell("emulate", "fak")[2].endswith("did you mean 'fake'?\n")
    assert "does not load a callable" in shell("emulate", "wrong")[2]


async def test_a_wrong_option_exits_with_2(shell: Shell) -> None:
    code, out, err = shell("setup", "--nonsense")
    assert (code, out) == (2, "")
    assert "--nonsense" in err


async def test_more_lines_of_the_log_than_there_can_be(shell: Shell) -> None:
    code, out, err = shell("logs", "-n", "99999999999999999999")
    assert (code, out) == (2, "")
    assert "--lines" in err
    assert "1000000" in err


# --- the client -------------------------------------------------------------------------------


async def in_thread(function: Any, *arguments: Any) -> Any:
    return await anyio.to_thread.run_sync(function, *arguments)


async def test_status_without_a_gateway(shell: Shell, free_tcp_port: int) -> None:
    shell.config.write_text(f"{{gateway: {{port: {free_tcp_port}}}}}")
    code, out, err = shell("gateway", "status")
    assert (code, out) == (1, "")
    assert err == (
        f"ws://127.0.0.1:{free_tcp_port} has no voicecall gateway running; start one with"
        " `voicecall gateway run`\n"
    )


async def test_status_of_a_gateway(shell: Shell, lab: Any) -> None:
    async with lab.gateway().run() as gateway:
        await gateway.wait_started()
        shell.config.write_text(
            json.dumps({"gateway": {"port": gateway.port, "auth": {"token": lab.token}}})
        )
        document = await in_thread(shell.json, "gateway", "status")
        assert document["ready"] is True
        code, out, _ = await in_thread(shell, "gateway", "status")
        assert (code, out.endswith(f"on {gateway.url}: ready\n")) == (0, True)
        shell.environ["VOICECALL_GATEWAY_URL"] = gateway.url
        shell.environ["VOICECALL_GATEWAY_TOKEN"] = "wrong"
        code, _, err = await in_thread(shell, "gateway", "status")
        assert (code, err) == (1, "unauthorized: gateway token mismatch\n")


async def test_a_gateway_that_is_not_ready_is_no_success(
    shell: Shell, lab: Any, fake_plugin: Any
) -> None:
    class Empty:
        name = "phone"

        @asynccontextmanager
        async def run(self) -> AsyncIterator[None]:
            yield

        async def drain(self) -> None:
            return None

        def problems(self) -> Sequence[str]:
            return ["no number is set"]

    async with lab.gateway(fake_plugin("p", services=[Empty()])).run() as gateway:
        await gateway.wait_started()
        shell.config.write_text(
            json.dumps({"gateway": {"port": gateway.port, "auth": {"token": lab.token}}})
        )
        code, out, err = await in_thread(shell, "gateway", "status")
        assert (code, err) == (1, "")
        assert out.endswith(f"on {gateway.url}: not ready\n  no number is set\n")
        code, out, err = await in_thread(shell, "gateway", "status", "--json")
        assert (code, err, json.loads(out)["ready"]) == (1, "", False)


async def test_the_client(lab: Any, fake_plugin: Any, shell: Shell) -> None:
    release = anyio.Event()

    async def echo(params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        return dict(params)

    async def wait(params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        await release.wait()
        return {}

    methods = [RpcMethod("p.echo", "write", echo), RpcMethod("p.wait", "write", wait)]
    async with lab.gateway(fake_plugin("p", methods=methods)).run() as gateway:
        await gateway.wait_started()
        environ = {
            **shell.environ,
            "VOICECALL_GATEWAY_URL": gateway.url,
            "VOICECALL_GATEWAY_TOKEN": lab.token,
        }

        def use() -> list[Any]:
            seen: list[Any] = []
            with GatewayClient.connect(None, environ, timeout=10) as client:
                seen.append(client.call("p.echo", {"a": 1}))
                try:
                    client.call("p.none")
                except RpcError as error:
                    seen.append((error.code, error.message))
                try:
                    client.call("p.wait", timeout=0.01)
                except GatewayTimeout:
                    seen.append("timeout")
                anyio.from_thread.run_sync(gateway.host.publish, "news", {"n": 1})
                anyio.from_thread.run_sync(release.set)
                anyio.from_thread.run_sync(gateway.request_stop)
                seen.append(next(client.events())["payload"])
            return seen

        assert await in_thread(use) == [
            {"a": 1},
            ("INVALID_REQUEST", "unknown method: p.none"),
            "timeout",
            {"n": 1},
        ]


async def test_a_connection_that_breaks_is_told_from_one_that_never_was(
    lab: Any, shell: Shell
) -> None:
    environ = {**shell.environ, "VOICECALL_GATEWAY_TOKEN": lab.token}
    started, leave = anyio.Event(), anyio.Event()
    urls: list[str] = []

    async def host() -> None:
        async with lab.gateway().run() as gateway:
            urls.append(gateway.url)
            started.set()
            await leave.wait()

    def lose() -> None:
        with GatewayClient.connect(None, environ, timeout=10) as client:
            anyio.from_thread.run_sync(leave.set)
            assert [frame["event"] for frame in client.events()] == ["shutdown"]
            client.call("gateway.status")

    def miss() -> None:
        with GatewayClient.connect(None, environ, timeout=10):
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host)
        await started.wait()
        environ["VOICECALL_GATEWAY_URL"] = urls[0]
        with pytest.raises(GatewayUnreachable) as lost:
            await in_thread(lose)
    with pytest.raises(GatewayUnreachable) as missed:
        await in_thread(miss)
    assert (lost.value.lost, lost.value.remote) == (True, True)
    assert (missed.value.lost, missed.value.remote) == (False, True)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:18790",
        "ws://127.0.0.1:99999",
        "ws://127.0.0.1:0",
        "ws://a..b",
        "ws://a:b",
        "ws://[::1",
    ],
)
async def test_a_wrong_gateway_url(shell: Shell, url: str) -> None:
    shell.environ["VOICECALL_GATEWAY_URL"] = url
    code, _, err = shell("gateway", "status")
    assert code == 1
    assert err.startswith("VOICECALL_GATEWAY_URL: must be a URL")
    assert err.count("\n") == 1
