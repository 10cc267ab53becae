"""``voicecall doctor``: what it finds, what it fixes, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import voicecall_mock.plugin
from voicecall.registry import Registry
from voicecall_calls import plugin as phone
from voicecall_gateway.cli import run
from voicecall_gateway.jsonfile import parse_tree

pytestmark = pytest.mark.integration

OLD = """\
// my phone
{
  messages: { tts: { provider: 'loud' } },
  plugins: {
    entries: {
      'voice-call': {
        config: {
          provider: 'log', // try it first
          some: {
            from: '+15550001111', // the office
            sid: 'x',
          },
          streaming: { sttProvider: 'vend', vendApiKey: '${VEND_KEY}' },
        },
      },
    },
  },
}
"""
NEW = {
    "tts": {"provider": "loud"},
    "plugins": {
        "entries": {
            "voice-call": {
                "config": {
                    "provider": "mock",
                    "some": {"sid": "x"},
                    "streaming": {
                        "provider": "vend",
                        "providers": {"vend": {"apiKey": "${VEND_KEY}"}},
                    },
                    "fromNumber": "+15550001111",
                }
            }
        }
    },
}


class Clinic:
    """Runs the doctor on a home directory."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = home / "config.json5"
        self.state = home / "state"
        self.extra: list[tuple[str, str, object]] = [
            ("voicecall.gateway", "voice-call", phone),
            ("voicecall.telephony", "mock", voicecall_mock.plugin),
        ]
        self.environ = {
            "HOME": str(home),
            "VOICECALL_CONFIG": str(self.file),
            "VOICECALL_STATE_DIR": str(self.state),
            "VEND_KEY": "sesame-sesame",
        }
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        code = run(["doctor", *arguments], Registry(entries=[], extra=self.extra), self.environ)
        output = self._capsys.readouterr()
        assert output.err == ""
        assert "sesame" not in output.out
        return code, output.out

    def json(self, *arguments: str) -> dict[str, Any]:
        code, out = self(*arguments, "--json")
        report: dict[str, Any] = json.loads(out)
        assert code == (0 if report["ok"] else 1)
        return report


@pytest.fixture
def clinic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Clinic:
    return Clinic(tmp_path, capsys)


def test_all_is_well(clinic: Clinic) -> None:
    clinic.file.write_text("{}")
    assert clinic.json() == {"ok": True, "issues": []}
    assert clinic("--fix") == (0, "voicecall doctor: OK\n")
    assert clinic.file.read_text() == "{}"


def test_old_keys_are_listed_and_rewritten(clinic: Clinic) -> None:
    clinic.file.write_text(OLD)
    report = clinic.json()
    root = "plugins.entries.voice-call.config"
    assert [(issue["path"], issue["replacement"]) for issue in report["issues"]] == [
        ("messages.tts", "tts"),
        (f"{root}.provider", f"{root}.provider"),
        (f"{root}.some.from", f"{root}.fromNumber"),
        (f"{root}.streaming.sttProvider", f"{root}.streaming.provider"),
        (f"{root}.streaming.vendApiKey", f"{root}.streaming.providers.vend.apiKey"),
    ]
    assert clinic.file.read_text() == OLD
    fixed = clinic.json("--fix")
    assert (fixed["ok"], fixed["issues"], fixed["notes"]) == (True, [], [])
    assert fixed["fixed"] == report["issues"]
    assert Path(fixed["backup"]).read_text() == OLD
    text = clinic.file.read_text()
    assert parse_tree(text, "c") == NEW
    for kept in ("// my phone", '"mock", // try it first', "sid: 'x',"):
        assert kept in text
    assert "${VEND_KEY}" in text
    assert clinic.json() == {"ok": True, "issues": []}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_file_that_cannot_be_edited_is_written_anew(clinic: Clinic, end: bytes) -> None:
    # An escape in a key: valid, and never seen.
    text = OLD.replace("messages:", "'\\u006dessages':").encode().replace(b"\n", end)
    clinic.file.write_bytes(text)
    report = clinic.json("--fix")
    assert report["ok"]
    assert "without its comments" in report["notes"][0]
    assert Path(report["backup"]).read_bytes() == text
    written = clinic.file.read_bytes()
    assert json.loads(written) == NEW
    assert written.count(b"\r\n") == (written.count(b"\n") if end == b"\r\n" else 0)


def test_blocks_that_held_only_old_keys_are_removed(clinic: Clinic) -> None:
    clinic.file.write_text(
        """\
{
  messages: {
    tts: { provider: 'loud' },
  },
  logs: {},
  plugins: { entries: { 'voice-call': { config: {
    realtime: { agentContext: { includeSystemPrompt: true } }, // our voice
    some: { from: '+15550001111' },
    streaming: { sttModel: 'm', providers: {} },
    tts: { enabled: true },
  } } } },
}
"""
    )
    report = clinic.json("--fix")
    assert (report["ok"], report["notes"]) == (True, [])
    text = clinic.file.read_text()
    # A block of a provider may be why it is chosen.
    kept: dict[str, Any] = {"some": {}, "streaming": {"providers": {}}}
    config = {**kept, "fromNumber": "+15550001111"}
    assert parse_tree(text, "c") == {
        "logs": {},
        "plugins": {"entries": {"voice-call": {"config": config}}},
        "tts": {"provider": "loud"},
    }
    # Nothing but old keys.
    clinic.file.write_text("{plugins: {entries: {'voice-call': {config: {tts: {enabled: true}}}}}}")
    assert clinic.json("--fix")["ok"]
    emptied: dict[str, Any] = {"plugins": {"entries": {"voice-call": {"config": {}}}}}
    assert parse_tree(clinic.file.read_text(), "c") == emptied


def test_toml_is_left_to_the_operator(clinic: Clinic, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[messages.tts]\nprovider = 'loud'\n")
    code, out = clinic("--fix", "--config", str(file))
    assert code == 1
    assert "note: " in out
    assert "write the new keys yourself" in out
    assert "issue: messages.tts is an old key: write tts instead" in out
    assert file.read_text() == "[messages.tts]\nprovider = 'loud'\n"


def test_broken_plugins_and_wrong_values(clinic: Clinic, fake_plugin: Any) -> None:
    clinic.extra.append(("voicecall.gateway", "broken", fake_plugin("other")))
    clinic.file.write_text("{plugins: {entries: {'voice-call': {config: {maxCals: 1}}}}}")
    messages = [issue["message"] for issue in clinic.json("--fix")["issues"]]
    assert any(text.startswith("the plugin 'broken' calls itself 'other'") for text in messages)
    assert any("config.maxCals: unknown key" in text for text in messages)
    clinic.file.write_text("{a: }")
    (issue,) = clinic.json()["issues"]
    assert issue["path"] == str(clinic.file)
    assert "is not valid JSON5" in issue["message"]
    clinic.file.write_text("{gateway: {prot: 1}, messages: {tts: {}}}")
    assert [i["path"] for i in clinic.json()["issues"]] == ["messages.tts", str(clinic.file)]


def test_fix_is_recommended_where_it_fixes_something(clinic: Clinic) -> None:
    hint = "voicecall doctor: run it with --fix to fix what can be fixed\n"
    clinic.file.write_text("{gateway: {prot: 1}}")
    code, out = clinic()
    assert (code, out.count("\n")) == (1, 1)
    clinic.file.write_text("{gateway: {prot: 1}, messages: {tts: {}}}")
    assert clinic()[1].endswith(hint)
    clinic.file.write_text("{}")
    clinic.state.mkdir()
    clinic.state.chmod(0o755)
    assert clinic()[1].endswith(hint)
    assert hint not in clinic("--fix")[1]


def test_files_that_others_can_read(clinic: Clinic) -> None:
    clinic.file.write_text("{}")
    clinic.state.mkdir()
    token = clinic.state / "gateway-token"
    token.write_text("t-t-t-t\n")
    clinic.state.chmod(0o750)
    token.chmod(0o644)
    messages = [issue["message"] for issue in clinic.json()["issues"]]
    assert messages == [
        f"{clinic.state} can be used by others: chmod 700 it",
        f"{token} can be used by others: chmod 600 it",
    ]
    code, out = clinic("--fix")
    assert code == 0
    assert out.splitlines() == [*(f"fixed: {text}" for text in messages), "voicecall doctor: OK"]
    assert (clinic.state.stat().st_mode & 0o777, token.stat().st_mode & 0o777) == (0o700, 0o600)
    token.chmod(0o200)
    assert "cannot be used by its owner" in clinic.json()["issues"][0]["message"]


def test_a_mode_that_cannot_be_changed(clinic: Clinic) -> None:
    clinic.file.write_text("{}")
    # It belongs to this process, and has the mode that the system gives it.
    clinic.environ["VOICECALL_STATE_DIR"] = "/proc/self/task"
    code, out = clinic("--fix")
    assert code == 1
    assert out.splitlines() == [
        "note: /proc/self/task: its mode cannot be changed: Operation not permitted",
        "issue: /proc/self/task can be used by others: chmod 700 it",
    ]


def test_a_configuration_with_credentials_that_everybody_can_read(clinic: Clinic) -> None:
    block = "carriers: {x: {authToken: 'open-sesame'}}"
    backup = clinic.file.with_name("config.json5.bak")
    for path in (clinic.file, backup):
        path.write_text(f"{{plugins: {{entries: {{'voice-call': {{config: {{{block}}}}}}}}}}}")
    clinic.file.chmod(0o644)
    backup.chmod(0o640)
    message = f"{clinic.file} holds credentials and can be used by every user: chmod o= it"
    assert [i["message"] for i in clinic.json()["issues"] if "chmod" in i["message"]] == [message]
    backup.chmod(0o604)
    fixed = [issue["path"] for issue in clinic.json("--fix")["fixed"]]
    assert fixed == [str(clinic.file), str(backup)]
    modes = [path.stat().st_mode & 0o777 for path in (clinic.file, backup)]
    assert modes == [0o640, 0o600]
    # References are no credentials.
    clinic.file.write_text("{gateway: {auth: {token: '${VEND_KEY}'}}}")
    clinic.file.chmod(0o644)
    assert clinic.json()["ok"]
    for password, ok in (("open-sesame", False), ("${VEND_KEY}", True)):
        calls = f"store: {{url: 'postgresql://phone:{password}@db.example/calls'}}"
        clinic.file.write_text(f"{{plugins: {{entries: {{x: {{config: {{a: [{{{calls}}}]}}}}}}}}}}")
        issues = [issue["message"] for issue in clinic.json()["issues"]]
        assert (message not in issues) is ok


def test_a_state_directory_that_is_none(clinic: Clinic) -> None:
    clinic.file.write_text("{}")
    clinic.state.write_text("")
    assert "is not a directory" in clinic.json("--fix")["issues"][0]["message"]


def test_a_state_directory_that_cannot_be_looked_at(clinic: Clinic) -> None:
    clinic.file.write_text("{}")
    clinic.state = clinic.state.with_name("s" * 300)
    clinic.environ["VOICECALL_STATE_DIR"] = str(clinic.state)
    assert [issue["message"] for issue in clinic.json("--fix")["issues"]] == [
        f"{clinic.state} cannot be looked at: File name too long"
    ]
