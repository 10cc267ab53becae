"""Options of an exchange. All times can be made short for tests."""

from __future__ import annotations

from dataclasses import dataclass

from voicecall_mock.config import DEFAULT_AUTH_TOKEN

__all__ = ["ExchangeOptions", "PhoneOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneOptions:
    """Options of any emulated carrier: its address, phones, lines and media streams.

    ``host`` and ``port`` (0: any free one): address of the REST side.

    ``answer_after_ms``: ringing before the default phone answers. ``voice``: voice of the speech
    provider. ``answer_timeout_s``: time after which an unanswered inbound call ends.

    ``reorder_wait_ms``: how long a webhook to be reordered waits for its neighbour.

    ``word_ms`` and ``least_speech_ms``: time per word, and least time, of native speech in both
    directions. ``listen_patience_ms``: how long a phone with something to say waits for a listener
    (a listen action or a media stream). ``digit_ms``: length of one keypad tone.

    ``connect_timeout_s``: time to open a media socket. ``playback_limit_ms``: audio that the
    playback buffer holds; more is dropped and counted. ``underrun_gap_ms``: see ``playback``.
    ``settle_ms``: quiet after which an interrupted far side counts as having stopped.
    ``recording_limit_s``: longest recording of a call (0: none).

    ``keep_calls``: calls remembered; the oldest that are over are forgotten first.
    """

    host: str = "127.0.0.1"
    port: int = 0
    answer_after_ms: int = 300
    voice: str | None = None
    answer_timeout_s: float = 30.0
    reorder_wait_ms: int = 300
    word_ms: int = 60
    least_speech_ms: int = 100
    listen_patience_ms: int = 5000
    digit_ms: int = 50
    connect_timeout_s: float = 5.0
    playback_limit_ms: int = 300_000
    underrun_gap_ms: int = 400
    settle_ms: int = 500
    recording_limit_s: int = 3600
    keep_calls: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeOptions(PhoneOptions):
    """``auth_token`` is the bearer token of the REST side and the key of the webhook signatures.

    ``inbound_time_limit_s``: longest inbound call.

    ``webhook_timeout_s`` and ``redelivery_s``: how long one delivery of a webhook may take, and
    the wait before each redelivery.
    """

    auth_token: str = DEFAULT_AUTH_TOKEN
    inbound_time_limit_s: float = 3600.0
    webhook_timeout_s: float = 5.0
    redelivery_s: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 28.3)
