"""The ``voicecall`` command line in this process, with fake plugins and providers."""

from __future__ import annotations

import errno
import json
import os
import socket
import types
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import anyio
import anyio.to_thread
import pytest
import typer

from voicecall import ProviderInfo, ProviderKind, hookimpl
from voicecall.configuring import ConfigModel
from voicecall.errors import ConfigError, VoicecallError
from voicecall.hosting import PluginInfo, SetupCheck, SetupContext
from voicecall_gateway import server
from voicecall_gateway.commandline import ConfigOption, JsonOption, command_line
from voicecall_gateway.output import print_error, print_json, print_text

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


async def test_providers(shell: Any) -> None:
    shell.extra = [("voicecall.tts", "fake", Voices()), ("voicecall.stt", "not-a-kind", Voices())]
    row = {"kind": "tts", "id": "fake", "package": "extra", "version": "0"}
    assert shell.json("providers", "list") == {"providers": [row]}
    checked = shell.json("providers", "list", "--check")["providers"][0]
    assert (checked["ok"], checked["label"]) == (True, "Fake voice")
    shell.extra.append(("voicecall.tts", "empty", Voices()))
    broken, _ = shell.json("providers", "list", "--check", code=1)["providers"]
    assert broken["ok"] is False
    assert "offers no provider with this id" in broken["error"]
    code, out, _ = shell("providers", "list", "--check")
    assert code == 1
    assert out.splitlines()[0].split() == ["KIND", "ID", "PACKAGE", "VERSION", "STATE"]
    assert "error: voicecall.tts 'empty'" in out


def test_what_is_printed_turns_no_direction(capsys: pytest.CaptureFixture[str]) -> None:
    print_text("\u202e4321000555+ \u2066x\u2069\u2028next שלום\u200f!")
    assert capsys.readouterr().out == (
        "\\u202e4321000555+ \\u2066x\\u2069\\u2028next שלום\u200f!\n"
    )


def test_what_is_printed_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    words = {"text": "\x1b[2J\x9b2J\x7f\r\té"}
    print_json(words)
    print_text(json.dumps(words, ensure_ascii=False))
    print_text("heard: \x1b[2J\x9b2J\r\té\nsecond line")
    print_error("refused:\n\x1b]0;title\x07")
    out, err = capsys.readouterr()
    assert json.loads(out[: out.index("}") + 1]) == words
    whole, line, *text = out.splitlines()[1], *out.splitlines()[3:]
    assert whole == '  "text": "\\u001b[2J\\u009b2J\\u007f\\r\\té"'
    assert json.loads(line) == words
    assert text == ["heard: \\u001b[2J\\u009b2J\\u000d\té", "second line"]
    assert err == "refused: \\u001b]0;title\\u0007\n"


@pytest.mark.parametrize("denial", ["{deny: ['a']}", "{allow: ['b']}"])
async def test_a_denied_plugin_runs_no_command(
    shell: Any, fake_plugin: Any, tmp_path: Path, denial: str
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


async def test_ctrl_c_while_plugins_are_imported(shell: Any, fake_plugin: Any) -> None:
    def interrupted(app: typer.Typer) -> None:
        raise KeyboardInterrupt

    shell.extra = [("voicecall.gateway", "slow", fake_plugin("slow", commands=interrupted))]
    assert shell("plugins", "list") == (130, "", "")


async def test_plugins(shell: Any, fake_plugin: Any) -> None:
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


async def test_config_check(shell: Any, fake_plugin: Any) -> None:
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


async def test_config_check_tells_that_there_is_no_file(shell: Any) -> None:
    del shell.environ["VOICECALL_CONFIG"]
    shell.environ["HOME"] = str(shell.home)
    file = shell.home / ".voicecall" / "config.json5"
    told = f"{file}: there is no such file; the defaults apply\n"
    assert shell("config", "check") == (0, told, "")
    assert shell.json("config", "check")["exists"] is False
    file.parent.mkdir()
    file.write_text("{}")
    assert shell("config", "check") == (0, f"{file}: OK\n", "")


async def test_a_configuration_error_is_one_line(shell: Any) -> None:
    shell.config.write_text("{a: }")
    for command in (["gateway", "run"], ["gateway", "status"], ["setup"], ["plugins", "list"]):
        code, out, err = shell(*command)
        assert (code, out) == (1, "")
        assert err == f'{shell.config}: is not valid JSON5: line 1, column 5: unexpected "}}"\n'


class Reader:
    """A plugin that reads a section of the file that is not its own."""

    @hookimpl
    def voicecall_plugin_info(self) -> PluginInfo:
        return PluginInfo("reader", "Reader", check_sections=self.check)

    def check(self, own: Any, context: SetupContext) -> list[str]:
        if not isinstance(agents := context.section("agents")["list"], list):
            raise ConfigError("must be a list", path="agents.list")
        return [] if agents else ["there are no agents"]


async def test_config_check_asks_plugins_about_sections_that_are_nobodys(shell: Any) -> None:
    shell.extra = [("voicecall.gateway", "reader", Reader())]
    for text, problems in (
        ("agents: {list: []}", []),
        ("agents: {list: 5}", [f"{shell.config}: agents.list: must be a list"]),
        ("agents: {}", ["the plugin 'reader' cannot check the file: KeyError: 'list'"]),
        ("agents: {}, plugins: {entries: {reader: {enabled: false}}}", []),
    ):
        shell.config.write_text(f"{{{text}}}")
        report = shell.json("config", "check", code=1 if problems else 0)
        assert report["problems"] == problems
        without = text == "agents: {list: []}"
        assert report["warnings"] == [f"{shell.config}: there are no agents"] * without


@pytest.mark.parametrize(
    "command", [("gateway", "status"), ("setup",), ("config", "check"), ("doctor",)]
)
async def test_paths_that_cannot_be_looked_at(shell: Any, command: tuple[str, ...]) -> None:
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


async def test_setup(shell: Any, fake_plugin: Any) -> None:
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


async def test_setup_names_what_in_the_state_directory_keeps_a_gateway_from_starting(
    shell: Any, fake_plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = SetupCheck("provider", True, "mock is used")
    shell.extra = [("voicecall.gateway", "a", fake_plugin("a", checks=[good]))]
    state = Path(shell.environ["VOICECALL_STATE_DIR"])
    wrong = {
        "logs": f"{state}/logs is not a directory",
        "logs/voicecall.log": f"{state}/logs/voicecall.log is not a file",
        "agents": f"{state}/agents is not a directory",
        "agents/history.db": f"{state}/agents/history.db is not a file",
    }
    for name, message in wrong.items():
        place = state / name
        if "/" in name:
            place.mkdir(parents=True)
        else:
            state.mkdir(exist_ok=True)
            place.touch()
        before = sorted(state.rglob("*"))
        _, check = shell.json("setup", code=1)["checks"]
        assert (check["id"], check["ok"]) == ("state-directory", False)
        assert message in check["message"]
        assert sorted(state.rglob("*")) == before
        place.rmdir() if "/" in name else place.unlink()
    log = state / "logs" / "voicecall.log"
    log.touch()
    assert shell.json("setup")["ok"]
    owner = log.stat().st_uid
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: owner + 1)
        _, check = shell.json("setup", code=1)["checks"]
    assert f"{log} belongs to another user: give it to the gateway's user" in check["message"]
    (state / "gateway-token").touch()
    _, check = shell.json("setup", code=1)["checks"]
    assert check["id"] == "gateway-token"
    assert "the gateway's token is empty; delete the file" in check["message"]


async def test_setup_names_an_admin_port_that_cannot_be_had(
    shell: Any, fake_plugin: Any, lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = SetupCheck("provider", True, "mock is used")
    shell.extra = [("voicecall.gateway", "a", fake_plugin("a", checks=[good]))]
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        shell.config.write_text(f"{{gateway: {{port: {port}}}}}")
        _, check = shell.json("setup", code=1)["checks"]
    assert (check["id"], check["ok"]) == ("admin-port", False)
    assert check["message"] == (
        f"port {port} on 127.0.0.1 is in use by another program: stop it or set gateway.port"
    )
    shell.config.write_text("{gateway: {port: 18790, bind: '203.0.113.9'}}")
    _, check = shell.json("setup", code=1)["checks"]
    assert check["message"] == (
        "cannot listen on 203.0.113.9 port 18790 (gateway.bind, gateway.port): "
        + os.strerror(errno.EADDRNOTAVAIL)
    )
    # As where IPv6 is switched off.
    with monkeypatch.context() as patch:
        patch.setattr(server, "_family", lambda bind: 12345)
        _, check = shell.json("setup", code=1)["checks"]
    assert os.strerror(errno.EAFNOSUPPORT) in check["message"]
    # That of a gateway that runs is its own.
    async with lab.gateway().run() as running:
        shell.config.write_text(f"{{gateway: {{port: {running.port}}}}}")
        report = await anyio.to_thread.run_sync(shell.json, "setup")
    assert report["ok"]


async def test_setup_quotes_no_secret(shell: Any, fake_plugin: Any) -> None:
    shell.environ["ACME_API_KEY"] = "an-acme-key-of-the-test"
    bad = SetupCheck("acme", False, "an-acme-key-of-the-test is not accepted")
    shell.extra = [("voicecall.gateway", "a", fake_plugin("a", checks=[bad]))]
    [check] = shell.json("setup", code=1)["checks"]
    assert check["message"] == "*** is not accepted"


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
    shell: Any, fake_plugin: Any, denial: str, plugins: Sequence[str], message: str
) -> None:
    shell.extra = [("voicecall.gateway", name, fake_plugin(name)) for name in plugins]
    shell.config.write_text(f"{{plugins: {denial}}}")
    (check,) = shell.json("setup", code=1)["checks"]
    assert (check["id"], check["ok"]) == ("plugins", False)
    assert message in check["message"]


async def test_setup_and_config_check_say_what_the_log_of_a_start_does(
    shell: Any, fake_plugin: Any
) -> None:
    good = SetupCheck("provider", True, "mock is used")
    shell.extra = [("voicecall.gateway", "voice-call", fake_plugin("voice-call", checks=[good]))]
    shell.config.write_text(
        "{other: 1, tts: {x: '${NOT_SET}'}, agents: {backends: {scriptd: {}}},"
        " plugins: {entries: {voicecall: {}, 'voice-call': {}}, deny: ['voicecall', 'telegram']}}"
    )
    ignored = "plugins.entries.voicecall: no plugin of this name is installed; the entry is ignored"
    for command in (("setup",), ("config", "check")):
        report = shell.json(*command)
        variable, entry, denied = report["warnings"]
        assert "the environment variable NOT_SET is not set" in variable
        assert entry == f"{ignored}; did you mean 'voice-call'?"
        assert denied == (
            "plugins.deny: no plugin 'voicecall' is installed; did you mean 'voice-call'?"
        )
        sections, backend = report["notes"]
        assert "are ignored: other" in sections
        assert "agents.backends.scriptd: no agent of this name is installed" in backend
        _, out, _ = shell(*command)
        assert f"\nwarning: {entry}\n" in out
        assert out.endswith(f"note: {backend}\n")


async def test_a_plugin_at_the_root_of_the_file_is_told(shell: Any, fake_plugin: Any) -> None:
    good = SetupCheck("provider", True, "mock is used")
    shell.extra = [("voicecall.gateway", "voice-call", fake_plugin("voice-call", checks=[good]))]
    shell.config.write_text("{'voice-call': {provider: 'mock'}}")
    for command in (("setup",), ("config", "check")):
        (warning,) = shell.json(*command)["warnings"]
        assert warning == (
            "voice-call: is ignored; it belongs in plugins.entries.voice-call.config"
        )


async def test_setup_names_a_plugin_that_is_broken(shell: Any, fake_plugin: Any) -> None:
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
    # Not if plugins are off, which is the way to do without them.
    good = SetupCheck("good", False, "it is off")
    shell.extra.append(("voicecall.gateway", "c", fake_plugin("c", checks=[good])))
    off = {name: {"enabled": False} for name in ("a", "b", "c")}
    shell.config.write_text(json.dumps({"plugins": {"entries": off}}))
    checks = shell.json("setup", "--probe", code=1)["checks"]
    assert checks == [{"id": "good", "ok": False, "message": "it is off"}]


async def test_commands_of_plugins(shell: Any, fake_plugin: Any) -> None:
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


def _of_two_kinds(app: typer.Typer) -> None:
    @app.command()
    def fine() -> None: ...

    @app.command()
    def strange(words: Annotated[str, typer.Option(), typer.Option()]) -> None: ...


def _half(app: typer.Typer) -> None:
    app.command("fine")(lambda: None)
    raise RuntimeError("oops")


def _second_setup(app: typer.Typer) -> None:
    app.command("fine")(lambda: None)

    @app.command()
    def setup() -> None: ...


def _second_plugins(app: typer.Typer) -> None:
    app.command("fine")(lambda: None)
    app.add_typer(typer.Typer(name="plugins"))


@pytest.mark.parametrize(
    ("commands", "why"),
    [
        (_of_two_kinds, "MultipleTyperAnnotationsError: "),
        (_half, "RuntimeError: oops"),
        (_second_setup, "there is already `voicecall setup`"),
        (_second_plugins, "there is already `voicecall plugins`"),
    ],
)
async def test_commands_that_cannot_be_added_leave_all_others(
    shell: Any, fake_plugin: Any, commands: Any, why: str
) -> None:
    shell.extra = [("voicecall.gateway", "bad", fake_plugin("bad", commands=commands))]
    code, out, err = shell("plugins", "list")
    assert (code, out.splitlines()[1]) == (0, "bad  extra    0        ok")
    assert err.startswith(f"warning: the commands of the plugin 'bad' cannot be added: {why}")
    code, out, err = shell("fine")
    assert (code, out) == (2, "")
    assert "No such command 'fine'" in err


async def test_a_plugin_adds_nothing_to_voicecall_itself(shell: Any, fake_plugin: Any) -> None:
    def everywhere(app: typer.Typer) -> None:
        app.callback()(lambda: print_text("hello"))
        app.command("own")(lambda: print_text("own"))

    shell.extra = [("voicecall.gateway", "a", fake_plugin("a", commands=everywhere))]
    assert shell("own") == (0, "own\n", "")


async def test_emulate(shell: Any) -> None:
    given: list[Any] = []

    def emulator(**options: Any) -> None:
        given.append(options)
        print("exchange on http://127.0.0.1:5")

    def taken(**options: Any) -> None:
        raise OSError(errno.EADDRINUSE, "in use (at 127.0.0.1)")

    def narrow(port: int) -> None:
        given.append(port)

    async def later(**options: Any) -> None:
        given.append(options)

    wrong = {"wrong": "no callable", "narrow": narrow, "later": later}
    shell.extra = [
        ("voicecall.emulator", "fake", emulator),
        ("voicecall.emulator", "taken", taken),
        *(("voicecall.emulator", name, start) for name, start in wrong.items()),
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
    reason = os.strerror(errno.EADDRNOTAVAIL)
    assert err == f"the emulator cannot listen on 203.0.113.1 port 0: {reason}\n"
    expected = f"the emulator cannot listen on 127.0.0.1 port 5: {os.strerror(errno.EADDRINUSE)}\n"
    assert shell("emulate", "taken", "--port", "5") == (1, "", expected)
    # No document names a port at which another program listens.
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = expected.replace("port 5", f"port {port}")
        assert shell("emulate", "fake", "--json", "--port", str(port)) == (1, "", refused)
    assert shell("emulate", "fak")[2].endswith("did you mean 'fake'?\n")
    for name in wrong:
        code, out, err = shell("emulate", name)
        assert (code, out) == (1, "")
        what = "does not load a callable run(port=, host=, auth_token=, tts=)"
        assert err == f"voicecall.emulator {name!r} {what}\n"
    assert len(given) == 2


async def test_emulate_refuses_empty_options_and_hosts_without_an_address(
    shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    shell.extra = [("voicecall.emulator", "fake", lambda **_: None)]
    for option in ("--host", "--tts", "--auth-token"):
        expected = f"{option} is empty; give it a value, or leave it out\n"
        assert shell("emulate", "fake", option, " ") == (1, "", expected)
    expected = "the emulator cannot listen on a..b: this is not a host name\n"
    assert shell("emulate", "fake", "--host", "a..b") == (1, "", expected)
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    expected = "the emulator cannot listen on x.invalid: Name or service not known\n"
    assert shell("emulate", "fake", "--host", "x.invalid", "--json") == (1, "", expected)


async def test_emulate_tells_a_carrier_without_emulator_from_one_that_is_not_installed(
    shell: Any,
) -> None:
    shell.extra = [
        ("voicecall.emulator", "fake", print),
        ("voicecall.telephony", "acme", types.ModuleType("acme")),
    ]
    expected = (
        "no emulator of 'acme' is installed, only the carrier itself (emulators: fake); "
        "one may come in a separate package\n"
    )
    assert shell("emulate", "acme") == (1, "", expected)
    assert "only the carrier itself" not in shell("emulate", "acne")[2]


async def test_the_version(shell: Any) -> None:
    assert shell("--version") == (0, f"voicecall {version('voicecall-gateway')}\n", "")


async def test_a_wrong_option_exits_with_2(shell: Any) -> None:
    code, out, err = shell("setup", "--nonsense")
    assert (code, out) == (2, "")
    assert "--nonsense" in err


async def test_more_lines_of_the_log_than_there_can_be(shell: Any) -> None:
    code, out, err = shell("logs", "-n", "99999999999999999999")
    assert (code, out) == (2, "")
    assert "--lines" in err
    assert "1000000" in err
