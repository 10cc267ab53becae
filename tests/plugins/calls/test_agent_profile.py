"""The agent's profile for a voice model: identity, workspace files, limits, configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voicecall.errors import ConfigError
from voicecall_calls.agentprofile import AgentProfile
from voicecall_calls.agents import AgentDirectory
from voicecall_calls.realtimeconfig import AgentContextConfig
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime

from .realtime_room import open_realtime

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

IDENTITY = {"name": "Mira", "emoji": "🦉", "vibe": "calm", "theme": "night", "creature": "owl"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "SOUL.md").write_text("You like tea.\n")
    (root / "USER.md").write_text("The owner is Ann.\n")
    return root


def config(**values: Any) -> AgentContextConfig:
    return AgentContextConfig.model_validate({"enabled": True, **values})


async def test_identity_and_files(workspace: Path) -> None:
    text = await AgentProfile(IDENTITY, workspace).told(config())
    for part in ("Name: Mira", "Creature: owl", "SOUL.md", "You like tea.", "The owner is Ann."):
        assert part in text
    assert "IDENTITY.md" not in text


async def test_each_part_can_be_left_out(workspace: Path) -> None:
    profile = AgentProfile(IDENTITY, workspace)
    assert await profile.told(AgentContextConfig()) == ""
    assert "tea" not in await profile.told(config(includeWorkspaceFiles=False))
    assert "Mira" not in await profile.told(config(includeIdentity=False))
    assert await profile.told(config(includeIdentity=False, files=["USER.md"])) == (
        "Your file USER.md:\nThe owner is Ann."
    )
    assert await AgentProfile().told(config()) == ""


@pytest.mark.parametrize("longest", [1, 11, 12, 40, 90])
async def test_the_whole_is_bounded_and_says_that_it_was_cut(workspace: Path, longest: int) -> None:
    text = await AgentProfile(IDENTITY, workspace).told(config(maxChars=longest))
    assert len(text) <= longest
    if longest > 12:
        assert text.endswith(" [truncated]")
        assert text.startswith("Who you are:")


async def test_a_changed_file_is_read_again(workspace: Path) -> None:
    profile = AgentProfile({}, workspace)
    assert "tea" in await profile.told(config())
    (workspace / "SOUL.md").write_text("You like coffee.")
    assert "coffee" in await profile.told(config())


async def test_nothing_from_outside_of_the_workspace_is_read(workspace: Path) -> None:
    secret = workspace.parent / "secret.md"
    secret.write_text("A secret.")
    (workspace / "link.md").symlink_to(secret)
    (workspace / "folder").mkdir()
    names = ["../secret.md", str(secret), "link.md", "folder", "none.md", "\0", "SOUL.md"]
    text = await AgentProfile({}, workspace).told(config(files=names))
    assert text == "Your file SOUL.md:\nYou like tea."


async def test_a_workspace_that_is_not_there(tmp_path: Path) -> None:
    assert await AgentProfile({}, tmp_path / "gone").told(config()) == ""


async def test_text_that_is_no_text_is_read_as_far_as_it_is(workspace: Path) -> None:
    (workspace / "SOUL.md").write_bytes(b"\xff tea")
    assert "tea" in await AgentProfile({}, workspace).told(config(files=["SOUL.md"]))


async def test_the_model_is_told_once_a_session(workspace: Path) -> None:
    model = ScriptedRealtime()
    realtime = {"agentContext": {"enabled": True}, "instructions": "Be brief."}
    async with open_realtime(
        workspace.parent, model, profile=AgentProfile(IDENTITY, workspace), realtime=realtime
    ) as phone:
        await phone.dial()
        await phone.answer()
        await phone.settle(0.1)
        text = model.current.options.instructions
        assert text.startswith("Be brief.\nWho you are:\nName: Mira")
        assert text.count("You like tea.") == 1


# --- the configuration ------------------------------------------------------------------------


def test_the_profile_of_an_agent(tmp_path: Path) -> None:
    section = {
        "defaults": {"workspace": str(tmp_path)},
        "list": [
            {"id": "Mira", "identity": {**IDENTITY, "avatar": "owl.png"}},
            {"id": "other", "workspace": "~/other", "identity": {"name": " "}},
        ],
    }
    directory = AgentDirectory(section)
    assert directory.profile("mira") == AgentProfile(IDENTITY, tmp_path)
    assert directory.profile("other") == AgentProfile({}, Path("~/other"))
    assert AgentDirectory({}).profile("main") == AgentProfile()


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({"workspace": 3}, "agents.list.0.workspace"),
        ({"identity": []}, "agents.list.0.identity"),
        ({"identity": {"name": 3}}, "agents.list.0.identity.name"),
    ],
)
def test_a_profile_of_another_shape(entry: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AgentDirectory({"list": [{"id": "mira", **entry}]})
    assert path in str(caught.value)
