"""The plugin of the how-to guide, extracted from its page and run in a gateway."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from voicecall.errors import InvalidRequest
from voicecall.hosting import RpcCall, ToolCall
from voicecall.registry import Registry
from voicecall_gateway.cli import run
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.runtime import Gateway

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "gateway-plugin.md"
FILE = re.compile(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def files() -> dict[str, str]:
    return dict(FILE.findall(PAGE.read_text(encoding="utf-8")))


@pytest.fixture
def module(files: dict[str, str], tmp_path: Path) -> ModuleType:
    file = tmp_path / "voicecall_hours.py"
    file.write_text(files[file.name], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("voicecall_hours", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def registry(module: ModuleType) -> Registry:
    return Registry(entries=[], extra=[("voicecall.gateway", "hours", module)])


def test_the_entry_point_names_the_module(files: dict[str, str]) -> None:
    assert set(files) == {"pyproject.toml", "voicecall_hours.py"}
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["entry-points"]["voicecall.gateway"] == {"hours": "voicecall_hours"}


async def test_it_does_in_a_gateway_what_the_page_says(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"config": {"sunday": "from ten until two"}}
    tree = {"gateway": {"port": 0}, "plugins": {"entries": {"hours": entry}}}
    loaded = config_from_tree(tree, environ={}, state_dir=tmp_path)
    async with Gateway(loaded, registry).run() as gateway:
        assert await gateway.wait_started() == []
        tool = gateway.host.tools["opening_hours"]
        answer = await tool.handler({"day": "Sunday"}, ToolCall(frozenset()))
        assert answer == {"hours": "from ten until two"}
        method = gateway.host.methods["hours.get"]
        caller = RpcCall("test", frozenset())
        assert await method.handler({"day": "monday"}, caller) == {"hours": "from eight until six"}
        with pytest.raises(InvalidRequest):
            await method.handler({}, caller)
        record: Any = SimpleNamespace(remote_number="+15550003333", end_reason="hangup-user")
        gateway.host.observe_end(record)
    assert "+15550003333 called, hangup-user\n" in capsys.readouterr().out


def test_setup_shows_its_line_while_it_is_on(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.json5"
    environ = {"HOME": str(tmp_path), "VOICECALL_CONFIG": str(file)}
    file.write_text("{}")
    assert run(["setup"], registry, environ) == 0
    assert "OK hours: weekdays: from eight until six\n" in capsys.readouterr().out
    file.write_text("{plugins: {entries: {hours: {enabled: false}}}}")
    run(["setup"], registry, environ)
    assert "OK hours" not in capsys.readouterr().out
