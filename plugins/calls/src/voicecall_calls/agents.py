"""Which agent answers calls: the ``agents`` section, in its own shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voicecall.errors import ConfigError

__all__ = ["AgentDirectory"]


class AgentDirectory:
    """``agents.defaults``, ``agents.list[]`` (``id``, ``default``, ``backend``, ``model``) and
    ``agents.backends`` (configuration of each backend, by its id)."""

    def __init__(self, section: Mapping[str, Any]) -> None:
        entries = [entry for entry in section.get("list") or () if isinstance(entry, Mapping)]
        self._entries = {str(entry.get("id", "")).strip().lower(): entry for entry in entries}
        self._defaults = section.get("defaults") or {}
        self.blocks: Mapping[str, Mapping[str, Any]] = section.get("backends") or {}

    def agent_id(self, configured: str | None) -> str:
        """``configured``, else the default agent. Raises ``ConfigError`` for one that is not in
        a list that there is."""
        if configured is None:
            marked = (key for key, entry in self._entries.items() if entry.get("default"))
            return next(marked, None) or next(iter(self._entries), "main")
        agent_id = configured.strip().lower()
        if self._entries and agent_id not in self._entries:
            known = ", ".join(sorted(self._entries))
            raise ConfigError(
                f"no agent {agent_id!r} in agents.list (there are: {known})",
                path="plugins.entries.voice-call.config.agentId",
            )
        return agent_id

    def backend(self, agent_id: str) -> str | None:
        """Id of the agent's backend; None where the configuration names none."""
        return self._text(agent_id, "backend")

    def model(self, agent_id: str) -> str | None:
        """The agent's model; None where the configuration names none."""
        return self._text(agent_id, "model")

    def _text(self, agent_id: str, key: str) -> str | None:
        for source in (self._entries.get(agent_id, {}), self._defaults):
            value = source.get(key)
            if isinstance(value, Mapping):
                value = value.get("primary")
            if isinstance(value, str) and value.strip():
                return value.strip()
        return None
