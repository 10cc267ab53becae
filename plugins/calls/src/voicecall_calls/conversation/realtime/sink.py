"""Where the session of a full-duplex voice model puts what it says."""

from __future__ import annotations

from collections.abc import Callable

from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.realtime.items import Item

__all__ = ["SessionSink"]


class SessionSink:
    """Each session has its own, so that one which was left, or did not end when it was told to, is
    not heard any more. ``find`` gives the item of a name; None where nothing of it is to be heard.
    """

    # As in the pacer: a frame should look at few objects.
    __slots__ = ("_find", "_line", "current")

    def __init__(self, line: AudioLine, find: Callable[[str], Item | None]) -> None:
        self.current: Item | None = None
        """Whose audio came last, unless it is over."""
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
        """Nothing is heard of it from now on."""
        self.current = None
        self._find = _nothing


def _nothing(item_id: str) -> None:
    return None
