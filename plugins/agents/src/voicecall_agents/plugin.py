"""Entry point of the scripted agent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl
from voicecall.providers import Remark

if TYPE_CHECKING:
    from pydantic import BaseModel


def _config_model() -> type[BaseModel]:
    from .scripted import ScriptedConfig

    return ScriptedConfig


def _factory(config: Any, context: ProviderContext) -> Any:
    from .scripted import ScriptedAgent

    return ScriptedAgent(config)


def _check(config: Any, models: Collection[str]) -> Sequence[str]:
    from .scripted import never_used, unknown_fields

    return [Remark(text) for text in (*unknown_fields(config), *never_used(config))]


@hookimpl
def voicecall_agent_backends() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.AGENT,
            id="scripted",
            label="Scripted replies",
            factory=_factory,
            config_model=_config_model,
            check=_check,
            auto_select_order=1000,
        )
    ]
