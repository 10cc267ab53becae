"""Everything that happened on the exchange, in order."""

from __future__ import annotations

from collections import deque
from typing import Any

import anyio

from voicecall.seam import Seam

__all__ = ["Ledger"]

Entry = dict[str, Any]


class Ledger:
    """Entries are JSON objects: ``at`` (epoch ms), ``kind``, ``call`` (None if it concerns no
    call), and the members of that kind. The last ``limit`` entries are kept."""

    def __init__(self, seam: Seam, *, limit: int = 100_000) -> None:
        self._seam = seam
        self._entries: deque[Entry] = deque(maxlen=limit)
        self._grown = anyio.Event()

    def add(self, kind: str, call: str | None = None, **more: Any) -> None:
        self._entries.append({"at": self._seam.now_ms(), "kind": kind, "call": call, **more})
        self._grown.set()
        self._grown = anyio.Event()

    def entries(
        self, kind: str | None = None, *, call: str | None = None, **match: Any
    ) -> list[Entry]:
        """Entries of this kind and call (None: any) whose other members equal ``match``."""
        return [
            entry
            for entry in self._entries
            if kind in (None, entry["kind"])
            and call in (None, entry["call"])
            and all(entry.get(key) == value for key, value in match.items())
        ]

    async def wait_for(
        self, kind: str, *, call: str | None = None, count: int = 1, **match: Any
    ) -> Entry:
        """Wait until there are ``count`` such entries; returns the last of these."""
        while len(found := self.entries(kind, call=call, **match)) < count:
            await self._grown.wait()
        return found[count - 1]
