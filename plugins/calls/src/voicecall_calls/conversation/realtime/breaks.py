"""What the caller is owed after a voice model's session broke.

When a session breaks, what it was about to say is lost, and so are the tools that ran for it. The
next session knows only the transcript and would wait for the caller to speak.
"""

from __future__ import annotations

from voicecall.seam import Seam
from voicecall_calls.conversation.realtime.consult import Consults
from voicecall_calls.conversation.realtime.tools import RealtimeTools
from voicecall_calls.conversation.realtime.voice import ModelVoice

__all__ = ["Breaks"]

_WAITS_MS = 10_000
"""A caller who has waited longer for an answer has spoken again, or did not want one."""


class Breaks:
    """Remembers, across sessions, whether the caller is waiting for something."""

    def __init__(
        self, voice: ModelVoice, consults: Consults, tools: RealtimeTools, seam: Seam
    ) -> None:
        self._voice = voice
        self._consults = consults
        self._tools = tools
        self._seam = seam
        self._owes = False

    def broke(self, *, cuts: bool = False) -> None:
        """Must be called before the state of the broken session is cleared. ``cuts``: audio that it
        produced and the caller has not heard is lost too."""
        waits_since = self._voice.caller.waits_since
        self._owes = (
            self._owes
            or self._voice.answering
            or (cuts and self._voice.playing)
            or self._tools.busy
            or self._consults.current is not None
            or (waits_since is not None and self._seam.now_ms() - waits_since <= _WAITS_MS)
        )

    def owes(self) -> bool:
        """Whether the caller is waiting for something that was lost. True only once per break."""
        owes, self._owes = self._owes, False
        return owes
