"""Entry point of the scripted agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel


def _config_model() -> type[BaseModel]:
    from .scripted import ScriptedConfig

    return ScriptedConfig


def _factory(config: Any, context: ProviderContext) -> Any:
    from .scripted import ScriptedAgent

    return ScriptedAgent(config)


@hookimpl
def voicecall_agent_backends() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.AGENT,
            id="scripted",
            label="Scripted replies",
            factory=_factory,
            config_model=_config_model,
            auto_select_order=1000,
        )
    ]
