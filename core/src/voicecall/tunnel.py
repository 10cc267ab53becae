"""Contract of a tunnel: a public URL for the local webhook server."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from .providers import Provider

__all__ = ["TunnelCapabilities", "TunnelProvider"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelCapabilities:
    """``public``: carriers on the internet reach it, not only machines of a private network."""

    public: bool = True


class TunnelProvider(Provider):
    @abstractmethod
    def open(
        self, local_port: int, paths: Sequence[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Expose ``paths`` (of the webhooks, of the media sockets) of the local port.

        Entered, the tunnel is being opened; left, it is closed. The iterator yields the public
        base URL, below which the paths are the same, once carriers can use it, and again
        whenever it changes. It ends, or raises, when the tunnel is lost: the host then opens
        another one. Both raise :exc:`voicecall.errors.ProviderError`.
        """
