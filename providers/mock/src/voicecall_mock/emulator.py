"""``voicecall emulate mock``: the exchange as a process of its own."""

from __future__ import annotations

import anyio

from .config import DEFAULT_AUTH_TOKEN
from .exchange import Exchange, ExchangeOptions
from .exchange.process import phone_voice, serve_until_signal

__all__ = ["run"]


def run(
    port: int, host: str = "127.0.0.1", auth_token: str | None = None, tts: str | None = None
) -> None:
    """Serve until SIGINT or SIGTERM. ``tts``: id of the provider that gives the phones a voice,
    and which of its voices, after a colon (``<id>`` or ``<id>:<voice>``).

    Writes one line, ``exchange on <url>``, to standard output when it listens. Raises ``OSError``
    (the port is taken) and :exc:`voicecall.errors.PluginError`.
    """
    provider_id, _, voice = (tts or "").partition(":")
    options = ExchangeOptions(
        host=host, port=port, auth_token=auth_token or DEFAULT_AUTH_TOKEN, voice=voice or None
    )
    with phone_voice(provider_id) as speech:
        exchange = Exchange(options, speech=speech)
        anyio.run(serve_until_signal, exchange.serve(), _introduction)


def _introduction(exchange: Exchange) -> str:
    return f"exchange on {exchange.base_url}\n"
