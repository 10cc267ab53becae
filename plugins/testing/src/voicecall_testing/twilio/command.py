"""``voicecall emulate twilio``: run the emulator as a separate process."""

from __future__ import annotations

from voicecall.tts import SpeechProvider
from voicecall_mock.exchange.process import run_emulator

from .emulator import TwilioEmulator
from .options import DEFAULT_AUTH_TOKEN, TwilioOptions

__all__ = ["run"]


def run(
    port: int, host: str = "127.0.0.1", auth_token: str | None = None, tts: str | None = None
) -> None:
    """See :func:`~voicecall_mock.exchange.process.run_emulator`. Once the emulator listens, it
    writes the gateway's settings, and how to call in, to standard output."""

    def make(speech: SpeechProvider | None, voice: str | None) -> TwilioEmulator:
        token = auth_token or DEFAULT_AUTH_TOKEN
        options = TwilioOptions(host=host, port=port, auth_token=token, voice=voice)
        return TwilioEmulator(options, speech=speech)

    run_emulator(make, _introduction, tts)


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
