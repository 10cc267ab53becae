"""``voicecall plugins enable`` and ``disable``: the file is edited, not rewritten."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from voicecall.errors import ConfigError
from voicecall.registry import Registry
from voicecall_gateway.cli import run
from voicecall_gateway.configfile import write_text
from voicecall_gateway.jsonfile import read_tree

pytestmark = pytest.mark.integration


class Desk:
    """Runs the two commands on a file."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str], plugin: Any) -> None:
        self.file = home / "config.json5"
        self.environ = {"HOME": str(home), "VOICECALL_CONFIG": str(self.file)}
        self._registry = Registry(entries=[], extra=[("voicecall.gateway", "phone", plugin)])
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = run(["plugins", *arguments], self._registry, self.environ)
        output = self._capsys.readouterr()
        return code, output.out, output.err

    def enabled(self) -> bool:
        rows = json.loads(self("list", "--json")[1])["plugins"]
        return bool(rows[0]["enabled"])


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], fake_plugin: Any) -> Desk:
    return Desk(tmp_path, capsys, fake_plugin("phone"))


def test_comments_mode_and_the_old_text_are_kept(desk: Desk) -> None:
    text = "// mine\n{\n  tts: {}, // voice\n}\n"
    desk.file.write_text(text)
    desk.file.chmod(0o640)
    assert desk("disable", "phone") == (0, f"phone is disabled in {desk.file}\n", "")
    assert not desk.enabled()
    now = desk.file.read_text()
    assert now.startswith("// mine\n{\n  tts: {}, // voice\n  plugins: {\n")
    assert desk.file.stat().st_mode & 0o777 == 0o640
    backup = desk.file.with_name("config.json5.bak")
    assert (backup.read_text(), backup.stat().st_mode & 0o777) == (text, 0o640)
    assert desk("disable", "phone") == (0, "phone is disabled already\n", "")
    assert desk("enable", "phone")[0] == 0
    assert desk.enabled()
    assert desk.file.read_text() == now.replace("enabled: false", "enabled: true")
    assert sorted(os.listdir(desk.file.parent)) == ["config.json5", "config.json5.bak"]


@pytest.mark.parametrize(
    "plugins",
    [
        {"deny": ["other", "phone"]},
        {"allow": ["other"]},
        {"allow": [], "deny": ["phone"], "entries": {"phone": {"enabled": False}}},
    ],
)
def test_lists_that_keep_a_plugin_out(desk: Desk, plugins: dict[str, Any]) -> None:
    desk.file.write_text(json.dumps({"plugins": plugins}))
    assert not desk.enabled()
    code, out, err = desk("enable", "phone", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "id": "phone",
        "enabled": True,
        "changed": True,
        "file": str(desk.file),
        "backup": f"{desk.file}.bak",
    }
    assert desk.enabled()
    assert "other" in desk.file.read_text() or "other" not in json.dumps(plugins)
    assert json.loads(desk.file.with_name("config.json5.bak").read_text()) == {"plugins": plugins}


def test_unknown_plugins(desk: Desk) -> None:
    desk.file.write_text("{plugins: {entries: {gone: {}}}}")
    code, _, err = desk("enable", "phnoe")
    assert code == 1
    assert "did you mean 'phone'?" in err
    assert desk("enable", "gone")[0] == 1
    assert desk("disable", "gone")[0] == 0
    assert read_tree(desk.file)["plugins"]["entries"]["gone"] == {"enabled": False}


def test_files_that_are_not_edited_say_what_to_write(desk: Desk, tmp_path: Path) -> None:
    desk.file.write_text("{plugins: {entries: {'\\u0070hone': {}}}}")
    before = desk.file.read_text()
    code, _, err = desk("disable", "phone")
    assert code == 1
    assert "write it yourself: plugins.entries.phone.enabled = false" in err
    assert desk.file.read_text() == before
    toml = tmp_path / "config.toml"
    toml.write_text("[tts]\n")
    code, _, err = desk("disable", "phone", "--config", str(toml))
    assert code == 1
    assert err.startswith(f"{toml}: is TOML, which voicecall does not edit; write it yourself: ")
    assert "plugins.entries.phone.enabled = false" in err


def test_a_default_file_is_made(desk: Desk, tmp_path: Path) -> None:
    del desk.environ["VOICECALL_CONFIG"]
    assert desk("disable", "phone")[0] == 0
    file = tmp_path / ".voicecall" / "config.json5"
    assert read_tree(file)["plugins"]["entries"]["phone"]["enabled"] is False
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(real)
    assert write_text(link, "new") == tmp_path / "real.bak"
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_text(tmp_path / "file" / "config.json5", "{}")
