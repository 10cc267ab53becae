"""Configuration block ``agents.backends.pydantic-ai``."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from voicecall.configuring import ConfigModel, HttpUrl

__all__ = ["BACKEND_ID", "BACKEND_PATH", "LlmConfig", "McpServerConfig"]

BACKEND_ID = "pydantic-ai"
BACKEND_PATH = f"agents.backends.{BACKEND_ID}"

_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

ServerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,24}$")]


class McpServerConfig(ConfigModel):
    """An MCP server: ``url`` for a running one (streamable HTTP, or SSE if it ends in
    ``/sse``), ``command`` for one to start and use over standard input and output."""

    url: HttpUrl | None = None
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    command: str | None = Field(default=None, min_length=1)
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _one_way(self) -> McpServerConfig:
        if (self.url is None) == (self.command is None):
            raise ValueError("needs either url or command")
        if self.url is not None and (self.args or self.env):
            raise ValueError("args and env belong to a command")
        if self.command is not None and self.headers:
            raise ValueError("headers belong to a url")
        return self


class LlmConfig(ConfigModel):
    """``model`` is ``provider:model`` or ``provider/model``, split at the first ``:`` or ``/``;
    without a provider it is OpenAI's. Other models without a provider, such as ``responseModel``,
    have the same provider as ``model``."""

    model: str = Field(
        min_length=1,
        description="provider:model or provider/model; default: the model of `agents.defaults`",
    )
    base_url: HttpUrl | None = Field(default=None, description="Address of the provider's API")
    api_key: str | None = Field(
        default=None,
        repr=False,
        description="API key of the provider; default: its usual environment variable",
    )
    instructions: str | None = Field(
        default=None,
        description="Instructions that replace the built-in ones",
    )
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(
        default=None, ge=1, description="Longest answer of the model, in tokens"
    )
    timeout_ms: int = Field(
        default=15_000,
        ge=100,
        le=600_000,
        description="How long the model may be silent, and how long a tool may take",
    )
    tools: tuple[str, ...] = Field(
        default=(), description="Python functions the model may call, as package.module:function"
    )
    mcp_servers: dict[ServerName, McpServerConfig] = Field(
        default_factory=dict,
        description="MCP servers by name, which prefixes the names of their tools",
    )
    max_history_turns: int = Field(
        default=40, ge=0, le=1000, description="Turns of a session that the model remembers"
    )
    history_days: int = Field(
        default=365, ge=1, le=36_500, description="Days after which a turn is forgotten for good"
    )
    spoken_contract: bool = Field(
        default=False, description='Ask the model for {"spoken": "…"} instead of plain text'
    )

    @field_validator("tools")
    @classmethod
    def _import_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            if not _IMPORT_PATH.fullmatch(path):
                raise ValueError(f"{path!r} is not of the form package.module:function")
        return value
