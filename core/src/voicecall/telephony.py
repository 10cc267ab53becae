"""Contract of a carrier: place and control calls, read its webhooks and media sockets.

``verify``, ``parse``, ``render`` and the media codec are pure: no clock, no socket, no global
state. Only the coroutines talk to the carrier. The engine waits for them, so each limits its own
time. The actions are described in :mod:`voicecall.actions`.
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
    """When a carrier can be asked to open a media socket.

    With ``ANSWER`` or ``DOCUMENT``, the host requests the socket in the :class:`Answer` to an
    inbound call. In all other cases, and to replace a lost socket, it sends :class:`AttachStream`,
    even if ``COMMAND`` is not stated.

    Leave out ``DIAL``, which is not used yet: no dial request asks for a socket, and the host
    refuses to load a carrier that states it.
    """

    DIAL = "dial"
    ANSWER = "answer"
    DOCUMENT = "document"
    COMMAND = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class TelephonyCapabilities:
    """What a carrier can do. The engine decides by this, never by the carrier's id.

    - ``native_speech``: the carrier has its own voice. ``longest_speech`` is the number of
      characters that it accepts at once (None: no limit)
    - ``native_listening``: the carrier has its own recogniser. Without media sockets, calls need
      the carrier's voice, and conversations need its recogniser, too
    - ``stream``: when a media socket can be requested (empty: never)
    - ``codecs``: audio formats of a media socket, the usual one first
    - ``dtmf_out``: digits can be played during a call. ``dtmf_keeps_stream``: doing so neither
      detaches a live stream nor cuts off the carrier's own speech
    - ``pre_connect_dtmf``: digits can be played before the conversation, at most
      ``longest_pre_connect_dtmf`` of them including pauses (None: no limit)
    - ``explicit_answer``: an inbound call waits for an :class:`Answer` action. Without this
      capability, the reply to the first webhook answers the call, and that webhook is an
      ``Answered`` event
    - ``dial_lookup``: :meth:`TelephonyProvider.find_dial` is implemented
    - ``limit_by_command``: the duration of a live call can be limited at the carrier
    - ``marks``: the media socket returns marks; marks dropped by a clear may be lost
    - ``public_url``: the webhook URL must be reachable from the internet, unless ``api_base_url``
      in the carrier's configuration is on this machine (an emulator)
    - ``from_number_required``: no call can be placed without a caller number

    Not used yet, whatever a carrier states: ``transfer``, ``recording``, ``machine_detection``,
    ``marks_returned_on_clear``, ``clear_acked`` (a clear is confirmed by an event),
    ``close_ends_call`` (closing the socket hangs up), ``pacing`` (audio must not be sent much
    faster than it is played, which the host never does).
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
    """A call and its ids. ``call_id`` is ours. ``provider_call_id`` is the carrier's current id,
    ``aliases`` are all ids it ever had. The current id is the newest one from a webhook, otherwise
    the one returned for the dial request; with some carriers the two differ. The carrier sends the
    webhooks of this call to ``webhook_url``, which contains our id."""

    call_id: str
    provider_call_id: str | None
    aliases: tuple[str, ...] = ()
    webhook_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialRequest:
    """A call to place.

    - ``webhook_url`` already contains our call id
    - ``ring_timeout_s``: how long the callee's phone may ring
    - ``time_limit_s``: the carrier ends the call after this time, even if the gateway is dead
    - ``dtmf_sequence``: digits to play before the conversation, as in :class:`PlayDigits`
    - ``message``: to be spoken as soon as the call is answered; only set if
      :meth:`TelephonyProvider.speaks_at_dial` accepted it
    - ``stream``: not used yet, always None
    - ``wanted``: call this after any wait, before the request is sent or sent again. If it returns
      false, the call is no longer wanted: send nothing and raise ``ProviderUnavailable``
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
    """A dial request with unknown outcome, sent at ``placed_at`` (milliseconds since the epoch).
    ``known`` holds the carrier's ids of calls made by other requests."""

    call_id: str
    from_number: str
    to_number: str
    placed_at: int
    known: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CallStatus:
    """The state of a call; ``reason`` is why it ended, if it has ended and the carrier says why."""

    status: CarrierStatus
    reason: EndReason | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """One check of the setup at the carrier. ``name`` is what was checked (``credentials``,
    ``number-webhook``); if it failed, ``message`` says what to change."""

    name: str
    ok: bool
    message: str


# --- webhooks --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """A webhook as it arrived. The method is always POST: the host answers other methods with 405.
    ``url`` is the public URL as the carrier knows it, including the query; header names are lower
    case; ``client`` is the trusted client address. ``memo`` is free for the adapter: it can keep
    what it has parsed for later calls with the same request."""

    method: str
    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    client: str
    memo: dict[str, Any] = field(init=False, default_factory=dict, compare=False, repr=False)


class Verified(msgspec.Struct, frozen=True):
    """A webhook with a valid signature. ``key``, which must not be empty, identifies the request
    so that a replay is recognised; derive it from signed data."""

    key: str


class WebhookReply(msgspec.Struct, frozen=True):
    """The answer to a webhook; ``headers`` are those other than content type and length."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class Rendered(msgspec.Struct, frozen=True):
    """The reply to a webhook. The host passes ``rest``, the actions that did not fit into the
    reply, to :meth:`TelephonyProvider.perform`."""

    reply: WebhookReply
    rest: tuple[Action, ...] = ()


class TelephonyProvider(Provider):
    """A carrier. Its webhooks must arrive by POST: if the carrier offers a choice, ask for POST.

    ``capabilities`` is an attribute, not a property, and the same as in the ``ProviderInfo``.
    """

    capabilities: TelephonyCapabilities

    # --- pure -------------------------------------------------------------------------------

    @property
    @abstractmethod
    def signature_headers(self) -> tuple[tuple[str, ...], ...]:
        """Sets of lower-case header names, read once at start. A webhook must have all headers of
        at least one set; otherwise it gets 401 before its body is read."""

    @abstractmethod
    def verify(self, request: WebhookRequest, now_ms: int) -> Verified:
        """Check the signature of a webhook; called first, for each one. Raises
        :exc:`voicecall.errors.WebhookRejected` (401) if the signature is wrong.

        Depends on its arguments alone and changes nothing: after a refusal, the host may call it
        with the same request under other URLs, to tell the operator which one the carrier signed.
        """

    @abstractmethod
    def parse(self, request: WebhookRequest, now_ms: int) -> Sequence[CarrierEvent]:
        """The events in a verified webhook, in order; empty if it says nothing about a call.

        The first event of an inbound call (``Initiated``, ``Ringing``, ``Answered`` or ``Active``)
        must have ``direction=Direction.INBOUND``. Otherwise no call is opened, and the event is
        ignored because its call is unknown.

        Raises :exc:`voicecall.errors.WebhookRejected` (400) for a malformed body.
        """

    @abstractmethod
    def render(
        self, request: WebhookRequest, call: CallRef | None, actions: Sequence[Action]
    ) -> Rendered:
        """The reply to ``request``, with as many of ``actions`` as the carrier accepts in a reply;
        the others are returned as :attr:`Rendered.rest`. Called after :meth:`parse`; the reply is
        stored with the last event of the request before it is sent. ``call`` is None if the call is
        unknown or the request has no events."""

    @abstractmethod
    def media_codec(self, upgrade: Upgrade) -> MediaCodec:
        """A new codec for one media socket; called for each handshake. A carrier without media
        sockets raises :exc:`voicecall.errors.WebhookRejected` (404): anybody can request that
        path."""

    def verify_upgrade(self, upgrade: Upgrade, now_ms: int) -> bool | None:
        """Check the signature of a media socket's handshake. Returns True if it is valid, which
        exempts the socket from the caps on unauthenticated sockets, and None if the handshake has
        no signature: then only the one-use token admits the socket. Raises
        :exc:`voicecall.errors.WebhookRejected` (401) if the signature is wrong; any other return
        value also refuses the socket."""
        return None

    def speaks_at_dial(self, message: Speak) -> bool:
        """Whether ``message`` may be part of a dial request. Called before a notification is placed
        without a media socket."""
        return False

    # --- talking to the carrier -------------------------------------------------------------

    @abstractmethod
    async def place_call(self, request: DialRequest) -> str:
        """Dial, once; returns the carrier's id of the call, not empty. After 25 seconds the host
        gives up waiting and treats the outcome as unknown.

        Raises :exc:`~voicecall.errors.OutcomeUnknown` if the call may exist, for example because no
        answer came in time, and any other :exc:`~voicecall.errors.ProviderError` if there is
        certainly no call.
        """

    async def find_dial(self, query: DialQuery) -> str | None:
        """The carrier's id of the call that a dial request made; None if there is certainly no
        such call. Called after a dial request with unknown outcome, only with the capability
        ``dial_lookup``.

        Raises :exc:`~voicecall.errors.OutcomeUnknown` if this cannot be determined.
        """
        what = "looking up a dial request is not supported"
        raise RequestRejected(what, provider=type(self).__name__)

    @abstractmethod
    async def perform(self, call: CallRef, action: Action) -> None:
        """Carry out one action on a live call.

        If the call is already over, :class:`Hangup`, :class:`Reject` and :class:`StopListening`
        succeed. Any other action must raise :exc:`~voicecall.errors.RequestRejected`, so that the
        engine asks for the call's state instead of waiting for results that will never come.
        Raises another :exc:`~voicecall.errors.ProviderError` for other failures."""

    @abstractmethod
    async def status(self, call: CallRef) -> CallStatus:
        """Ask the carrier for the call's state. Called if nothing was heard of a call for a while,
        after failed actions and after a restart. If the request fails, return
        ``CarrierStatus.UNKNOWN``, never an end.

        Raises :exc:`~voicecall.errors.AuthenticationFailed` if the carrier does not accept the
        credentials.
        """

    async def register_webhook(self, url: str) -> None:
        """Set the webhook URL for inbound calls at the carrier, if it has an API for that. Called
        at start, and whenever the public URL changes. The phone starts once this has returned or
        failed. A failure is logged; after one that is retryable, or whose outcome is unknown, this
        is called again."""
        return

    async def probe(self, webhook_url: str, numbers: Sequence[str]) -> Sequence[Probe]:
        """Check at the carrier that it accepts the credentials, that the ``numbers`` are ours, and
        that their calls go to ``webhook_url``. Called by ``voicecall setup --probe``; must not
        change anything."""
        return ()

    def number_urls(self, webhook_url: str) -> Mapping[str, str]:
        """What the operator must enter at the carrier for a number: name of the field there -> URL.
        Shown by ``voicecall setup``. Empty if :meth:`register_webhook` does this."""
        return {}
