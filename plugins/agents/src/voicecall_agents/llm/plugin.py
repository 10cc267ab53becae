"""Entry point of the backend ``pydantic-ai``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel


def _config_model() -> type[BaseModel]:
    from voicecall_agents.llm.config import LlmConfig

    return LlmConfig


def _factory(config: Any, context: ProviderContext) -> Any:
    try:
        import pydantic_ai  # noqa: F401 (asked before our own modules, for a message that helps)
    except ImportError as error:
        from voicecall.errors import PluginError

        raise PluginError(
            f'the agent pydantic-ai needs its extra: pip install "voicecall[pydantic-ai]" ({error})'
        ) from error
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
            auto_select_order=100,
        )
    ]
