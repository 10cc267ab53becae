"""Configuration of calls held by a full-duplex voice model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from voicecall.agent import ThinkingLevel
from voicecall.configuring import ConfigModel, UrlPath

__all__ = [
    "AgentContextConfig",
    "FastContextConfig",
    "RealtimeConfig",
    "RealtimeToolConfig",
    "RealtimeToolParameters",
]

_FILES = ("SOUL.md", "IDENTITY.md", "USER.md")


class RealtimeToolParameters(ConfigModel):
    """Parameters of a function tool: the outer object of a JSON schema."""

    type: Literal["object"]
    properties: dict[str, Any]
    required: tuple[str, ...] = ()


class RealtimeToolConfig(ConfigModel):
    """A function tool of the voice model."""

    type: Literal["function"]
    name: str = Field(min_length=1)
    description: str
    parameters: RealtimeToolParameters


class FastContextConfig(ConfigModel):
    """A search of memory and sessions before the agent is consulted."""

    enabled: bool = False
    timeout_ms: PositiveInt = 800
    max_results: PositiveInt = 3
    sources: tuple[Literal["memory", "sessions"], ...] = Field(
        default=("memory", "sessions"), min_length=1
    )
    fallback_to_consult: bool = False


class AgentContextConfig(ConfigModel):
    """What the voice model learns about the agent's identity and files, once per session."""

    enabled: bool = False
    max_chars: PositiveInt = 6000
    include_identity: bool = True
    include_workspace_files: bool = True
    files: tuple[str, ...] = _FILES


class RealtimeConfig(ConfigModel):
    """A full-duplex voice model over a media socket.

    ``instructions`` replaces the built-in ones. ``toolPolicy`` says which tools the agent may use
    when the model consults it (``none``: the model cannot), ``consultPolicy`` how often the model
    is instructed to. A call without caller audio for ``inactivityMs`` (0: no limit) plus 2 s is
    ended; one on which neither side speaks for ``idleHangupMs`` ends with ``phrases.goodbye``.
    """

    enabled: bool = False
    provider: str | None = Field(default=None, min_length=1)
    stream_path: UrlPath | None = None
    instructions: str | None = Field(default=None, min_length=1)
    tool_policy: Literal["safe-read-only", "owner", "none"] = "safe-read-only"
    consult_policy: Literal["auto", "substantive", "always"] = "auto"
    consult_thinking_level: ThinkingLevel | None = None
    consult_fast_mode: bool | None = None
    tools: tuple[RealtimeToolConfig, ...] = ()
    fast_context: FastContextConfig = Field(default_factory=FastContextConfig)
    agent_context: AgentContextConfig = Field(default_factory=AgentContextConfig)
    inactivity_ms: int = Field(default=30_000, ge=0)
    idle_hangup_ms: PositiveInt | None = None
    providers: dict[str, dict[str, Any]] = Field(default_factory=dict)
