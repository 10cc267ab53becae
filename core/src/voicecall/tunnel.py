"""Contract of a tunnel: a public URL for the local webhook server."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from .providers import Provider

__all__ = ["TunnelProvider"]


class TunnelProvider(Provider):
    @abstractmethod
    def open(
        self, local_port: int, paths: Sequence[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Expose ``paths`` of the local port. The iterator yields the public base URL, and again
        whenever it changes."""
