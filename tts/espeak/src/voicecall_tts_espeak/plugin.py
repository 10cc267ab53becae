"""Entry point of the eSpeak NG speech provider. Importing it does not load the library."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel


def _config_model() -> type[BaseModel]:
    from .config import EspeakConfig

    return EspeakConfig


def _factory(config: Any, context: ProviderContext) -> Any:
    from .provider import EspeakProvider

    return EspeakProvider(config)


def _check(config: Any, models: Collection[str]) -> Sequence[str]:
    from .provider import EspeakProvider

    EspeakProvider(config).check()
    return ()


@hookimpl
def voicecall_tts_providers() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.TTS,
            id="espeak",
            label="eSpeak NG (local)",
            factory=_factory,
            config_model=_config_model,
            auto_select_order=1000,
            demo=True,
            check=_check,
        )
    ]
