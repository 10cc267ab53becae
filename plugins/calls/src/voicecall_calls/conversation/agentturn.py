"""What the agent is told: turns of the caller, what was said before, what was heard of answers."""

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
"""How long the caller's next turn waits while an agent corrects its memory."""


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
    """One input to answer: text, keys, or (both empty) something not understood."""

    text: str = ""
    digits: str = ""
    heard_at: int = 0
    speech_started: int | None = None
    speech_ended: int | None = None


def joined(inputs: deque[TurnInput], before: TurnInput | None = None) -> TurnInput:
    """Take all waiting inputs as one turn, which begins with ``before``, an earlier input that the
    agent was not asked about."""
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
    """``turn`` in the form in which the agent gets it."""
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
        # Carriers, recognisers and voices each have their own setting for it.
        language="",
        model=brain.model,
        fallback_models=brain.fallback_models,
        allowed_tools=brain.allowed_tools,
        system_prompt=brain.system_prompt,
        agent_name=brain.agent_name,
    )


class Briefing:
    """Adds to each turn what was said on the call without the agent. One per call."""

    def __init__(self, brain: Brain) -> None:
        self._brain = brain
        self._known = self._asked = 0
        """Number of transcript entries that the agent knows, and that there were when it was asked
        last."""
        self._answers = 0
        """Number of the bot's entries after the known ones that are the agent's own answers."""

    def taken_up(self, record: CallRecord) -> None:
        """The call goes on after a restart: an agent that was asked before knows the transcript."""
        if any(entry.speaker is Speaker.USER for entry in record.transcript):
            self._known = len(record.transcript)

    def turn(self, record: CallRecord, turn: TurnInput, turn_id: str) -> AgentTurn:
        """``turn``, with what was said before it that the agent does not know."""
        self._asked = len(record.transcript)
        opening = _said_before(self._news(record), turn.text)
        return make_turn(record, self._brain, turn, turn_id, opening)

    def taken(self, record: CallRecord) -> None:
        """The turn is in the agent's history: it was answered, at least in part. Not called for one
        that failed before the answer began."""
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
    """What was said before ``words``, the caller's present turn: oldest first, the oldest left out
    if there is too much. What the caller said is in brackets."""
    lines: list[str] = []
    room = _OPENING_CHARS
    for entry in reversed(transcript):
        text = entry.text
        if entry.speaker is Speaker.USER:
            if words and words.endswith(text):
                # A turn may consist of several utterances.
                words = words[: -len(text)].rstrip()
                continue
            text = f"(The other party: {text})"
        lines.append(text[:room])
        room -= len(lines[-1])
        if room <= 0:
            break
    return tuple(reversed(lines))


async def settle(backend: AgentBackend, turn: AgentTurn, heard: str) -> None:
    """Tell the agent what was heard of an interrupted answer. Neither cancelled nor failing: the
    call goes on in any case."""
    try:
        with anyio.move_on_after(_SETTLE_S, shield=True) as patience:
            await backend.settle(turn, heard)
    except (Exception, SystemExit):  # noqa: BLE001 (an agent's code can raise anything)
        _log.exception("call %s: the agent failed to note what was heard", turn.call_id)
        return
    if patience.cancelled_caught:
        text = "call %s: the agent took more than %g s to note what was heard"
        _log.warning(text, turn.call_id, _SETTLE_S)
