"""Contract of a carrier: place and control calls, read its webhooks and media sockets.

``verify``, ``parse``, ``render`` and the media codec are pure: no clock, no socket, no global.
Only ``perform`` and the other coroutines talk to the carrier, each with a time limit of its own:
the engine waits for them. The actions are described in :mod:`voicecall.actions`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from .actions import (
    Action,
    Answer,
    AttachStream,
    Hangup,
    LimitDuration,
    Listen,
    PlayDigits,
    Reject,
    Speak,
    StopListening,
    StreamRequest,
)
from .audio.formats import MULAW_8K, AudioFormat
from .errors import RequestRejected
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

    With ``ANSWER`` or ``DOCUMENT`` the :class:`Answer` to an inbound call asks for it. In all other
    cases, and in place of a socket that is gone, the host asks by :class:`AttachStream`, whether
    ``COMMAND`` is stated or not.

    Leave out ``DIAL``, which is not used yet: no dial request asks for a socket, and a carrier
    that states it is refused.
    """

    DIAL = "dial"
    ANSWER = "answer"
    DOCUMENT = "document"
    COMMAND = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class TelephonyCapabilities:
    """What a carrier can do. The engine decides by this, never by the carrier's id.

    - ``native_speech``: it has its own voice, which takes ``longest_speech`` characters at once
      (None: any number; the same goes for ``longest_pre_connect_dtmf``)
    - ``native_listening``: it has its own recogniser. Without media sockets there is no call where
      it has no voice, and no conversation where it has no recogniser
    - ``stream``: where a media socket can be requested (empty: nowhere)
    - ``codecs``: formats of a media socket, the usual one first
    - ``dtmf_out``: digits can be played during a call; with ``dtmf_keeps_stream`` this neither
      detaches a live stream nor cuts the carrier's own speech short
    - ``pre_connect_dtmf``: digits can be played before the conversation, at most
      ``longest_pre_connect_dtmf`` of them including pauses
    - ``explicit_answer``: an inbound call waits for an :class:`Answer` action; without it the reply
      to the first webhook answers, and that webhook is an ``Answered`` event
    - ``dial_lookup``: :meth:`TelephonyProvider.find_dial` is implemented
    - ``limit_by_command``: the duration of a live call can be limited at the carrier
    - ``marks``: the media socket returns marks; those that a clear drops may be lost
    - ``public_url``: the internet must reach the webhook URL, unless the carrier's configuration
      has an ``api_base_url`` on this machine (an emulator)
    - ``from_number_required``: no call can be placed without a number to show

    Not used yet, whatever a carrier states: ``transfer``, ``recording``, ``machine_detection``,
    ``marks_returned_on_clear``, ``clear_acked`` (by an event), ``close_ends_call`` (closing the
    socket hangs up), ``pacing`` (audio must not be sent much faster than it is played, which never
    happens).
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
    """A call as the carrier knows it: our id, the carrier's current id and all that it ever had.
    The current one is the newest that a webhook told, else that of the dial request: with some
    carriers the request has another id than the call. ``webhook_url`` is where the carrier sends
    the webhooks of this call; it contains our id."""

    call_id: str
    provider_call_id: str | None
    aliases: tuple[str, ...] = ()
    webhook_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialRequest:
    """A call to place. ``webhook_url`` already contains our call id; ``time_limit_s`` is the limit
    at the carrier, which ends the call even if the gateway is dead. ``message``, which
    :meth:`TelephonyProvider.speaks_at_dial` accepted, is spoken as soon as the call is answered.
    ``stream`` is not used yet and always None.

    After waiting before it sends the request, or sends it again, an adapter calls ``wanted``. If
    that returns false, the call is over: raise ``ProviderUnavailable`` and send nothing."""

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
    """A dial request of unknown outcome, sent at ``placed_at`` (milliseconds since the epoch).
    ``known`` are the carrier's ids of calls that other requests made."""

    call_id: str
    from_number: str
    to_number: str
    placed_at: int
    known: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CallStatus:
    """The state of a call; ``reason`` is why it ended, if it has and the carrier says so."""

    status: CarrierStatus
    reason: EndReason | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether one thing (``name``, such as ``credentials`` or ``number-webhook``) is set up at the
    carrier; if not, ``message`` says what to change."""

    name: str
    ok: bool
    message: str


# --- webhooks --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """A webhook as it arrived, by POST: other methods get 405 before an adapter sees them. ``url``
    is the public URL as the carrier knows it, including the query; header names are lower case;
    ``client`` is the trusted client address. In ``memo`` the adapter may keep what it has parsed
    of the request, to use it again."""

    method: str
    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    client: str
    memo: dict[str, Any] = field(init=False, default_factory=dict, compare=False, repr=False)


class Verified(msgspec.Struct, frozen=True):
    """A webhook whose signature is right. ``key`` identifies the request, so that a replay is
    recognised; derive it from what is signed."""

    key: str


class WebhookReply(msgspec.Struct, frozen=True):
    """The answer to a webhook; ``headers`` are those besides its type and length."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class Rendered(msgspec.Struct, frozen=True):
    """The reply to a webhook, and the actions that did not fit into it: they are performed."""

    reply: WebhookReply
    rest: tuple[Action, ...] = ()


class TelephonyProvider(Provider):
    """A carrier. Its webhooks must come by POST: if the carrier lets you choose, ask for that.

    ``capabilities`` is an attribute, not a property, and the same as in its ``ProviderInfo``.
    """

    capabilities: TelephonyCapabilities

    # --- pure -------------------------------------------------------------------------------

    @property
    @abstractmethod
    def signature_headers(self) -> tuple[tuple[str, ...], ...]:
        """Sets of lower-case header names. A webhook must have all headers of at least one set;
        this is checked before the body is read."""

    @abstractmethod
    def verify(self, request: WebhookRequest, now_ms: int) -> Verified:
        """Check the signature. Raises :exc:`voicecall.errors.WebhookRejected` (401).

        Depends on its arguments alone and changes nothing: where it refuses, it may be asked about
        the same request under other URLs, to tell the operator which one the carrier has signed.
        """

    @abstractmethod
    def parse(self, request: WebhookRequest, now_ms: int) -> Sequence[CarrierEvent]:
        """The events in a verified webhook; none if it says nothing about a call.

        The first event of an inbound call (``Initiated``, ``Ringing``, ``Answered`` or ``Active``)
        must have ``direction=Direction.INBOUND``: without it no call is opened, and the event is
        ignored as one of an unknown call.

        Raises :exc:`voicecall.errors.WebhookRejected` (400) for a body that cannot be read.
        """

    @abstractmethod
    def render(
        self, request: WebhookRequest, call: CallRef | None, actions: Sequence[Action]
    ) -> Rendered:
        """The reply to ``request``, with as many of ``actions`` as the carrier accepts in a reply.
        If replies cannot carry actions, all of them are the rest. ``call``: None if unknown, and
        for a request without any event."""

    @abstractmethod
    def media_codec(self, upgrade: Upgrade) -> MediaCodec:
        """A codec for one media socket. A carrier without media sockets raises
        :exc:`voicecall.errors.WebhookRejected` (404): strangers try that path, too."""

    def verify_upgrade(self, upgrade: Upgrade, now_ms: int) -> bool | None:
        """Check the signature of a media socket's handshake. True if it is right: the socket is
        then exempt from the caps on unauthenticated sockets. None if there is none: then the
        one-use token alone admits the socket. Raises :exc:`voicecall.errors.WebhookRejected` (401)
        for a wrong one; False refuses it too."""
        return None

    def speaks_at_dial(self, message: Speak) -> bool:
        """Whether ``message`` may be part of a dial request."""
        return False

    # --- talking to the carrier -------------------------------------------------------------

    @abstractmethod
    async def place_call(self, request: DialRequest) -> str:
        """Dial, once; returns the carrier's id of the call.

        Raises :exc:`~voicecall.errors.OutcomeUnknown` if the call may exist, as it may where no
        answer came in time, and any other :exc:`~voicecall.errors.ProviderError` if it certainly
        does not.
        """

    async def find_dial(self, query: DialQuery) -> str | None:
        """The carrier's id of the call that a dial request made; None if there is certainly no
        such call. Only called with the capability ``dial_lookup``.

        Raises :exc:`~voicecall.errors.OutcomeUnknown` if that cannot be determined.
        """
        what = "looking up a dial request is not supported"
        raise RequestRejected(what, provider=type(self).__name__)

    @abstractmethod
    async def perform(self, call: CallRef, action: Action) -> None:
        """Carry out one action on a live call.

        On a call that is over already, :class:`Hangup`, :class:`Reject` and
        :class:`StopListening` succeed. Any other action must raise
        :exc:`~voicecall.errors.RequestRejected`, so that the engine asks for the call's state
        instead of waiting for results that will never come. Raises other
        :exc:`~voicecall.errors.ProviderError` for other failures."""

    @abstractmethod
    async def status(self, call: CallRef) -> CallStatus:
        """Ask for the call's state. A failed request is ``unknown``, never an end.

        Raises :exc:`~voicecall.errors.AuthenticationFailed` if the carrier does not accept the
        credentials.
        """

    async def register_webhook(self, url: str) -> None:
        """Tell the carrier where inbound calls go, if it accepts that by a request. The phone
        starts when this returns, or fails."""
        return

    async def probe(self, webhook_url: str, numbers: Sequence[str]) -> Sequence[Probe]:
        """Ask the carrier whether it accepts the credentials, whether the ``numbers`` are ours, and
        whether their calls come to ``webhook_url``. Changes nothing."""
        return ()

    def number_urls(self, webhook_url: str) -> Mapping[str, str]:
        """What an operator enters at the carrier for a number: field name there -> URL. Empty if
        :meth:`register_webhook` does this."""
        return {}
