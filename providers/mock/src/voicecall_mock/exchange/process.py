"""An emulator as a process of its own: a voice for its phones, and a life until a signal."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio

from voicecall import ProviderContext, ProviderKind
from voicecall.registry import Registry
from voicecall.tts import SpeechProvider

__all__ = ["phone_voice", "serve_until_signal"]

T = TypeVar("T")


@contextmanager
def phone_voice(provider_id: str) -> Iterator[SpeechProvider | None]:
    """The speech provider with this id, as it is without configuration; none for an empty id.
    Raises :exc:`voicecall.errors.PluginError`."""
    with tempfile.TemporaryDirectory(prefix="voicecall-phones-") as directory:
        yield _speech(provider_id, Path(directory)) if provider_id else None


def _speech(provider_id: str, state_dir: Path) -> SpeechProvider:
    registry = Registry()

    def create(kind: ProviderKind, provider_id: str, config: Mapping[str, Any]) -> Any:
        info = registry.load(kind, provider_id)
        model = None if info.config_model is None else info.config_model()
        block = config if model is None else model.model_validate(config)
        return info.factory(block, ProviderContext(state_dir, create=create))

    speech = create(ProviderKind.TTS, provider_id, {})
    if not isinstance(speech, SpeechProvider):
        raise TypeError(f"{provider_id} makes no speech provider")
    return speech


async def serve_until_signal(
    served: AbstractAsyncContextManager[T], introduce: Callable[[T], str]
) -> None:
    """Enter ``served``, print what ``introduce`` says of it, and leave on SIGINT or SIGTERM.
    Raises what entering raises."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with served as emulator:
                sys.stdout.write(introduce(emulator))
                sys.stdout.flush()
                async for _ in signals:
                    break
        except BaseExceptionGroup as group:
            raise _only(group) from None


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception in a task group's, as the caller expects it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
