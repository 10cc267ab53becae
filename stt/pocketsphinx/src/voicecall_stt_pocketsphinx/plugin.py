"""Entry point of the PocketSphinx recogniser. Importing it does not load the library."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel


def _config_model() -> type[BaseModel]:
    from .config import PocketsphinxConfig

    return PocketsphinxConfig


def _factory(config: Any, context: ProviderContext) -> Any:
    from .provider import PocketsphinxProvider

    return PocketsphinxProvider(config)


def _check(config: Any, models: Collection[str]) -> Sequence[str]:
    from .decoding import Decoder
    from .grammar import load_grammar

    Decoder(load_grammar(config), config.cmninit, config.reject_below)
    return ()


@hookimpl
def voicecall_transcription_providers() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.TRANSCRIPTION,
            id="pocketsphinx",
            label="PocketSphinx (local, fixed sentences)",
            factory=_factory,
            config_model=_config_model,
            auto_select_order=1000,
            demo=True,
            check=_check,
        )
    ]
