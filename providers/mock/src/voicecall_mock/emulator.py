"""``voicecall emulate mock``: the exchange as a separate process."""

from __future__ import annotations

from voicecall.tts import SpeechProvider

from .config import DEFAULT_AUTH_TOKEN
from .exchange import Exchange, ExchangeOptions
from .exchange.process import run_emulator

__all__ = ["run"]


def run(
    port: int, host: str = "127.0.0.1", auth_token: str | None = None, tts: str | None = None
) -> None:
    """See :func:`~.exchange.process.run_emulator`. Once the exchange listens, one line is written
    to standard output: ``exchange on <url>``."""

    def make(speech: SpeechProvider | None, voice: str | None) -> Exchange:
        token = auth_token or DEFAULT_AUTH_TOKEN
        options = ExchangeOptions(host=host, port=port, auth_token=token, voice=voice)
        return Exchange(options, speech=speech)

    run_emulator(make, lambda exchange: f"exchange on {exchange.base_url}\n", tts)
