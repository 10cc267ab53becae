"""``voicecall emulate twilio``: the emulator as a process of its own."""

from __future__ import annotations

import anyio

from voicecall_mock.exchange.process import phone_voice, serve_until_signal

from .emulator import TwilioEmulator
from .options import DEFAULT_AUTH_TOKEN, TwilioOptions

__all__ = ["run"]


def run(
    port: int, host: str = "127.0.0.1", auth_token: str | None = None, tts: str | None = None
) -> None:
    """Serve until SIGINT or SIGTERM. ``tts``: id of the provider that gives the phones a voice,
    and which of its voices, after a colon (``<id>`` or ``<id>:<voice>``).

    Writes what a configuration needs to standard output when it listens, and how to call in.
    Raises ``OSError`` (the port is taken) and :exc:`voicecall.errors.PluginError`.
    """
    provider_id, _, voice = (tts or "").partition(":")
    options = TwilioOptions(
        host=host, port=port, auth_token=auth_token or DEFAULT_AUTH_TOKEN, voice=voice or None
    )
    with phone_voice(provider_id) as speech:
        twilio = TwilioEmulator(options, speech=speech)
        anyio.run(serve_until_signal, twilio.serve(), _introduction)


def _introduction(twilio: TwilioEmulator) -> str:
    options = twilio.options
    account = f"{options.account_sid}:{options.auth_token}"
    return (
        f"apiBaseUrl: {twilio.base_url}\n"
        f"accountSid: {options.account_sid}\n"
        f"authToken: {options.auth_token}\n"
        f"fromNumber: {next(iter(twilio.numbers))}\n"
        f"to call in: curl -u {account} {twilio.base_url}/emulator/dial-in"
        ' -d \'{"voiceUrl": "<public URL of the webhook>"}\'\n'
    )
