"""Entry point of the backend ``pydantic-ai``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl
from voicecall.providers import Remark

if TYPE_CHECKING:
    from pydantic import BaseModel


def _config_model() -> type[BaseModel]:
    from voicecall_agents.llm.config import LlmConfig

    return LlmConfig


def _need_extra() -> None:
    """Check for the library before importing our own modules, for a helpful error."""
    try:
        import pydantic_ai  # noqa: F401
    except ImportError as error:
        from voicecall.errors import PluginError

        raise PluginError(
            f'the agent pydantic-ai needs its extra: pip install "voicecall[pydantic-ai]" ({error})'
        ) from error


def _check(config: Any, models: Collection[str]) -> Sequence[str]:
    _need_extra()
    from voicecall_agents.llm.models import model_problems
    from voicecall_agents.llm.tools import server_remarks, tool_problems

    problems = [*model_problems(config, models), *tool_problems(config)]
    return [*problems, *map(Remark, server_remarks(config))]


def _tools(config: Any) -> Collection[str]:
    _need_extra()
    from voicecall_agents.llm.tools import tool_names

    return tool_names(config)


def _factory(config: Any, context: ProviderContext) -> Any:
    _need_extra()
    from voicecall_agents.llm.backend import PydanticAgent

    return PydanticAgent(config, context)


@hookimpl
def voicecall_agent_backends() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.AGENT,
            id="pydantic-ai",
            label="Language model (pydantic-ai)",
            factory=_factory,
            config_model=_config_model,
            required=("model",),
            check=_check,
            tools=_tools,
            auto_select_order=100,
        )
    ]
