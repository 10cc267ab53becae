"""The audio sink of a voice model's session."""

from __future__ import annotations

from collections.abc import Callable

from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.realtime.items import Item

__all__ = ["SessionSink"]


class SessionSink:
    """Writes a session's audio to the line. Each session has its own sink, so that a session that
    was left, or does not end, is no longer heard. ``find`` returns the item with a name, None if it
    must not be heard."""

    # Slots, as in the pacer: a frame should touch few objects.
    __slots__ = ("_find", "_line", "current")

    def __init__(self, line: AudioLine, find: Callable[[str], Item | None]) -> None:
        self.current: Item | None = None
        """The item whose audio came last, unless it is over."""
        self._line = line
        self._find = find

    def write(self, item_id: str, audio: bytes) -> None:
        item = self.current
        if item is None or item.id != item_id:
            item = self._find(item_id)
            if item is None:
                return
            self.current = item
        if item.converts:
            audio = item.converter.process(audio)
        if audio and not item.sounded:
            item.sounded = True
        self._line.write(item.key, audio)

    def close(self) -> None:
        """Discard everything that is written from now on."""
        self.current = None
        self._find = _nothing


def _nothing(item_id: str) -> None:
    return None
