"""The interfaces ("doors") between the call engine and the servers.

The webhook and media servers know nothing about calls; the engine knows nothing about sockets. They
interact through these protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from voicecall.events import CarrierEvent
from voicecall.media import MediaCodec, MediaEvent, Message, Started, Upgrade
from voicecall.telephony import Verified, WebhookReply, WebhookRequest

__all__ = ["AdmissionRefused", "Attachment", "Doors", "MediaHost", "MediaSocket", "WebhookHost"]


class AdmissionRefused(Exception):
    """A media socket is not admitted; it is closed with ``code`` (RFC 6455) and ``reason``."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code} {reason}")


class WebhookHost(Protocol):
    """What the webhook server needs from the engine."""

    async def recorded(
        self, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply | None:
        """The reply that the same request got before; None for a new request, and for a repeated
        one that :meth:`handle` will recognise by the keys of its events."""
        ...

    async def handle(
        self, request: WebhookRequest, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply:
        """Commit the events and make the reply. Any exception means that nothing was
        committed; the server then answers 500 and the carrier may redeliver."""
        ...


class MediaSocket(Protocol):
    """One carrier socket, as the engine sees it."""

    @property
    def codec(self) -> MediaCodec: ...

    @property
    def buffered(self) -> int:
        """Bytes not yet handed to the network."""
        ...

    @property
    def heard_at(self) -> float:
        """When the last caller audio arrived, in seconds of the seam's monotonic clock; minus
        infinity before the first."""
        ...

    def send(self, message: Message) -> None:
        """Send one message. Never blocks or raises; a socket that falls too far behind is
        closed (1013) and reports ``closed``."""
        ...

    def play(self, audio: bytes) -> None:
        """:meth:`send` the message that plays ``audio``, which is in the output format. If the
        codec fails, the socket is closed (1011)."""
        ...

    def listen(
        self,
        listener: Callable[[bytes], None],
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Pass caller audio to ``listener`` from now on, by a plain call, instead of
        :meth:`Attachment.received`. ``failed`` is called with what it raises; without ``failed``
        the socket is closed (1011)."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close the socket; idempotent."""
        ...


class Attachment(Protocol):
    """One admitted socket, as the server sees it. Its methods are called synchronously."""

    __slots__ = ()

    def received(self, event: MediaEvent) -> None:
        """The next event of the socket, in order."""
        ...

    def closed(self) -> None:
        """The socket is closed, by whichever side. Called exactly once."""
        ...


class MediaHost(Protocol):
    async def admit(self, started: Started, upgrade: Upgrade, socket: MediaSocket) -> Attachment:
        """Admit a socket, which uses up its token, or raise :exc:`AdmissionRefused`. The server
        keeps messages that arrive meanwhile and delivers them afterwards."""
        ...


class Doors(WebhookHost, MediaHost, Protocol):
    """Both interfaces, for a server that has webhooks and media sockets on one port."""
