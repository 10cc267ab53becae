"""Named phases of a call in the log: the same names for every carrier, no numbers, no words."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from voicecall import events as ev
from voicecall.model import CallRecord

__all__ = ["log_phases", "note_phase"]

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
    ev.StreamGivenUp: "stream given up",
    ev.SpeechHeard: "heard",
    ev.CallerSaid: "heard",
    ev.Recovered: "recovered",
    ev.EndRequested: "ending",
}


def note_phase(record: CallRecord, name: str) -> None:
    """One line: the call reached this phase."""
    _log.info("call %s: %s", record.call_id, name)


def log_phases(record: CallRecord, event: ev.CallEvent) -> None:
    """One line for an event that begins a phase, and one for the end."""
    if isinstance(event, ev.CarrierEvent):
        note_phase(record, "webhook accepted")
    name = _PHASES.get(type(event))
    if isinstance(event, ev.BotSpeaking) and event.first_message:
        name = "greeting started"
    if name is not None:
        note_phase(record, name)
    if record.terminal and record.ended_at == event.at:
        detail = f" ({record.end_detail.value})" if record.end_detail else ""
        note_phase(record, f"ended, {record.state.value}{detail}")
