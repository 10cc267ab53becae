"""The model's tools: functions, MCP servers, ending the call and pressing keys."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pydantic_ai import ModelRetry, RunContext, Tool
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset

from voicecall.agent import AgentTurn
from voicecall.errors import ConfigError, InvalidRequest
from voicecall.tones import check_digits
from voicecall_agents.llm.config import BACKEND_PATH, LlmConfig
from voicecall_agents.llm.guarding import GuardedToolset, guarded_server
from voicecall_agents.llm.prompts import END_CALL_NAMES, PRESS_KEYS, base_text

__all__ = ["make_toolsets", "server_remarks", "tool_names", "tool_problems"]

_READ_ONLY = frozenset(
    {"read", "web_search", "web_fetch", "x_search", "memory_search", "memory_get"}
)
"""The tools of a turn under the policy ``safe-read-only``."""
_ENDING = "The call ends as soon as your goodbye was heard."


def make_toolsets(config: LlmConfig) -> Sequence[AbstractToolset[AgentTurn]]:
    """All configured tools, and the built-in ones that end the call and press keys. Raises
    :exc:`ConfigError`."""
    toolsets: list[AbstractToolset[AgentTurn]] = [
        FunctionToolset([*(_end_call(config, name) for name in END_CALL_NAMES), _press_keys()])
    ]
    timeout_s = config.timeout_ms / 1000
    if config.tools:
        functions = _functions(config.tools, timeout_s)
        guarded = GuardedToolset(functions, f"{BACKEND_PATH}.tools", timeout_s, lambda: functions)
        toolsets.append(guarded.filtered(_allowed))
    for name, server in config.mcp_servers.items():
        path = f"{BACKEND_PATH}.mcpServers.{name}"
        guarded = guarded_server(name, server, path, timeout_s)
        toolsets.append(guarded.filtered(_allowed))
    return toolsets


def tool_problems(config: LlmConfig) -> list[str]:
    """Why the functions of ``tools`` cannot be used. Their modules are imported."""
    try:
        _functions(config.tools, config.timeout_ms / 1000)
    except ConfigError as error:
        return [str(error)]
    return []


def server_remarks(config: LlmConfig) -> Iterator[str]:
    """Why MCP servers cannot be started: those whose program is not there."""
    for name, server in config.mcp_servers.items():
        command = server.command
        if command is None or shutil.which(command, path=server.env.get("PATH")):
            continue
        path = f"{BACKEND_PATH}.mcpServers.{name}.command"
        if " " in command.strip():
            yield f"{path}: there is no program {command!r}: put what follows its name into args"
        elif command.startswith("~"):
            yield f"{path}: {command}: write the path in full, ~ is not replaced"
        elif os.path.isabs(command):
            yield f"{path}: {command} is not a program that can be run"
        elif os.sep not in command:
            yield f"{path}: there is no program {command!r} in PATH: write its path in full"


def tool_names(config: LlmConfig) -> Sequence[str]:
    """Names of the tools; of an MCP server the beginning that they share. Raises
    :exc:`ConfigError`."""
    functions = _functions(config.tools, config.timeout_ms / 1000).tools
    servers = [f"{name}_*" for name in config.mcp_servers]
    return [*functions, *servers, *END_CALL_NAMES, PRESS_KEYS]


def _allowed(context: RunContext[AgentTurn], definition: ToolDefinition) -> bool:
    """Whether a turn's list of allowed tools and its policy permit this tool."""
    allowed, name = context.deps.allowed_tools, definition.name
    if allowed is not None and not any(fnmatchcase(name, each.strip()) for each in allowed):
        return False
    policy = context.deps.metadata.get("toolPolicy")
    if policy == "none":
        return False
    return policy != "safe-read-only" or name in _READ_ONLY


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

    # An old name is offered only if a prompt mentions it.
    old = name != END_CALL_NAMES[0]
    return Tool(end_call, name=name, takes_ctx=False, prepare=named_in_prompt if old else None)


def _press_keys() -> Tool[AgentTurn]:
    def press_keys(digits: str) -> str:
        """Press keys on the telephone, where the menu of a machine asks for them. Write nothing
        else in the same answer.

        Args:
            digits: Keys 0-9 * #, such as 2 or 1234#; w waits half a second. Only w: say and press
                nothing, to hear more of the menu.
        """
        try:
            return f"Pressed: {check_digits(digits)}"
        except InvalidRequest as error:
            raise ModelRetry(str(error)) from None

    async def where_machines_are_called(
        context: RunContext[AgentTurn], definition: ToolDefinition
    ) -> ToolDefinition | None:
        # A voice model that asks the agent has its own tool for keys.
        asked = "question" in context.deps.metadata
        return definition if context.deps.direction == "outbound" and not asked else None

    return Tool(press_keys, name=PRESS_KEYS, takes_ctx=False, prepare=where_machines_are_called)


def _functions(paths: Sequence[str], timeout_s: float) -> FunctionToolset[AgentTurn]:
    # The guard gives up earlier. This limit is needed all the same: it makes the library abandon
    # the thread of a synchronous function.
    toolset: FunctionToolset[AgentTurn] = FunctionToolset(timeout=2 * timeout_s)
    for number, path in enumerate(paths):
        function = _load(path, number)
        try:
            toolset.add_function(function)
        except Exception as error:  # noqa: BLE001 (types without a schema raise anything)
            # The lines that pydantic adds are advice on its own configuration.
            why = str(error).partition("\n")[0]
            text = f"{path} is not usable as a tool: {why}"
            raise ConfigError(text, path=f"{BACKEND_PATH}.tools.{number}") from None
    return toolset


def _load(path: str, number: int) -> Callable[..., Any]:
    module_name, _, name = path.partition(":")
    where = f"{BACKEND_PATH}.tools.{number}"
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        text = f"{path} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError(text, path=where) from error
    if not hasattr(module, name):
        raise ConfigError(f"{module_name} has no {name}", path=where)
    found = getattr(module, name)
    if not callable(found):
        raise ConfigError(f"{path} is not a function", path=where)
    function: Callable[..., Any] = found
    return function
