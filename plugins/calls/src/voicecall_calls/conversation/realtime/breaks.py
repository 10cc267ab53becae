"""What the caller is owed after the session of a voice model broke.

With a session goes whatever it was about to say, and so do the tools that ran for it. The next one
knows only the transcript, and would wait for the caller to speak.
"""

from __future__ import annotations

from voicecall.seam import Seam
from voicecall_calls.conversation.realtime.consult import Consults
from voicecall_calls.conversation.realtime.tools import RealtimeTools
from voicecall_calls.conversation.realtime.voice import ModelVoice

__all__ = ["Breaks"]

_WAITS_MS = 10_000
"""Who was given no answer for so long has spoken again, or did not want one."""


class Breaks:
    def __init__(
        self, voice: ModelVoice, consults: Consults, tools: RealtimeTools, seam: Seam
    ) -> None:
        self._voice = voice
        self._consults = consults
        self._tools = tools
        self._seam = seam
        self._owes = False

    def broke(self, *, cuts: bool = False) -> None:
        """To be told before what the session was doing is cleared away; ``cuts``: what it has said
        and the caller has not heard goes with it."""
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
        """Whether the caller waits for what the break took away; told once."""
        owes, self._owes = self._owes, False
        return owes
