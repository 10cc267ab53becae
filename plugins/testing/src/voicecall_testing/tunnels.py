"""A scripted tunnel for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from voicecall import ProviderInfo, ProviderKind
from voicecall.errors import ProviderUnavailable
from voicecall.tunnel import TunnelCapabilities, TunnelProvider

from .offering import offered

__all__ = ["ScriptedTunnel", "offered_tunnel"]


class ScriptedTunnel(TunnelProvider):
    """A tunnel that opens at once. Its base URL is ``url_of(port)``, by default the local port at
    ``localhost``.

    ``opened`` holds the port and paths of each opening, ``closed`` counts those that ended. The
    next openings fail for the reasons in ``refusals``, one each. While ``stuck``, an opening yields
    no URL.
    """

    def __init__(self, url_of: Callable[[int], str] | None = None) -> None:
        self.url_of = url_of or (lambda port: f"http://localhost:{port}")
        self.opened: list[tuple[int, tuple[str, ...]]] = []
        self.closed = 0
        self.refusals: list[str] = []
        self.stuck = False
        self._events: list[str | BaseException | None] = []
        self._told = anyio.Event()

    def move(self, url: str) -> None:
        """Give the tunnel another base URL."""
        self._tell(url)

    def lose(self, error: BaseException | None = None) -> None:
        """End the tunnel, with ``error`` if given."""
        self._tell(error)

    def _tell(self, event: str | BaseException | None) -> None:
        self._events.append(event)
        self._told.set()

    @asynccontextmanager
    async def open(
        self, local_port: int, paths: Sequence[str]
    ) -> AsyncIterator[AsyncIterator[str]]:
        self.opened.append((local_port, tuple(paths)))
        try:
            if self.refusals:
                raise ProviderUnavailable(self.refusals.pop(0), provider="scripted")
            self._events = []
            if not self.stuck:
                self.move(self.url_of(local_port))
            yield self._urls()
        finally:
            self.closed += 1

    async def _urls(self) -> AsyncIterator[str]:
        while True:
            while not self._events:
                self._told = anyio.Event()
                await self._told.wait()
            event = self._events.pop(0)
            if isinstance(event, BaseException):
                raise event
            if event is None:
                return
            yield event


def offered_tunnel(tunnel: TunnelProvider, provider_id: str = "burrow") -> tuple[str, str, object]:
    """The entry for a package that offers ``tunnel``: ``Registry(extra=[offered_tunnel(...)])``."""
    return offered(
        ProviderInfo(
            kind=ProviderKind.TUNNEL,
            id=provider_id,
            label=provider_id.capitalize(),
            factory=lambda config, context: tunnel,
            capabilities=TunnelCapabilities(),
        )
    )
