"""``voicecall emulate twilio``: the emulator as a process of its own."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from voicecall import ProviderContext, ProviderKind
from voicecall.errors import PluginError
from voicecall.registry import Registry
from voicecall.tts import SpeechProvider

from .emulator import TwilioEmulator
from .options import DEFAULT_AUTH_TOKEN, TwilioOptions

__all__ = ["run"]


def run(
    port: int, host: str = "127.0.0.1", auth_token: str | None = None, tts: str | None = None
) -> None:
    """Serve until SIGINT or SIGTERM. ``tts``: id of the provider that gives the phones a voice,
    and which of its voices, after a colon (``<id>`` or ``<id>:<voice>``).

    Writes what a configuration needs to standard output when it listens. Raises ``OSError`` (the
    port is taken) and :exc:`voicecall.errors.PluginError`.
    """
    provider_id, _, voice = (tts or "").partition(":")
    options = TwilioOptions(
        host=host, port=port, auth_token=auth_token or DEFAULT_AUTH_TOKEN, voice=voice or None
    )
    with tempfile.TemporaryDirectory(prefix="voicecall-twilio-") as directory:
        speech = _speech(provider_id, Path(directory)) if provider_id else None
        anyio.run(_serve, options, speech)


def _speech(tts: str, state_dir: Path) -> SpeechProvider:
    registry = Registry()

    def create(kind: ProviderKind, provider_id: str, config: Mapping[str, Any]) -> Any:
        info = registry.load(kind, provider_id)
        block = config if info.config_model is None else info.config_model.model_validate(config)
        return info.factory(block, ProviderContext(state_dir, create=create))

    speech = create(ProviderKind.TTS, tts, {})
    if not isinstance(speech, SpeechProvider):
        raise PluginError(f"{tts} makes no speech provider")
    return speech


async def _serve(options: TwilioOptions, speech: SpeechProvider | None) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with TwilioEmulator(options, speech=speech).serve() as twilio:
                sys.stdout.write(_introduction(twilio))
                sys.stdout.flush()
                async for _ in signals:
                    break
        except BaseExceptionGroup as group:
            raise _only(group) from None


def _introduction(twilio: TwilioEmulator) -> str:
    options = twilio.options
    account = f"{options.account_sid}:{options.auth_token}"
    number = next(iter(twilio.numbers))
    return (
        f"apiBaseUrl: {twilio.base_url}\n"
        f"accountSid: {options.account_sid}\n"
        f"authToken: {options.auth_token}\n"
        f"fromNumber: {number}\n"
        f"call in: curl -u {account} -X POST {twilio.base_url}/emulator/dial-in"
        ' -d \'{"voiceUrl": "<public URL of the webhook>"}\'\n'
    )


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception in a task group's, as the caller expects it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
