"""What a carrier is asked to do on a call.

Actions are offered to ``render`` while a webhook waits for its answer, and to ``perform``
otherwise (:class:`voicecall.telephony.TelephonyProvider`).
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
    """A media socket to open: its public URL, which has no query, and the one-use token that admits
    it. The adapter decides how the token comes back: as a parameter of the stream, or in a query
    that it adds to the URL; the codec returns it as ``Started.token``."""

    url: str
    token: str


class Answer(msgspec.Struct, frozen=True):
    """Answer an inbound call, only where the carrier states ``explicit_answer``. ``stream``: open a
    media socket with the answer, where it can (``StreamPoint.ANSWER`` or ``DOCUMENT``)."""

    stream: StreamRequest | None = None


class Reject(msgspec.Struct, frozen=True):
    """Refuse an inbound call; ``text`` is spoken first, if the carrier can do so in the same step.
    ``busy``: a later call may be answered."""

    text: str | None = None
    busy: bool = False


class Listen(msgspec.Struct, frozen=True):
    """Recognise the caller with the carrier's own recogniser, until the first final result or the
    next ``Listen``, however long the caller says nothing; results carry ``token``. It may come
    while the carrier still listens: what is heard from then on carries the new token."""

    token: str
    end_silence_ms: int = 800


class StopListening(msgspec.Struct, frozen=True):
    """Not used yet."""


class Speak(msgspec.Struct, frozen=True):
    """Speak ``text`` with the carrier's own voice, then ``listen`` (in one step, so that no word
    is lost in between). Its end is a ``PlaybackEnded`` event with ``utterance_id``.

    A carrier that hears the caller meanwhile stops by itself, if it can: there is no action for
    that. It takes the place of what is still being spoken."""

    utterance_id: str
    text: str
    voice: str | None = None
    listen: Listen | None = None


class PlayDigits(msgspec.Struct, frozen=True):
    """Play keypad tones: ``0-9 * #``; ``w`` or ``,`` waits half a second, ``p`` or ``W`` a second.

    If the tones end what went on before, restore it after them: open a media socket as ``stream``
    says, and let the carrier's recogniser listen as ``listen`` says.
    """

    digits: str
    stream: StreamRequest | None = None
    listen: Listen | None = None


class AttachStream(msgspec.Struct, frozen=True):
    """Open a media socket on an answered call, in the place of one that the carrier may believe to
    be open still."""

    stream: StreamRequest


class LimitDuration(msgspec.Struct, frozen=True):
    """Let the carrier end the call ``seconds`` after its answer, even without the gateway."""

    seconds: int


class Hangup(msgspec.Struct, frozen=True):
    """End the call, whether it is answered or not."""


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
