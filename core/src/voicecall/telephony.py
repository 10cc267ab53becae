"""Contract of a carrier: place and steer calls, understand its webhooks and media sockets.

``verify``, ``parse``, ``render`` and the media codec are pure: no clock, no socket, no global.
Only ``perform`` and the other coroutines talk to the carrier.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from .audio.formats import MULAW_8K, AudioFormat
from .events import CarrierEvent, CarrierStatus
from .media import MediaCodec, Upgrade
from .model import EndReason
from .providers import Provider

__all__ = [
    "Action",
    "Answer",
    "AttachStream",
    "CallRef",
    "CallStatus",
    "DialQuery",
    "DialRequest",
    "Hangup",
    "LimitDuration",
    "Listen",
    "PlayDigits",
    "Probe",
    "Reject",
    "Rendered",
    "Speak",
    "StopListening",
    "StreamPoint",
    "StreamRequest",
    "TelephonyCapabilities",
    "TelephonyProvider",
    "Verified",
    "WebhookReply",
    "WebhookRequest",
]


class StreamPoint(StrEnum):
    """Where a carrier can be asked to open a media socket.

    ``DIAL`` is not used yet: no dial request asks for a socket, and a carrier that states it is
    not asked either when the call is answered. Leave it out.
    """

    DIAL = "dial"
    ANSWER = "answer"
    DOCUMENT = "document"
    COMMAND = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class TelephonyCapabilities:
    """What a carrier can do. The engine asks this, never the carrier's id.

    ``native_speech``: the carrier speaks by itself. ``stream``: where a media socket may be asked
    for (empty: never). ``codecs``: formats of a media socket, the usual one first. ``dtmf_out``:
    digits can be played. ``dtmf_keeps_stream``: that neither detaches a live stream nor cuts the
    carrier's own speech short. ``pre_connect_dtmf``: digits can be played before the stream,
    ``longest_pre_connect_dtmf`` of them with their pauses. ``explicit_answer``: an inbound call
    waits for an answer action; without it the reply to the first webhook answers, which is then
    an ``Answered`` event. ``dial_lookup``: :meth:`TelephonyProvider.find_dial` can tell.
    ``limit_by_command``: the length of a live call can be limited at the carrier.
    ``longest_speech``: characters that the carrier's own voice takes at once. ``marks``: they
    come back, also on clear. ``public_url``: webhooks come from the internet, so the webhook URL
    must be reachable from there; not where the carrier's configuration has an ``api_base_url`` on
    this machine, which is an emulator's. ``from_number_required``: nobody is called without a
    number to show.

    Not used yet, whatever a carrier states: ``native_listening`` (the carrier recognises by
    itself), ``transfer``, ``recording``, ``machine_detection``, ``marks_returned_on_clear``,
    ``clear_acked`` (with an event of its own), ``close_ends_call`` (closing the socket hangs up)
    and ``pacing`` (audio must not be sent much faster than it is played, which it never is).
    """

    native_speech: bool = False
    native_listening: bool = False
    stream: frozenset[StreamPoint] = frozenset()
    codecs: tuple[AudioFormat, ...] = (MULAW_8K,)
    dtmf_out: bool = False
    dtmf_keeps_stream: bool = False
    pre_connect_dtmf: bool = False
    longest_pre_connect_dtmf: int | None = None
    transfer: bool = False
    recording: bool = False
    machine_detection: bool = False
    explicit_answer: bool = False
    dial_lookup: bool = False
    limit_by_command: bool = False
    longest_speech: int | None = None
    marks: bool = True
    marks_returned_on_clear: bool = True
    clear_acked: bool = False
    close_ends_call: bool = False
    pacing: bool = True
    public_url: bool = True
    from_number_required: bool = True


class CallRef(msgspec.Struct, frozen=True):
    """A call as the carrier knows it: our id, its current id and all ids it ever had.
    ``webhook_url`` is where the carrier sends what it has to say of this call; it names our id.
    """

    call_id: str
    provider_call_id: str | None
    aliases: tuple[str, ...] = ()
    webhook_url: str = ""


class StreamRequest(msgspec.Struct, frozen=True):
    """A media socket to open: its URL as we wrote it, and the one-use token that admits it."""

    url: str
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DialRequest:
    """A call to place. ``webhook_url`` already names our call id; ``time_limit_s`` is the
    carrier-side limit that survives a dead gateway. ``stream``, the media socket to open, is not
    used yet: it is always None. ``message``, which :meth:`TelephonyProvider.speaks_at_dial` agreed
    to, is spoken as soon as the call is answered.
    Whoever has to wait before the request is sent, or sent again, asks ``wanted`` then: the call
    may be over, and raises ``ProviderUnavailable`` where it is.
    """

    call_id: str
    from_number: str
    to_number: str
    webhook_url: str
    ring_timeout_s: int
    time_limit_s: int
    stream: StreamRequest | None = None
    dtmf_sequence: str | None = None
    message: Speak | None = None
    wanted: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True, kw_only=True)
class DialQuery:
    """A dial request of unknown outcome. It was made at ``placed_at`` (milliseconds since the
    epoch); ``known`` are the carrier's ids of calls that it cannot have made."""

    call_id: str
    from_number: str
    to_number: str
    placed_at: int
    known: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CallStatus:
    status: CarrierStatus
    reason: EndReason | None = None


# --- actions: offered to render() while a webhook waits for its answer, to perform() otherwise --


class Answer(msgspec.Struct, frozen=True):
    stream: StreamRequest | None = None


class Reject(msgspec.Struct, frozen=True):
    """Do not take an inbound call. ``text``, where given, is spoken first. ``busy``: whoever calls
    may try again later, and hears so where the carrier can tell."""

    text: str | None = None
    busy: bool = False


class Listen(msgspec.Struct, frozen=True):
    """Recognise the caller with the carrier's own recogniser; results carry ``token``."""

    token: str
    end_silence_ms: int = 800


class StopListening(msgspec.Struct, frozen=True):
    pass


class Speak(msgspec.Struct, frozen=True):
    """Speak ``text`` with the carrier's own voice, then ``listen`` (in one go, so that no word
    is lost in between). Its end is a ``PlaybackEnded`` event with ``utterance_id``."""

    utterance_id: str
    text: str
    voice: str | None = None
    listen: Listen | None = None


class PlayDigits(msgspec.Struct, frozen=True):
    """Keypad tones: ``0-9 * #``; ``w`` or ``,`` waits half a second, ``p`` and ``W`` a second.

    Where the tones take the place of what went on before, it goes on behind them: a media socket
    is opened anew as ``stream`` says, the carrier's recogniser listens again as ``listen`` says.
    """

    digits: str
    stream: StreamRequest | None = None
    listen: Listen | None = None


class AttachStream(msgspec.Struct, frozen=True):
    stream: StreamRequest


class LimitDuration(msgspec.Struct, frozen=True):
    """End the call by itself ``seconds`` from its answer, also when nobody asks any more."""

    seconds: int


class Hangup(msgspec.Struct, frozen=True):
    pass


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


@dataclass(frozen=True, slots=True)
class Probe:
    """What the carrier said when it was asked whether one thing is set up (``name``, like
    ``credentials`` or ``number-webhook``); ``message`` says what to change."""

    name: str
    ok: bool
    message: str


# --- webhooks --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """A webhook as it came in, by POST: any other method is 405 before an adapter sees it. ``url``
    is the public URL as the carrier knows it, query included; header names are lower case;
    ``client`` is the trusted client address. ``memo`` is for the adapter: what it read of the
    request once need not be read again."""

    method: str
    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    client: str
    memo: dict[str, Any] = field(init=False, default_factory=dict, compare=False, repr=False)


class Verified(msgspec.Struct, frozen=True):
    """A webhook that is from the carrier. ``key`` identifies the request, so that a replay is
    recognised; it is derived from what is signed."""

    key: str


class WebhookReply(msgspec.Struct, frozen=True):
    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class Rendered(msgspec.Struct, frozen=True):
    """An answer document, and the actions that did not fit in and must be performed."""

    reply: WebhookReply
    rest: tuple[Action, ...] = ()


class TelephonyProvider(Provider):
    """A carrier. All its webhooks come by POST; one that can be told the method is told that.

    ``capabilities`` is an attribute, not a property, and the same as in its ``ProviderInfo``.
    """

    capabilities: TelephonyCapabilities

    # --- pure -------------------------------------------------------------------------------

    @property
    @abstractmethod
    def signature_headers(self) -> tuple[tuple[str, ...], ...]:
        """Sets of lower-case header names; a webhook must have all of one set. Checked before
        the body is read."""

    @abstractmethod
    def verify(self, request: WebhookRequest, now_ms: int) -> Verified:
        """Check the signature. Raises :exc:`voicecall.errors.WebhookRejected` (401)."""

    @abstractmethod
    def parse(self, request: WebhookRequest, now_ms: int) -> Sequence[CarrierEvent]:
        """The events in a verified webhook; none for one that says nothing about a call.

        What tells first of a call that somebody made to us (``Initiated``, ``Ringing``,
        ``Answered`` or ``Active``) must have ``direction=Direction.INBOUND``: without it no call
        is opened, and the event is passed over as one of an unknown call.

        Raises :exc:`voicecall.errors.WebhookRejected` (400) for a body that cannot be read.
        """

    @abstractmethod
    def render(
        self, request: WebhookRequest, call: CallRef | None, actions: Sequence[Action]
    ) -> Rendered:
        """The reply to ``request`` with as many of ``actions`` in it as the carrier accepts in a
        reply. A carrier whose replies steer nothing returns them all as the rest. ``call`` is
        None for a request about no known call."""

    @abstractmethod
    def media_codec(self, upgrade: Upgrade) -> MediaCodec:
        """A codec for one media socket."""

    def verify_upgrade(self, upgrade: Upgrade, now_ms: int) -> bool | None:
        """Check the signature of a media socket's handshake, where the carrier signs it and one
        is there: the one-use token is what admits. True for one that is right: no cap on sockets
        that anybody may have opened keeps it out. Raises
        :exc:`voicecall.errors.WebhookRejected` (401)."""
        return None

    def speaks_at_dial(self, message: Speak) -> bool:
        """Whether ``message`` may be part of a dial request."""
        return False

    # --- talking to the carrier -------------------------------------------------------------

    @abstractmethod
    async def place_call(self, request: DialRequest) -> str:
        """Dial, once; the carrier's id of the call.

        Raises :exc:`~voicecall.errors.OutcomeUnknown` where the call may exist, any other
        :exc:`~voicecall.errors.ProviderError` where it surely does not.
        """

    async def find_dial(self, query: DialQuery) -> str | None:
        """The carrier's id of the call that a dial request made; None where the carrier is sure
        that there is none. Only with the capability ``dial_lookup``.

        Raises :exc:`~voicecall.errors.OutcomeUnknown` where it cannot be told.
        """
        raise self._unsupported("looking up a dial request")

    @abstractmethod
    async def perform(self, call: CallRef, action: Action) -> None:
        """Carry out one action on a live call.

        On a call that is over already, :class:`Hangup`, :class:`Reject` and
        :class:`StopListening` have succeeded. Any other action raises
        :exc:`~voicecall.errors.RequestRejected`: the call's state is asked for then, while one
        that returns lets the engine wait for what cannot come any more. Raises
        :exc:`~voicecall.errors.ProviderError`.
        """

    @abstractmethod
    async def status(self, call: CallRef) -> CallStatus:
        """Ask for the call's state. Trouble on the way is ``unknown``, never an end.

        Raises :exc:`~voicecall.errors.AuthenticationFailed` where the carrier does not accept the
        credentials.
        """

    async def register_webhook(self, url: str) -> None:
        """Tell the carrier where inbound calls go, where it can be told by a request."""
        return

    async def probe(self, webhook_url: str, numbers: Sequence[str]) -> Sequence[Probe]:
        """Ask the carrier whether the credentials are accepted, the ``numbers`` are ours and
        their calls come to ``webhook_url``. Changes nothing."""
        return ()

    def number_urls(self, webhook_url: str) -> Mapping[str, str]:
        """What an operator enters at the carrier for a number: the name of each field there, and
        its URL. Empty where the carrier is told by :meth:`register_webhook`."""
        return {}

    def _unsupported(self, what: str) -> Exception:
        from .errors import RequestRejected

        return RequestRejected(f"{what} is not supported", provider=type(self).__name__)
