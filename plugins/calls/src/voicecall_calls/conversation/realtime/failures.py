"""Failed responses of a voice model: the first is followed by an apology, a second in a row ends
the call."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from voicecall.model import EndDetail
from voicecall.realtime import RealtimeSession, ResponseDone
from voicecall_calls.conversation.lastwords import Farewell
from voicecall_calls.conversation.realtime.greeting import Greeting
from voicecall_calls.conversation.realtime.link import ModelLink

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["Failures"]

_log = logging.getLogger("voicecall.calls")
_FAILURES_BEFORE_END = 2


class Failures:
    """Counts failed responses in a row; has the model say ``apology``, then ends the call."""

    def __init__(
        self, lane: CallLane, link: ModelLink, greeting: Greeting, farewell: Farewell, apology: str
    ) -> None:
        self._lane = lane
        self._link = link
        self._greeting = greeting
        self._farewell = farewell
        self._apology = apology
        self._count = 0
        self._apologised = False
        """The next response is the apology, whose success does not reset the count."""

    def session_closed(self) -> None:
        """Forget that an apology was requested: the session it was requested from is gone."""
        self._apologised = False

    def response_done(self, event: ResponseDone, *, spoke: bool) -> None:
        """Handle the end of a response. ``spoke``: some of it was or will be heard."""
        # A response that a limit or a filter cut short before it said anything counts as failed.
        if event.status != "failed" and (spoke or event.status != "incomplete"):
            self._count = self._count if self._apologised else 0
            self._apologised = False
            return
        why = event.error or event.status
        _log.warning(
            "call %s: a response of the voice model failed: %s", self._lane.record.call_id, why
        )
        if self._greeting.pending or self._farewell.ends:
            return
        self._count += 1
        if self._count >= _FAILURES_BEFORE_END:
            self._farewell.begin(EndDetail.AGENT_FAILED)
        elif not spoke:
            self._link.do(self._apologise)

    async def _apologise(self, session: RealtimeSession) -> None:
        await session.say(self._apology)
        self._apologised = True
