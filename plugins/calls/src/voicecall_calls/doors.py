"""The doors between the call engine and the servers.

The webhook and media servers know nothing of calls; the engine knows nothing of sockets. Both
sides meet in these protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from voicecall.events import CarrierEvent
from voicecall.media import MediaCodec, MediaEvent, Message, Started, Upgrade
from voicecall.telephony import Verified, WebhookReply, WebhookRequest

__all__ = ["AdmissionRefused", "Attachment", "Doors", "MediaHost", "MediaSocket", "WebhookHost"]


class AdmissionRefused(Exception):
    """A media socket is not let in; it is closed with ``code`` (RFC 6455) and ``reason``."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code} {reason}")


class WebhookHost(Protocol):
    """What the webhook server asks of the engine."""

    async def recorded(
        self, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply | None:
        """The reply that this very request got before; None for one that is new, and where
        :meth:`handle` will notice it by the keys of its events."""
        ...

    async def handle(
        self, request: WebhookRequest, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply:
        """Commit the events and make the reply. Any exception means that nothing was
        committed; the server then answers 500 and the carrier may deliver again."""
        ...


class MediaSocket(Protocol):
    """One carrier socket, as the engine sees it."""

    @property
    def codec(self) -> MediaCodec: ...

    @property
    def buffered(self) -> int:
        """Bytes that the network has not taken yet."""
        ...

    @property
    def heard_at(self) -> float:
        """When the last caller audio came, in seconds of the seam's steady clock; minus infinity
        before the first."""
        ...

    def send(self, message: Message) -> None:
        """Send one message. Never blocks or raises; a socket that falls too far behind is
        closed (1013) and reports ``closed``."""
        ...

    def play(self, audio: bytes) -> None:
        """:meth:`send` the message that plays ``audio``, which is in the output format. A codec
        that fails costs the socket (1011)."""
        ...

    def listen(
        self,
        listener: Callable[[bytes], None],
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Caller audio goes to ``listener`` from now on, by a plain call, and not to
        :meth:`Attachment.received`. ``failed`` is told what it raises; without one the socket is
        closed (1011)."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close the socket; idempotent."""
        ...


class Attachment(Protocol):
    """One admitted socket, as the server sees it. Plain calls, made for every message."""

    __slots__ = ()

    def received(self, event: MediaEvent) -> None:
        """The next event of the socket, in order."""
        ...

    def closed(self) -> None:
        """The socket is gone, whoever closed it. Called exactly once."""
        ...


class MediaHost(Protocol):
    async def admit(self, started: Started, upgrade: Upgrade, socket: MediaSocket) -> Attachment:
        """Let a socket in (its token is used up) or raise :exc:`AdmissionRefused`. Messages that
        arrive meanwhile are kept by the server and delivered afterwards."""
        ...


class Doors(WebhookHost, MediaHost, Protocol):
    """Both: what stands behind the server of a port."""
