"""What the agent is told: one turn of the caller, with what was said before it, and what was heard
of the answer."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import anyio

from voicecall.agent import AgentBackend, AgentTurn
from voicecall.model import CallRecord, Speaker, TranscriptEntry
from voicecall_calls.troubles import Trouble

__all__ = ["Brain", "Briefing", "TurnInput", "joined", "make_turn", "settle"]

_log = logging.getLogger("voicecall.calls")
_OPENING_CHARS = 2000
_SETTLE_S = 5.0
"""So long the caller's next words wait for an agent that corrects its memory."""


@dataclass(frozen=True, slots=True)
class Brain:
    """Which agent answers, and how long it may take; ``trouble`` is its backend's."""

    backend: AgentBackend
    agent_id: str
    system_prompt: str | None
    timeout_s: float
    trouble: Trouble
    model: str | None = None
    fallback_models: tuple[str, ...] = ()
    allowed_tools: tuple[str, ...] | None = None
    agent_name: str | None = None


@dataclass(frozen=True, slots=True)
class TurnInput:
    """One thing to answer: words, keys, or (both empty) something not understood."""

    text: str = ""
    digits: str = ""
    heard_at: int = 0
    speech_started: int | None = None
    speech_ended: int | None = None


def joined(inputs: deque[TurnInput], before: TurnInput | None = None) -> TurnInput:
    """Take what is to be answered. What comes close behind each other is put to the agent together,
    with what came ``before`` that it was not asked about."""
    turn = inputs.popleft()
    if before is not None:
        turn = _both(before, turn)
    while inputs:
        turn = _both(turn, inputs.popleft())
    return turn


def _both(first: TurnInput, then: TurnInput) -> TurnInput:
    return replace(
        then,
        text=f"{first.text} {then.text}".strip(),
        digits=first.digits + then.digits,
        speech_started=first.speech_started or then.speech_started,
    )


def make_turn(
    record: CallRecord,
    brain: Brain,
    turn: TurnInput,
    turn_id: str,
    opening: tuple[str, ...] = (),
) -> AgentTurn:
    """``turn`` as the agent of this call gets it."""
    return AgentTurn(
        turn_id=turn_id,
        call_id=record.call_id,
        session_key=record.session_key or record.call_id,
        agent_id=brain.agent_id,
        text=turn.text,
        digits=turn.digits,
        opening=opening,
        direction=record.direction.value,
        remote_number=record.remote_number,
        # Carriers, recognisers and voices are configured for one, each in its own way.
        language="",
        model=brain.model,
        fallback_models=brain.fallback_models,
        allowed_tools=brain.allowed_tools,
        system_prompt=brain.system_prompt,
        agent_name=brain.agent_name,
    )


class Briefing:
    """What the agent of a call is told with its turns. One a call."""

    def __init__(self, brain: Brain) -> None:
        self._brain = brain
        self._known = self._asked = 0
        """So much of the transcript the agent knows, and had when it was asked last."""
        self._answers = 0
        """Of what the bot said behind that which is known, so much was the agent's own."""

    def taken_up(self, record: CallRecord) -> None:
        """The call goes on after a restart."""
        if any(entry.speaker is Speaker.USER for entry in record.transcript):
            self._known = len(record.transcript)

    def turn(self, record: CallRecord, turn: TurnInput, turn_id: str) -> AgentTurn:
        """``turn``, with what was said before it without the agent."""
        self._asked = len(record.transcript)
        opening = _said_before(self._news(record), turn.text)
        return make_turn(record, self._brain, turn, turn_id, opening)

    def taken(self, record: CallRecord) -> None:
        """The agent took the turn. One that fails before a word of its answer is not in its
        history."""
        self._known = self._asked
        behind = record.transcript[self._known :]
        self._answers = sum(entry.speaker is Speaker.BOT for entry in behind)

    def _news(self, record: CallRecord) -> list[TranscriptEntry]:
        news, own = [], self._answers
        for entry in record.transcript[self._known :]:
            if own and entry.speaker is Speaker.BOT:
                own -= 1
            else:
                news.append(entry)
        return news


def _said_before(transcript: Sequence[TranscriptEntry], words: str) -> tuple[str, ...]:
    """What was said before ``words``, which the caller says now: newest kept, oldest first. What
    the caller said is in brackets."""
    lines: list[str] = []
    room = _OPENING_CHARS
    for entry in reversed(transcript):
        text = entry.text
        if entry.speaker is Speaker.USER:
            if words and words.endswith(text):
                # A turn may be of several utterances.
                words = words[: -len(text)].rstrip()
                continue
            text = f"(The other party: {text})"
        lines.append(text[:room])
        room -= len(lines[-1])
        if room <= 0:
            break
    return tuple(reversed(lines))


async def settle(backend: AgentBackend, turn: AgentTurn, heard: str) -> None:
    """Tell the agent what was heard of an answer that was interrupted. Is not cancelled, and never
    fails: the call goes on without."""
    try:
        with anyio.move_on_after(_SETTLE_S, shield=True) as patience:
            await backend.settle(turn, heard)
    except (Exception, SystemExit):  # noqa: BLE001 (an agent's code can raise anything)
        _log.exception("call %s: the agent cannot note what was heard", turn.call_id)
        return
    if patience.cancelled_caught:
        text = "call %s: the agent did not note within %g s what was heard"
        _log.warning(text, turn.call_id, _SETTLE_S)
