"""The gateway's end of a media socket, with waiting for its messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from voicecall import media

M = TypeVar("M", bound=media.MediaEvent)


class Change:
    """A condition to wait for: ``until`` checks again whenever ``happened`` is called."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def happened(self) -> None:
        self._event.set()
        self._event = anyio.Event()

    async def until(self, look: Callable[[], Any]) -> Any:
        with anyio.fail_after(120):
            while not (found := look()):
                await self._event.wait()
        return found


class MediaSocket:
    """One media socket that an emulated carrier opened. ``closed``: code and reason."""

    def __init__(self, connection: ServerConnection, codec: media.MediaCodec) -> None:
        self.connection = connection
        self.codec = codec
        self.events: list[media.MediaEvent] = []
        self.text_only = True
        self.changed = Change()
        self.closed: tuple[int, str] | None = None

    async def run(self) -> None:
        try:
            async for message in self.connection:
                self.text_only = self.text_only and isinstance(message, str)
                event = self.codec.decode(message)
                if event is not None:
                    self.events.append(event)
                    self.changed.happened()
        except ConnectionClosed:
            pass
        self.closed = (self.connection.close_code or 0, self.connection.close_reason or "")
        self.changed.happened()

    def all(self, kind: type[M]) -> list[M]:
        return [event for event in self.events if isinstance(event, kind)]

    async def first(self, kind: type[M], count: int = 1) -> M:
        found: list[M] = await self.changed.until(lambda: self.all(kind)[count - 1 : count])
        return found[0]

    async def gone(self) -> tuple[int, str]:
        closed: tuple[int, str] = await self.changed.until(lambda: self.closed)
        return closed

    async def send(self, message: media.Message | None) -> None:
        assert message is not None
        await self.connection.send(message if isinstance(message, str) else message.decode())

    @property
    def audio(self) -> bytes:
        return b"".join(event.payload for event in self.all(media.Audio))

    def speech(self) -> bytes:
        """What the phone has said, without the silence around it."""
        return self.audio.strip(b"\xff")
