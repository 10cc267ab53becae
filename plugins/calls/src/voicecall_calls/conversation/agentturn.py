"""What the agent is asked: one turn of the caller, with what was said before it."""

from __future__ import annotations

from dataclasses import dataclass

from voicecall.agent import AgentBackend, AgentTurn
from voicecall.model import CallRecord, Speaker

__all__ = ["Brain", "TurnInput", "make_turn"]

_OPENING_CHARS = 2000


@dataclass(frozen=True, slots=True)
class Brain:
    """Which agent answers, and how long it may take."""

    backend: AgentBackend
    agent_id: str
    system_prompt: str | None
    timeout_s: float
    model: str | None = None


@dataclass(frozen=True, slots=True)
class TurnInput:
    """One thing to answer: words, keys, or (both empty) something not understood."""

    text: str = ""
    digits: str = ""
    heard_at: int = 0
    speech_started: int | None = None
    speech_ended: int | None = None


def make_turn(record: CallRecord, brain: Brain, turn: TurnInput, turn_id: str) -> AgentTurn:
    """``turn`` as the agent of this call gets it."""
    return AgentTurn(
        turn_id=turn_id,
        call_id=record.call_id,
        session_key=record.session_key or record.call_id,
        agent_id=brain.agent_id,
        text=turn.text,
        digits=turn.digits,
        opening=_opening(record, turn),
        direction=record.direction.value,
        remote_number=record.remote_number,
        model=brain.model,
        system_prompt=brain.system_prompt,
    )


def _opening(record: CallRecord, turn: TurnInput) -> tuple[str, ...]:
    """What was said before the caller's first turn, newest kept, oldest first."""
    entries = list(record.transcript)
    if entries and entries[-1].speaker is Speaker.USER and entries[-1].text == turn.text:
        entries.pop()
    if any(entry.speaker is Speaker.USER for entry in entries):
        return ()
    lines: list[str] = []
    room = _OPENING_CHARS
    for entry in reversed(entries):
        lines.append(entry.text[:room])
        room -= len(lines[-1])
        if room <= 0:
            break
    return tuple(reversed(lines))
