"""Phases of a call in the log: the same names for every carrier, without numbers or text."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from voicecall import events as ev
from voicecall.model import CallRecord

__all__ = ["note_phases", "phases_of"]

_log = logging.getLogger("voicecall.phases")

_PHASES: Mapping[type[ev.CallEvent], str] = {
    ev.DialAccepted: "dialed",
    ev.DialRefused: "dial refused",
    ev.DialUncertain: "dial uncertain",
    ev.Ringing: "ringing",
    ev.Answered: "answered",
    ev.StreamAttached: "stream attached",
    ev.StreamDetached: "stream detached",
    ev.StreamFailed: "stream failed",
    ev.StreamStopped: "stream stopped",
    ev.StreamGivenUp: "stream given up",
    ev.SpeechHeard: "heard",
    ev.CallerSaid: "heard",
    ev.Recovered: "recovered",
    ev.EndRequested: "ending",
}


def note_phases(record: CallRecord, *names: str) -> None:
    """Log on one line that the call reached these phases."""
    if names:
        _log.info("call %s: %s", record.call_id, "; ".join(names))


def phases_of(record: CallRecord, event: ev.CallEvent) -> list[str]:
    """The phases that ``event`` began, including the end of the call."""
    names = ["webhook accepted"] if isinstance(event, ev.CarrierEvent) else []
    name = _PHASES.get(type(event))
    if isinstance(event, ev.BotSpeaking) and event.first_message:
        name = "greeting started"
    if isinstance(event, ev.Answered) and record.answered_at is None:
        # The call is refused; the carrier only asked what to do with it.
        name = None
    if name is not None:
        names.append(name)
    # Speech that the end cut short is reported after it, whatever its time. An event that ends a
    # call may be older than the end if the clock was set back.
    ends = record.ended_at is not None and record.ended_at >= event.at
    if ends and not isinstance(event, ev.BotSpoke):
        detail = f" ({record.end_detail.value})" if record.end_detail else ""
        names.append(f"ended, {record.state.value}{detail}")
    return names
