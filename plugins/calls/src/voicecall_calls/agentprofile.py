"""The agent's profile: its identity in the configuration, and the files of its workspace."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from voicecall_calls.realtimeconfig import AgentContextConfig

__all__ = ["IDENTITY_KEYS", "AgentProfile"]

_log = logging.getLogger("voicecall.calls")

IDENTITY_KEYS = ("name", "emoji", "vibe", "theme", "creature")
_CUT = "[truncated]"
_LONGEST_READ_S = 2.0
_BYTES_PER_CHAR = 4


@dataclass(frozen=True, slots=True)
class AgentProfile:
    """``identity`` has some of :data:`IDENTITY_KEYS`; ``workspace`` is None if the configuration
    names none."""

    identity: Mapping[str, str] = field(default_factory=dict)
    workspace: Path | None = None

    async def told(self, config: AgentContextConfig) -> str:
        """The profile as text for a voice model, at most ``config.max_chars`` long; empty if that
        is off or there is nothing. Files are read each time, within a time limit."""
        if not config.enabled:
            return ""
        parts = list(self._identity()) if config.include_identity else []
        if config.include_workspace_files and self.workspace is not None:
            with anyio.move_on_after(_LONGEST_READ_S) as reading:
                parts += await anyio.to_thread.run_sync(
                    _read, self.workspace, config.files, config.max_chars, abandon_on_cancel=True
                )
            if reading.cancelled_caught:
                _log.warning("the agent's workspace could not be read in time")
        return _bounded("\n\n".join(parts), config.max_chars)

    def _identity(self) -> Iterator[str]:
        known = [(key, self.identity[key]) for key in IDENTITY_KEYS if key in self.identity]
        if known:
            lines = (f"{key.capitalize()}: {value}" for key, value in known)
            yield "\n".join(["Who you are:", *lines])


def _bounded(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    return text[: max(longest - len(_CUT) - 1, 0)].rstrip() + f" {_CUT}"[-longest:]


def _read(workspace: Path, names: Iterable[str], longest: int) -> list[str]:
    """The contents of the files that exist and lie inside the workspace."""
    found: list[str] = []
    try:
        root = workspace.expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as error:
        _log.warning("the agent's workspace cannot be read: %s", error)
        return found
    for name in names:
        try:
            path = (root / name).resolve()
            if not path.is_relative_to(root):
                _log.warning("%s is not in the agent's workspace and is ignored", name)
                continue
            if not path.is_file():
                continue
            with path.open("rb") as file:
                raw = file.read(longest * _BYTES_PER_CHAR)
        except (OSError, RuntimeError, ValueError) as error:
            _log.warning("the agent's file %s cannot be read: %s", name, error)
            continue
        text = raw.decode(errors="replace").strip()
        if text:
            found.append(f"Your file {name}:\n{text}")
    return found
