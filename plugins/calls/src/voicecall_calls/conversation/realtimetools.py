"""Tools of a full-duplex voice model: hang up, and ask the agent."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from voicecall import events as ev
from voicecall.agent import AgentTurn, EndCall, TextDelta
from voicecall.errors import ProviderError
from voicecall.model import EndDetail, EndReason
from voicecall.realtime import Delegation, RealtimeSession, Tool, ToolCall
from voicecall.seam import Seam
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.dialogue import Brain
from voicecall_calls.conversation.realtimelink import SessionJob
from voicecall_calls.conversation.realtimevoice import ModelVoice
from voicecall_calls.conversation.realtimewords import consult_prompt, consult_request
from voicecall_calls.spoken import SpokenStream

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["CONSULT", "END_CALL", "RealtimeTools"]

_log = logging.getLogger("voicecall.calls")

END_CALL = Tool(
    "voicecall_end_call",
    "Hang up. Say your last words before you call this.",
    {"type": "object", "properties": {}},
)
CONSULT = Tool(
    "voicecall_agent_consult",
    "Ask the agent behind this call: for facts, memory, tools, anything current.",
    {
        "type": "object",
        "properties": {
            "question": {"type": "string", "description": "What the caller wants to know."},
            "context": {"type": "string", "description": "What else matters."},
            "responseStyle": {"type": "string", "description": "How the answer should sound."},
        },
        "required": ["question"],
    },
)
_OLD_NAMES = {"openclaw_end_call": END_CALL.name, "openclaw_agent_consult": CONSULT.name}
_MOST_CALLS = 20
_IN_S = 60.0
_FAREWELL_S = 10.0
_WORKING = {"status": "working", "message": "Tell the caller briefly that you are checking."}

Result = Mapping[str, Any]


@dataclass(slots=True)
class _Consult:
    """One run of the agent, shared by the calls that overlap it."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    done: anyio.Event = field(default_factory=anyio.Event)
    result: Result = field(default_factory=dict)
    waiters: int = 0


class RealtimeTools:
    """``do`` runs a job as a task of the session, ``settled`` waits until the transcript holds
    everything that was said so far."""

    def __init__(
        self,
        lane: CallLane,
        brain: Brain,
        voice: ModelVoice,
        *,
        config: VoiceCallConfig,
        seam: Seam,
        do: Callable[[SessionJob], None],
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._lane = lane
        self._brain = brain
        self._voice = voice
        self._policy = config.realtime.tool_policy
        self._interim_s = config.filler_after_ms / 1000 or None
        self._seam = seam
        self._do = do
        self._settled = settled
        self._consult: _Consult | None = None
        self._calls: dict[str, anyio.CancelScope] = {}
        self._recent: dict[str, deque[float]] = {}

    def declared(self) -> tuple[Tool, ...]:
        return (END_CALL,) if self._policy == "none" else (END_CALL, CONSULT)

    # --- calls ------------------------------------------------------------------------------

    def call(self, call: ToolCall) -> None:
        """Carry out a call of the model; its result goes to the session."""
        self._do(partial(self._answer, call))

    def delegate(self, delegation: Delegation) -> None:
        """Carry out what the model hands over."""
        arguments = {"question": delegation.request}
        self._do(partial(self._answer, ToolCall(delegation.id, CONSULT.name, arguments)))

    def cancel(self, call_id: str) -> None:
        """The model does not want the result any more."""
        scope = self._calls.get(call_id)
        if scope is not None:
            scope.cancel()

    def cancel_all(self) -> None:
        for scope in self._calls.values():
            scope.cancel()

    async def _answer(self, call: ToolCall, session: RealtimeSession) -> None:
        with anyio.CancelScope() as scope:
            self._calls[call.id] = scope
            try:
                await self._carry_out(call, session)
            finally:
                del self._calls[call.id]

    async def _carry_out(self, call: ToolCall, session: RealtimeSession) -> None:
        name = _OLD_NAMES.get(call.name, call.name)
        if self._too_often(name):
            _log.warning("call %s: tool %s in a loop", self._lane.record.call_id, name)
            error = f'Tool "{call.name}" was called too often; go on without it'
            await session.tool_result(call.id, {"error": error})
        elif name == END_CALL.name:
            await self._end_call(call, session)
        elif name == CONSULT.name and self._policy != "none":
            await self._answer_consult(call, session)
        else:
            error = f'Tool "{call.name}" not available'
            await session.tool_result(call.id, {"error": error})

    def _too_often(self, name: str) -> bool:
        now = self._seam.monotonic()
        times = self._recent.setdefault(name, deque())
        while times and times[0] <= now - _IN_S:
            times.popleft()
        times.append(now)
        return len(times) > _MOST_CALLS

    async def _end_call(self, call: ToolCall, session: RealtimeSession) -> None:
        before = self._voice.interruptions
        # The farewell is heard first.
        with anyio.move_on_after(_FAREWELL_S):
            await self._voice.quiet()
        if self._voice.interruptions != before:
            ended = {"ended": False, "message": "The caller interrupted; the call goes on."}
            await session.tool_result(call.id, ended)
            return
        await session.tool_result(call.id, {"ended": True}, when="silent")
        await self._lane.apply(
            ev.EndRequested(
                at=self._seam.now_ms(), reason=EndReason.HANGUP_BOT, detail=EndDetail.AGENT
            )
        )

    # --- the agent --------------------------------------------------------------------------

    async def _answer_consult(self, call: ToolCall, session: RealtimeSession) -> None:
        question, context = consult_request(call.arguments)
        if not question:
            await session.tool_result(call.id, {"error": "question is missing"})
            return
        consult = self._consult
        if consult is None:
            self._consult = consult = _Consult()
            self._do(partial(self._run_consult, consult, question, context))
        consult.waiters += 1
        try:
            with anyio.move_on_after(self._interim_s):
                await consult.done.wait()
            if not consult.done.is_set():
                await session.tool_result(call.id, _WORKING, will_continue=True)
                await consult.done.wait()
        finally:
            consult.waiters -= 1
            if not consult.waiters:
                consult.scope.cancel()
        await session.tool_result(call.id, consult.result)

    async def _run_consult(
        self, consult: _Consult, question: str, context: str, session: RealtimeSession
    ) -> None:
        try:
            with consult.scope:
                await self._settled()
                consult.result = await self._ask(question, context)
        finally:
            if self._consult is consult:
                self._consult = None
            consult.done.set()

    async def _ask(self, question: str, context: str) -> Result:
        record = self._lane.record
        turn = AgentTurn(
            turn_id=self._seam.new_id(),
            call_id=record.call_id,
            session_key=record.session_key or record.call_id,
            agent_id=self._brain.agent_id,
            text=consult_prompt(question, context, record.transcript, self._seam.now_ms()),
            direction=record.direction.value,
            remote_number=record.remote_number,
            system_prompt=self._brain.system_prompt,
            owner=self._policy == "owner",
            metadata={"toolPolicy": self._policy},
        )
        try:
            with anyio.fail_after(self._brain.timeout_s):
                return await self._reply(turn)
        except TimeoutError:
            return {"error": f"the agent gave no answer within {self._brain.timeout_s:g} s"}
        except ProviderError as error:
            _log.warning("call %s: the agent failed: %s", record.call_id, error)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._brain.backend.settle(turn, "")
            raise
        except Exception:  # noqa: BLE001 (an agent's code can raise anything)
            _log.exception("the agent failed")
        return {"error": "the agent failed; tell the caller that it is not possible now"}

    async def _reply(self, turn: AgentTurn) -> Result:
        stream = SpokenStream()
        sentences: list[str] = []
        ends = False
        async for event in self._brain.backend.reply(turn):
            if isinstance(event, TextDelta):
                sentences += stream.feed(event.text)
            elif isinstance(event, EndCall):
                ends = True
        sentences += stream.finish()
        result: dict[str, Any] = {"answer": " ".join(sentences)}
        if ends or stream.end_requested:
            result["then"] = f"Say goodbye and call {END_CALL.name}."
        return result
