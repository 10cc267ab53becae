"""What a carrier is asked to do on a call.

While a webhook waits for its answer, the host passes actions to ``render``, otherwise to
``perform`` (:class:`voicecall.telephony.TelephonyProvider`).
"""

from __future__ import annotations

import msgspec

__all__ = [
    "Action",
    "Answer",
    "AttachStream",
    "Hangup",
    "LimitDuration",
    "Listen",
    "PlayDigits",
    "Reject",
    "Speak",
    "StopListening",
    "StreamRequest",
]


class StreamRequest(msgspec.Struct, frozen=True):
    """A media socket to open: its public URL, without a query, and the one-use token that admits
    it. The adapter passes the token as a parameter of the stream, or in a query that it adds to the
    URL. The codec returns it as ``Started.token``."""

    url: str
    token: str


class Answer(msgspec.Struct, frozen=True):
    """Answer an inbound call; only sent to carriers with the capability ``explicit_answer``.
    ``stream``: open this media socket with the answer; set only if the carrier states
    ``StreamPoint.ANSWER`` or ``DOCUMENT``."""

    stream: StreamRequest | None = None


class Reject(msgspec.Struct, frozen=True):
    """Refuse an inbound call; ``text`` is spoken first, if the carrier can do that in the same
    step. ``busy``: a later call may be answered."""

    text: str | None = None
    busy: bool = False


class Listen(msgspec.Struct, frozen=True):
    """Listen to the caller with the carrier's own recogniser, until the first final result or the
    next ``Listen``, even if the caller is silent for a long time. Results carry ``token``. If the
    carrier is still listening, later results carry the new token. ``end_silence_ms``: the silence
    that ends an utterance."""

    token: str
    end_silence_ms: int = 800


class StopListening(msgspec.Struct, frozen=True):
    """Not used yet."""


class Speak(msgspec.Struct, frozen=True):
    """Speak ``text`` with the carrier's own voice, then ``listen`` (in one step, so that no word
    is lost in between). Replaces what is still being spoken. Its end is a ``PlaybackEnded`` event
    with ``utterance_id``.

    If the carrier can, it stops by itself when the caller speaks: there is no action for that."""

    utterance_id: str
    text: str
    voice: str | None = None
    listen: Listen | None = None


class PlayDigits(msgspec.Struct, frozen=True):
    """Play keypad tones. ``digits`` is written as :func:`voicecall.tones.check_digits` returns it.

    If the tones interrupt a media socket or the carrier's recogniser, restore them afterwards: open
    the socket ``stream``, and carry out ``listen``.
    """

    digits: str
    stream: StreamRequest | None = None
    listen: Listen | None = None


class AttachStream(msgspec.Struct, frozen=True):
    """Open a media socket on an answered call. It replaces the previous one, which the carrier may
    still believe to be open."""

    stream: StreamRequest


class LimitDuration(msgspec.Struct, frozen=True):
    """Let the carrier end the call ``seconds`` after it was answered, even if the gateway is
    dead."""

    seconds: int


class Hangup(msgspec.Struct, frozen=True):
    """End the call, answered or not."""


Action = (
    Answer
    | Reject
    | Listen
    | StopListening
    | Speak
    | PlayDigits
    | AttachStream
    | LimitDuration
    | Hangup
)
