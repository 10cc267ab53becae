"""Toolsets whose failures do not fail the answer to the caller."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import anyio
from pydantic_ai import RunContext
from pydantic_ai.exceptions import AgentRunError, ModelRetry, ToolFailed, UserError
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset

from voicecall.agent import AgentTurn
from voicecall_agents.llm.config import McpServerConfig

__all__ = ["GuardedToolset", "guarded_server"]

_log = logging.getLogger("voicecall.agents")
_CONNECT_S = 5.0
_PROBE_S = 2.0
_TRY_AGAIN_S = 30.0

Toolset = AbstractToolset[AgentTurn]


@dataclass
class GuardedToolset(WrapperToolset[AgentTurn]):
    """A server that cannot be reached offers no tools; the first turn after a while reconnects. If
    a tool raises, or takes longer than ``timeout_s``, the model is told so.

    ``make`` creates the wrapped toolset; ``probe`` raises if its connection is broken. The original
    lives as long as the backend and holds the connection; each run works with a copy of it.
    """

    path: str
    timeout_s: float
    make: Callable[[], Toolset]
    probe: Callable[[Toolset], Awaitable[None]] | None = None
    original: GuardedToolset | None = None
    connected: bool = False
    broken: bool = False
    not_before: float = -math.inf
    """The earliest time of the next connection attempt, on the event loop's clock."""

    async def for_run(self, ctx: RunContext[AgentTurn]) -> Toolset:
        """A copy that uses the connection of the original."""
        if (self.broken or not self.connected) and anyio.current_time() >= self.not_before:
            await self._renew()
        wrapped = await self.wrapped.for_run(ctx)
        return replace(self, wrapped=wrapped, original=self, connected=False)

    async def _renew(self) -> None:
        old, self.wrapped = self.wrapped, self.make()
        was_connected, self.connected, self.broken = self.connected, False, False
        # Runs that start while this one connects go on without the tools.
        self.not_before = anyio.current_time() + _TRY_AGAIN_S
        if was_connected:
            await self._close(old)
        await self.__aenter__()

    async def _close(self, toolset: Toolset) -> None:
        try:
            await toolset.__aexit__(None, None, None)
        except Exception as error:  # noqa: BLE001 (clients of MCP raise anything)
            _log.info("%s: closed with an error: %s", self.path, error)

    async def __aenter__(self) -> Self:
        if self.original is not None and not self.original.connected:
            return self
        try:
            await self.wrapped.__aenter__()
            self.connected = True
        except Exception as error:  # noqa: BLE001 (clients of MCP raise anything)
            self.not_before = anyio.current_time() + _TRY_AGAIN_S
            _log.warning("%s: no tools from there: %s", self.path, error)
        return self

    async def __aexit__(self, *args: Any) -> None:
        if self.connected:
            self.connected = False
            await self._close(self.wrapped)

    async def get_tools(self, ctx: RunContext[AgentTurn]) -> dict[str, ToolsetTool[AgentTurn]]:
        if not self.connected:
            return {}
        try:
            return await super().get_tools(ctx)
        except Exception as error:  # noqa: BLE001 (clients of MCP raise anything)
            _log.warning("%s: no tools from there: %s", self.path, error)
            await self._look_whether_broken()
            return {}

    async def call_tool(
        self,
        name: str,
        tool_args: dict[str, Any],
        ctx: RunContext[AgentTurn],
        tool: ToolsetTool[AgentTurn],
    ) -> Any:
        try:
            with anyio.move_on_after(self.timeout_s):
                return await super().call_tool(name, tool_args, ctx, tool)
            _log.warning("tool %s of %s takes longer than %g s", name, self.path, self.timeout_s)
            raise ToolFailed(f"The tool took longer than {self.timeout_s:g} s.")
        except (ToolFailed, ModelRetry):
            await self._look_whether_broken()
            raise
        except (AgentRunError, UserError):
            raise
        except (Exception, SystemExit) as error:
            _log.exception("tool %s of %s failed", name, self.path)
            await self._look_whether_broken()
            raise ToolFailed(f"The tool failed: {type(error).__name__}.") from error

    async def _look_whether_broken(self) -> None:
        original = self.original or self
        if self.probe is None or self.wrapped is not original.wrapped:
            return
        try:
            with anyio.fail_after(_PROBE_S):
                await self.probe(self.wrapped)
        except Exception as error:  # noqa: BLE001 (clients of MCP raise anything)
            _log.warning("%s: the connection is broken: %s", self.path, error)
            original.broken = True
            original.not_before = -math.inf


def guarded_server(
    name: str, server: McpServerConfig, path: str, timeout_s: float
) -> GuardedToolset:
    """The tools of an MCP server, with ``name`` as a prefix of their names; ``path`` is the
    server's path in the configuration."""
    # Imported only when used: it takes longer than everything else together.
    from fastmcp.client.transports import StdioTransport
    from pydantic_ai.mcp import MCPToolset

    def make() -> Toolset:
        if server.url is not None:
            client: Any = server.url
        else:
            assert server.command is not None
            client = StdioTransport(server.command, list(server.args), dict(server.env) or None)
        toolset: MCPToolset[AgentTurn] = MCPToolset(
            client,
            id=name,
            init_timeout=_CONNECT_S,
            read_timeout=timeout_s,
            tool_error_behavior="failed",
            headers=dict(server.headers) or None,
        )
        return toolset.prefixed(name)

    async def probe(toolset: Toolset) -> None:
        found: list[Toolset] = []
        toolset.apply(found.append)
        for leaf in found:
            if isinstance(leaf, MCPToolset):
                await leaf.client.list_tools()

    return GuardedToolset(make(), path, timeout_s, make, probe)
