"""Which agent answers calls: the ``agents`` section, in its own shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voicecall.errors import ConfigError

__all__ = ["AgentChoice", "choose_agent"]


@dataclass(frozen=True, slots=True)
class AgentChoice:
    """``backend`` is None where the configuration names none."""

    agent_id: str
    backend: str | None
    backends: Mapping[str, Mapping[str, Any]]


def choose_agent(section: Mapping[str, Any], configured_id: str | None) -> AgentChoice:
    """The agent of a call plugin. Raises ``ConfigError`` for an id that is not in the list."""
    entries = [entry for entry in section.get("list", ()) if isinstance(entry, Mapping)]
    by_id = {str(entry.get("id", "")).strip().lower(): entry for entry in entries}
    if configured_id is not None:
        agent_id = configured_id.strip().lower()
        if by_id and agent_id not in by_id:
            known = ", ".join(sorted(by_id))
            raise ConfigError(
                f"no agent {agent_id!r} in agents.list (there are: {known})",
                path="plugins.entries.voice-call.config.agentId",
            )
    else:
        default = next((key for key, entry in by_id.items() if entry.get("default")), None)
        agent_id = default or next(iter(by_id), "main")
    defaults = section.get("defaults", {})
    entry = by_id.get(agent_id, {})
    backend = entry.get("backend") or defaults.get("backend")
    backends = section.get("backends", {})
    return AgentChoice(agent_id, str(backend) if backend else None, backends)
