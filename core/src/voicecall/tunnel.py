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
    """``public``: carriers on the internet can reach the URL, not only machines of a private
    network."""

    public: bool = True


class TunnelProvider(Provider):
    """Opens tunnels."""

    @abstractmethod
    def open(
        self, local_port: int, paths: Sequence[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """A tunnel to ``paths`` (of webhooks and media sockets) on the local port.

        Entering the context begins to open the tunnel; leaving it closes the tunnel. The iterator
        yields the public base URL as soon as carriers can use it, and again whenever it changes;
        the paths below it are the same. When the tunnel is lost, the iterator ends or raises, and
        the host opens another tunnel. Context and iterator raise
        :exc:`voicecall.errors.ProviderError`.
        """
