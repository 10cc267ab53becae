"""The frames that wait to be sent to a connection."""

from __future__ import annotations

from collections import deque

import anyio

__all__ = ["Outbox"]


class Outbox:
    """A queue of frames in order. Answers are always kept (their number is bounded by the requests
    in flight); the oldest event is dropped when ``max_events`` are waiting."""

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._frames: deque[tuple[bool, str]] = deque()
        self._events = 0
        self._closed = False
        self._wake = anyio.Event()

    def put_answer(self, frame: str) -> None:
        self._frames.append((False, frame))
        self._wake.set()

    def put_event(self, frame: str) -> None:
        if self._events == self._max_events:
            oldest = next(i for i, (is_event, _) in enumerate(self._frames) if is_event)
            del self._frames[oldest]
            self._events -= 1
        self._frames.append((True, frame))
        self._events += 1
        self._wake.set()

    def close(self) -> None:
        """Nothing more will be added; waiting frames are still handed out."""
        self._closed = True
        self._wake.set()

    async def get(self) -> tuple[bool, str] | None:
        """The next frame and whether it is an event; None after the last."""
        while not self._frames:
            if self._closed:
                return None
            self._wake = anyio.Event()
            await self._wake.wait()
        is_event, frame = self._frames.popleft()
        self._events -= is_event
        return is_event, frame
