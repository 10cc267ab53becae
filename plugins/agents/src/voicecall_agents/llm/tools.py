"""What the model may do besides talking: functions, MCP servers, ending the call."""

from __future__ import annotations

import functools
import importlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import anyio
from pydantic_ai import RunContext, Tool
from pydantic_ai.exceptions import AgentRunError, ModelRetry, ToolFailed, UserError
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset, ToolsetTool, WrapperToolset

from voicecall.agent import AgentTurn
from voicecall.errors import ConfigError
from voicecall_agents.llm.config import BACKEND_PATH, LlmConfig, McpServerConfig
from voicecall_agents.llm.prompts import END_CALL_NAMES, base_text

__all__ = ["GuardedToolset", "make_toolsets"]

_log = logging.getLogger("voicecall.agents")
_CONNECT_S = 5.0
_TRY_AGAIN_S = 30.0
_ENDING = "The call ends as soon as your goodbye was heard."


def make_toolsets(config: LlmConfig) -> Sequence[AbstractToolset[AgentTurn]]:
    """Everything that is configured, and the tool that ends the call. Raises
    :exc:`ConfigError`."""
    toolsets: list[AbstractToolset[AgentTurn]] = [
        FunctionToolset([_end_call(config, name) for name in END_CALL_NAMES])
    ]
    if config.tools:
        toolsets.append(GuardedToolset(_functions(config.tools), f"{BACKEND_PATH}.tools"))
    for name, server in config.mcp_servers.items():
        path = f"{BACKEND_PATH}.mcpServers.{name}"
        served = _mcp_toolset(name, server, config.timeout_ms / 1000)
        toolsets.append(GuardedToolset(served.prefixed(name), path))
    return toolsets


def _end_call(config: LlmConfig, name: str) -> Tool[AgentTurn]:
    def end_call(reason: str = "") -> str:
        """End the phone call. Say goodbye in the same answer, before you call this.

        Args:
            reason: Why the call ends, in a few words.
        """
        return _ENDING

    async def named_in_prompt(
        context: RunContext[AgentTurn], definition: ToolDefinition
    ) -> ToolDefinition | None:
        return definition if name in base_text(config, context.deps) else None

    # An old name is offered only where a prompt speaks of it.
    old = name != END_CALL_NAMES[0]
    return Tool(end_call, name=name, takes_ctx=False, prepare=named_in_prompt if old else None)


def _functions(paths: Sequence[str]) -> FunctionToolset[AgentTurn]:
    functions = [_load(path, number) for number, path in enumerate(paths)]
    try:
        return FunctionToolset(functions)
    except Exception as error:  # noqa: BLE001 (types without a schema raise anything)
        raise ConfigError(f"not usable as tools: {error}", path=f"{BACKEND_PATH}.tools") from None


def _load(path: str, number: int) -> Callable[..., Any]:
    module_name, _, name = path.partition(":")
    where = f"{BACKEND_PATH}.tools.{number}"
    try:
        found = getattr(importlib.import_module(module_name), name)
    except ImportError as error:
        raise ConfigError(f"{path} cannot be imported: {error}", path=where) from None
    except AttributeError:
        raise ConfigError(f"{module_name} has no {name}", path=where) from None
    if not callable(found):
        raise ConfigError(f"{path} is not a function", path=where)
    function: Callable[..., Any] = found
    return function


def _mcp_toolset(
    name: str, server: McpServerConfig, read_timeout_s: float
) -> AbstractToolset[AgentTurn]:
    # An import of its own: it takes longer than all the rest.
    from fastmcp.client.transports import StdioTransport
    from pydantic_ai.mcp import MCPToolset

    make = functools.partial(
        MCPToolset,
        id=name,
        init_timeout=_CONNECT_S,
        read_timeout=read_timeout_s,
        tool_error_behavior="failed",
    )
    if server.url is not None:
        return make(server.url, headers=dict(server.headers) or None)
    assert server.command is not None
    return make(StdioTransport(server.command, list(server.args), dict(server.env) or None))


@dataclass(slots=True)
class _Trouble:
    """Until when (event loop's clock) a toolset is left alone."""

    until: float = -math.inf


@dataclass
class GuardedToolset(WrapperToolset[AgentTurn]):
    """Keeps the trouble of tools away from the caller: a server that cannot be reached offers no
    tools, and is tried again by the first turn after a while; a tool that raises tells the model
    that it failed. ``trouble`` is shared by the copies that runs work with."""

    path: str
    entered: bool = False
    trouble: _Trouble = field(default_factory=_Trouble)

    async def for_run(self, ctx: RunContext[AgentTurn]) -> AbstractToolset[AgentTurn]:
        """A copy, so that each run knows by itself whether it is connected."""
        return replace(self, wrapped=await self.wrapped.for_run(ctx), entered=False)

    async def __aenter__(self) -> Self:
        if anyio.current_time() < self.trouble.until:
            return self
        try:
            await self.wrapped.__aenter__()
            self.entered = True
        except Exception as error:  # noqa: BLE001 (clients of MCP raise anything)
            self.trouble.until = anyio.current_time() + _TRY_AGAIN_S
            _log.warning("%s: no tools from there: %s", self.path, error)
        return self

    async def __aexit__(self, *args: Any) -> bool | None:
        if not self.entered:
            return None
        self.entered = False
        return await self.wrapped.__aexit__(*args)

    async def get_tools(self, ctx: RunContext[AgentTurn]) -> dict[str, ToolsetTool[AgentTurn]]:
        if not self.entered:
            return {}
        try:
            return await super().get_tools(ctx)
        except Exception as error:  # noqa: BLE001 (clients of MCP raise anything)
            _log.warning("%s: no tools from there: %s", self.path, error)
            return {}

    async def call_tool(
        self,
        name: str,
        tool_args: dict[str, Any],
        ctx: RunContext[AgentTurn],
        tool: ToolsetTool[AgentTurn],
    ) -> Any:
        try:
            return await super().call_tool(name, tool_args, ctx, tool)
        except (ModelRetry, ToolFailed, AgentRunError, UserError):
            raise
        except Exception as error:
            _log.exception("tool %s of %s failed", name, self.path)
            raise ToolFailed(f"The tool failed: {type(error).__name__}.") from error
