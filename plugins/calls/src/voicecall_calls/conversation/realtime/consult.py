"""Consults the agent on behalf of a full-duplex voice model: one run at a time, which is shared."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from voicecall.agent import AgentTurn, EndCall, TextDelta
from voicecall.errors import ProviderError
from voicecall.realtime import RealtimeSession
from voicecall_calls.apart import apart
from voicecall_calls.config import RealtimeConfig
from voicecall_calls.conversation.agentturn import Brain, TurnInput, make_turn, settle
from voicecall_calls.conversation.losses import kind_of
from voicecall_calls.conversation.realtime.caller import CallerWords
from voicecall_calls.conversation.realtime.link import ModelLink
from voicecall_calls.conversation.realtime.words import consult_prompt, consult_question
from voicecall_calls.spoken import SpokenStream

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["Answer", "Consult", "Consults"]

_log = logging.getLogger("voicecall.calls")
_FAILED = "the agent failed; tell the caller that it is not possible now"
_NOTHING = "Nothing is known about that; tell the caller so."


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a consultation: ``text`` to be spoken, or notes on what is ``known``, or an
    ``error``. ``ends``: the agent wants the call to end."""

    text: str = ""
    known: tuple[str, ...] = ()
    error: str | None = None
    ends: bool = False


@dataclass(slots=True)
class Consult:
    """One run of the agent. ``calls`` counts the model's tool calls that are waiting for its answer
    or have received it."""

    answer: Answer = Answer(error=_FAILED)
    done: anyio.Event = field(default_factory=anyio.Event)
    calls: int = 0
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _waiters: int = 0

    @contextmanager
    def attended(self, *, by_call: bool = False) -> Iterator[None]:
        """Wait for the answer inside this context. When the last waiter leaves it, the run is
        cancelled. ``by_call``: a tool call is waiting."""
        self._waiters += 1
        self.calls += by_call
        try:
            yield
        except BaseException:
            self.calls -= by_call
            raise
        finally:
            self._waiters -= 1
            if not self._waiters:
                self.scope.cancel()


class Consults:
    """Runs the agent for one call, and lets a second request join a run in progress."""

    def __init__(
        self,
        lane: CallLane,
        link: ModelLink,
        words: CallerWords,
        brain: Brain,
        *,
        config: RealtimeConfig,
    ) -> None:
        self._current: Consult | None = None
        self._lane = lane
        self._link = link
        self._words = words
        self._brain = brain
        self._config = config
        self._seam = lane.host.seam

    @property
    def current(self) -> Consult | None:
        """The run in progress; None if there is none, or nothing waits for it any more."""
        consult = self._current
        return None if consult is None or consult.scope.cancel_called else consult

    def begin(self, question: str, context: str = "", *, speakable: bool = False) -> Consult:
        """The run in progress, or else a new one. ``speakable``: the answer will be spoken
        verbatim."""
        consult = self.current
        if consult is None:
            self._current = consult = Consult()
            self._link.do(partial(self._run, consult, question, context, speakable))
        return consult

    async def _run(
        self,
        consult: Consult,
        question: str,
        context: str,
        speakable: bool,
        session: RealtimeSession,
    ) -> None:
        try:
            with consult.scope:
                await self._words.settled()
                consult.answer = await self._answer(question, context, speakable)
        finally:
            if self._current is consult:
                self._current = None
            consult.done.set()

    async def _answer(self, question: str, context: str, speakable: bool) -> Answer:
        fast = self._config.fast_context
        if fast.enabled and not speakable:
            known = await self._recall(question)
            if known:
                return Answer(known=known)
            if not fast.fallback_to_consult:
                return Answer(text=_NOTHING)
        return await self._ask(question, context)

    def _turn(self, text: str, question: str) -> AgentTurn:
        config = self._config
        turn = make_turn(self._lane.record, self._brain, TurnInput(text), self._seam.new_id())
        return replace(
            turn,
            owner=config.tool_policy == "owner",
            thinking=config.consult_thinking_level,
            fast=config.consult_fast_mode,
            metadata={"toolPolicy": config.tool_policy, "question": question},
        )

    async def _recall(self, question: str) -> tuple[str, ...]:
        """What the agent already knows; empty if the search fails or takes too long."""
        fast, recall = self._config.fast_context, self._brain.backend.recall
        turn = self._turn(question, question)
        look = partial(recall, turn, fast.sources, fast.max_results)
        with anyio.move_on_after(fast.timeout_ms / 1000):
            try:
                found = await apart(look, "the agent's search")
                return tuple(one.text for one in found[: fast.max_results])
            except Exception:  # noqa: BLE001 (an agent's code can raise anything)
                text = "call %s: the agent failed to search its memory"
                _log.exception(text, self._lane.record.call_id)
        return ()

    async def _ask(self, question: str, context: str) -> Answer:
        record = self._lane.record
        entries = record.transcript
        question, context = consult_question(question, context, entries, self._seam.now_ms())
        turn = self._turn(consult_prompt(question, context, entries), question)
        try:
            with anyio.fail_after(self._brain.timeout_s):
                answer = await apart(partial(self._read, turn), "the agent")
            if answer.text or answer.ends:
                self._brain.trouble.worked()
                return answer
            _log.warning("call %s: the agent failed: it said nothing", record.call_id)
            why = "nothing said"
        except TimeoutError as error:
            self._brain.trouble.failed(record.call_id, kind_of(error))
            return Answer(error=f"the agent gave no answer within {self._brain.timeout_s:g} s")
        except ProviderError as error:
            _log.warning("call %s: the agent failed: %s", record.call_id, error)
            why = kind_of(error)
        except anyio.get_cancelled_exc_class():
            await settle(self._brain.backend, turn, "")
            raise
        except Exception as error:  # noqa: BLE001 (an agent's code can raise anything)
            _log.exception("call %s: the agent failed", record.call_id)
            why = kind_of(error)
        self._brain.trouble.failed(record.call_id, why)
        return Answer(error=_FAILED)

    async def _read(self, turn: AgentTurn) -> Answer:
        stream = SpokenStream()
        sentences: list[str] = []
        ends = False
        async for event in self._brain.backend.reply(turn):
            if isinstance(event, TextDelta):
                sentences += stream.feed(event.text)
            elif isinstance(event, EndCall):
                ends = True
        sentences += stream.finish()
        return Answer(" ".join(sentences), ends=ends or stream.end_requested)
