"""An emulator as a separate process: it gives the phones a voice, and runs until a signal."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import anyio

from voicecall import ProviderContext, ProviderKind
from voicecall.errors import PluginError, VoicecallError
from voicecall.registry import Registry
from voicecall.selection import provider_config
from voicecall.tts import SpeechProvider

from .carrier import EmulatedCarrier

__all__ = ["run_emulator"]

CarrierT = TypeVar("CarrierT", bound=EmulatedCarrier[Any, Any, Any])


def run_emulator(
    make: Callable[[SpeechProvider | None, str | None], CarrierT],
    introduce: Callable[[CarrierT], str],
    tts: str | None,
) -> None:
    """Serve the carrier that ``make(speech, voice)`` returns until SIGINT or SIGTERM, and print
    ``introduce(carrier)`` once it listens. ``tts``: the provider that gives the phones a voice,
    ``<id>`` or ``<id>:<voice>``.

    Raises ``OSError`` (the port is taken), and :exc:`voicecall.errors.PluginError` and
    :exc:`voicecall.errors.ConfigError` if that provider cannot be used.
    """
    provider_id, _, voice = (tts or "").partition(":")
    with tempfile.TemporaryDirectory(prefix="voicecall-phones-") as directory:
        speech = _speech(provider_id, Path(directory)) if provider_id else None
        anyio.run(_serve, make(speech, voice or None), introduce)


def _speech(provider_id: str, state_dir: Path) -> SpeechProvider:
    """The provider, configured by the environment only."""
    registry = Registry()

    def create(kind: ProviderKind, provider_id: str, config: Mapping[str, Any]) -> Any:
        info = registry.load(kind, provider_id)
        path = f"{kind.value}.providers.{provider_id}"
        block = provider_config(info, config, os.environ, path)
        return info.factory(block, ProviderContext(state_dir, create=create))

    try:
        speech = create(ProviderKind.TTS, provider_id, {})
        if not isinstance(speech, SpeechProvider):
            raise TypeError(f"its factory returns {type(speech).__name__}, not a SpeechProvider")
    except VoicecallError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"the tts provider {provider_id!r} cannot be used: {type(error).__name__}: {error}"
        ) from error
    return speech


async def _serve(emulator: CarrierT, introduce: Callable[[CarrierT], str]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with emulator.serve():
                sys.stdout.write(introduce(emulator))
                sys.stdout.flush()
                async for _ in signals:
                    break
        except BaseExceptionGroup as group:
            raise _only(group) from None


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The only exception in a group, which the caller expects without the group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
