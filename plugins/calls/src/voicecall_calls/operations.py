"""The operations of the phone that RPC, the agent tool and commands call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio

from voicecall import events as ev
from voicecall import machine as mc
from voicecall.errors import (
    CallNotActive,
    CallNotFound,
    CallNotReady,
    CapacityExceeded,
    ConfigError,
    DuplicateKey,
    InvalidRequest,
    RequestRejected,
    StoreError,
)
from voicecall.model import CallMode, CallRecord, CallState, EndDetail
from voicecall.store import Approval, DialReservation
from voicecall.tones import check_digits
from voicecall_calls.config import CONFIG_PATH, normalize_number
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.conversation.question import WAITING
from voicecall_calls.engine.admission import in_spite_of, revoke
from voicecall_calls.engine.engine import CallEngine
from voicecall_calls.engine.lane import CallLane
from voicecall_calls.engine.sessions import session_key
from voicecall_calls.latency import latency_report
from voicecall_calls.pairing import Pairing

__all__ = ["CallOperations", "DialOptions", "projection"]

_TWO_WAITS = re.compile(r"[w,]{2}")
_LONGEST_KEY = 256
"""Characters of an idempotency key: not every store can look up longer ones."""
_MOCK_FROM = "+15550000000"
_END_PATIENCE_S = 30.0
_DIAL_PATIENCE_S = 10.0
_ASK_SLACK_MS = 30_000
_SLOWEST_MS = 125
"""Longest time that speaking one character takes."""


def projection(record: CallRecord) -> dict[str, Any]:
    """The part of a call that API clients see: no numbers, no transcript."""
    values = {
        "callId": record.call_id,
        "providerCallId": record.provider_call_id,
        "provider": record.provider,
        "direction": record.direction.value,
        "state": record.state.value,
        "startedAt": record.started_at,
        "answeredAt": record.answered_at,
        "endedAt": record.ended_at,
        "endReason": record.end_reason.value if record.end_reason else None,
        "endDetail": record.end_detail.value if record.end_detail else None,
    }
    return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class DialOptions:
    """``to`` falls back to ``toNumber``, ``agent_id`` to the default agent. ``idempotency_key``: a
    repeated request with the same key returns the same call; with another number or message it is
    refused."""

    to: str | None
    message: str | None = None
    mode: CallMode | None = None
    dtmf_sequence: str | None = None
    session_key: str | None = None
    requester_session_key: str | None = None
    agent_id: str | None = None
    idempotency_key: str | None = None


class CallOperations:
    """``dialling_agent`` maps the requested agent, or None, to the agent of a call; it raises
    ``InvalidRequest`` for one that cannot take calls. ``longest_text`` returns the length in
    characters of the longest message that a call may speak, or None for no limit. ``standing``
    returns what the status of all calls reports besides the calls."""

    def __init__(
        self,
        engine: CallEngine,
        *,
        dialling_agent: Callable[[str | None], str],
        longest_text: Callable[[CallRecord], int | None] = lambda record: None,
        standing: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._engine = engine
        self._dialling_agent = dialling_agent
        self._longest_text = longest_text
        self._standing = standing
        self._keyed = anyio.Lock()
        self._asked: list[str] = []
        """Calls with a pending question."""

    @property
    def pairing(self) -> Pairing:
        return self._engine.pairing

    def in_spite_of(self, approval: Approval) -> str | None:
        """Why the configuration gives an approval or revocation no effect; None if it has one."""
        return in_spite_of(self._engine.config, approval)

    async def revoke(self, number: str) -> Approval:
        """Refuse a caller from now on. Raises ``InvalidRequest`` for a caller who was neither
        approved nor waiting."""
        return await revoke(self._engine.config, self.pairing, number)

    async def latency(self, last: int) -> Mapping[str, Any]:
        """Statistics over the newest ``last`` turns."""
        return latency_report(await self._engine.store.turns(limit=last))

    # --- placing a call ---------------------------------------------------------------------

    async def dial(self, options: DialOptions) -> CallRecord:
        """Place a call. Returns once the call is recorded, before it is answered."""
        if options.idempotency_key is None:
            return await self._dial(options)
        if len(options.idempotency_key) > _LONGEST_KEY:
            raise InvalidRequest(f"idempotencyKey may be at most {_LONGEST_KEY} characters long")
        # A second request with the same key must not overlap with the first.
        async with self._keyed:
            return await self._dial(options)

    async def _dial(self, options: DialOptions) -> CallRecord:
        engine = self._engine
        if not engine.accepting:
            raise CallNotReady("Voice Call manager is stopping")
        mode = options.mode or CallMode(engine.config.outbound.default_mode)
        digits = self._dial_digits(options, mode)
        to_number = self._to_number(options.to)
        from_number = self._from_number()
        agent = self._dialling_agent(options.agent_id)
        message = (options.message or "").strip() or None
        if mode is CallMode.NOTIFY and message is None:
            raise InvalidRequest("message is required in notify mode")
        if options.idempotency_key is not None:
            known = await engine.store.reservation(options.idempotency_key)
            if known is not None:
                return await self._known(known, to_number, message)
        call_id = engine.seam.new_id()
        at = engine.seam.now_ms()
        step = mc.open_outbound(
            call_id=call_id,
            provider=engine.provider_id,
            from_number=from_number,
            to_number=to_number,
            at=at,
            mode=mode,
            media=engine.media,
            message=message,
            policy=engine.policy,
            dtmf_sequence=digits,
            agent_id=agent,
            requester_session_key=options.requester_session_key,
            session_key=session_key(
                agent_id=agent,
                scope=engine.config.session_scope,
                call_id=call_id,
                remote_number=to_number,
                explicit=options.session_key,
                one_for_all=engine.one_for_all,
            ),
        )
        step = engine.planner.with_message_at_dial(step)
        self._check_length(step.record, message or "")
        if not await engine.places.take(step.record.direction, call_id):
            limit = engine.config.max_concurrent_calls
            raise CapacityExceeded(f"Maximum concurrent calls ({limit}) reached")
        reservation = DialReservation(options.idempotency_key or call_id, call_id, at)
        try:
            return await self._opened(step, ev.CallOpened(at=at), reservation)
        except StoreError as error:
            if isinstance(error, DuplicateKey) and error.kind == "dial":
                known = await engine.store.reservation(reservation.key)
                if known is not None:
                    return await self._known(known, to_number, message)
            engine.strays.look_for(call_id)
            raise

    async def _opened(
        self, step: mc.Step, event: ev.CallOpened, reservation: DialReservation
    ) -> CallRecord:
        """Open a call that has its place; the place is given back if that fails."""
        engine, opened = self._engine, False
        try:
            rate = engine.config.outbound.max_per_minute
            if rate is not None and not await engine.coordinator.allow("dial", per_minute=rate):
                raise CapacityExceeded(f"Maximum calls per minute ({rate}) reached")
            lane = CallLane(step.record, engine)
            await lane.open(step, event, reservation=reservation)
            opened = True
            return lane.record
        finally:
            if not opened:
                await engine.places.give_back(step.record)

    async def placed(self, record: CallRecord) -> None:
        """Wait, for ten seconds at most, until the carrier has answered the dial request of a call.
        Raises a ``ProviderError`` with the reason if it was not placed."""
        lane = self._engine.lanes.get(record.call_id)
        if lane is not None:
            if lane.record.provider_call_id is None and not lane.record.recovering:
                with anyio.move_on_after(_DIAL_PATIENCE_S):
                    await lane.dialled.wait()
            record = lane.record
        if record.end_detail is EndDetail.DIAL_FAILED:
            if lane is not None and lane.dial_refused is not None:
                raise lane.dial_refused
            # The request was repeated with the same key.
            why = record.end_note or "the call was not placed"
            why = why.removeprefix(f"{record.provider}: ")
            raise RequestRejected(why, provider=record.provider)

    async def _known(
        self, reservation: DialReservation, to_number: str, message: str | None
    ) -> CallRecord:
        """The call that was placed earlier with the same key."""
        record = await self._stored(reservation.call_id)
        before = record.message.text if record.message is not None else None
        if (record.to_number, before) != (to_number, message):
            raise InvalidRequest(
                "idempotencyKey was used for another call: to another number, or with another"
                " message"
            )
        return record

    def _dial_digits(self, options: DialOptions, mode: CallMode) -> str | None:
        if options.dtmf_sequence is None:
            return None
        digits = check_digits(options.dtmf_sequence)
        if mode is not CallMode.CONVERSATION:
            raise InvalidRequest("dtmfSequence requires conversation mode")
        can, carrier = self._engine.provider.capabilities, self._engine.provider_id
        if not can.pre_connect_dtmf:
            raise InvalidRequest(f"{carrier} does not support pre-connect DTMF")
        most = can.longest_pre_connect_dtmf
        if most is not None and len(digits) > most:
            # Two half-second waits become one of a second: bots that dial into a conference begin
            # with many.
            digits = _TWO_WAITS.sub("W", digits)
        if most is not None and len(digits) > most:
            raise InvalidRequest(f"{carrier} accepts a dtmfSequence of at most {most} characters")
        return digits

    def _to_number(self, to: str | None) -> str:
        number = to if to and to.strip() else self._engine.config.to_number
        if number is None:
            raise InvalidRequest("to is required (or configure toNumber)")
        normal = normalize_number(number)
        if normal is None:
            raise InvalidRequest("to must be a phone number in E.164 form, such as +15550001234")
        if not self._engine.config.outbound.allows(normal):
            raise InvalidRequest("to is not allowed by outbound.allowTo")
        return normal

    def _from_number(self) -> str:
        number = self._engine.config.from_number
        if number is not None:
            return number
        if self._engine.provider.capabilities.from_number_required:
            raise ConfigError("is required to place calls", path=f"{CONFIG_PATH}.fromNumber")
        return _MOCK_FROM

    # --- live calls -------------------------------------------------------------------------

    async def speak(self, call_id: str, message: str) -> None:
        """Speak on a connected call. Returns when the message was played."""
        lane, talk = await self._connected(call_id)
        await talk.say(self._message(lane, message))

    async def ask(self, call_id: str, message: str) -> str:
        """Speak, then return what the other side answers."""
        lane, talk = await self._connected(call_id)
        text = self._message(lane, message)
        timeout_s = self._engine.config.transcript_timeout_ms / 1000
        self._asked.append(lane.record.call_id)
        try:
            return await talk.ask(text, timeout_s)
        finally:
            self._asked.remove(lane.record.call_id)

    def _message(self, lane: CallLane, message: str) -> str:
        text = message.strip()
        if not text:
            raise InvalidRequest("message is required")
        self._check_length(lane.record, text)
        return text

    def _check_length(self, record: CallRecord, message: str) -> None:
        longest = self._longest_text(record)
        if longest is not None and len(message) > longest:
            raise InvalidRequest(
                f"message has {len(message)} characters; tts.maxTextLength allows {longest}"
            )

    async def check_ask(self, call_id: str, message: str) -> int:
        """Check a request before :meth:`ask` is called. Returns the longest time that it can take,
        in milliseconds."""
        lane, _talk = await self._connected(call_id)
        text, config = self._message(lane, message), self._engine.config
        if lane.record.call_id in self._asked:
            raise CallNotReady(WAITING)
        spoken_ms = config.tts.timeout_ms + len(text) * _SLOWEST_MS
        return spoken_ms + config.transcript_timeout_ms + _ASK_SLACK_MS

    async def dtmf(self, call_id: str, digits: str) -> None:
        """Play keypad tones on a connected call."""
        checked = check_digits(digits)
        lane, talk = await self._connected(call_id)
        if not self._engine.provider.capabilities.dtmf_out:
            raise RequestRejected("outbound DTMF is not supported", provider=lane.record.provider)
        await talk.play_digits(checked)

    async def end(self, call_id: str) -> CallRecord:
        """End a call and return its final record. Ending a finished call succeeds."""
        lane = self._engine.lane_of(call_id)
        if lane is None:
            return await self._stored(call_id)
        await lane.apply(ev.EndRequested(at=self._engine.seam.now_ms()))
        with anyio.move_on_after(_END_PATIENCE_S):
            await lane.released()
        if lane.record.live:
            raise CallNotReady("the hang-up is still under way; it will be repeated")
        return lane.record

    async def status(self, call_id: str | None) -> Mapping[str, Any]:
        """One call (live or stored), or all live ones and the state of the phone."""
        if call_id is None:
            lanes = self._engine.lanes.values()
            live = [projection(lane.record) for lane in lanes]
            return {"found": True, "calls": live, **self._standing()}
        record = await self._engine.stored(call_id)
        return {"found": False} if record is None else {"found": True, "call": projection(record)}

    async def _stored(self, call_id: str) -> CallRecord:
        record = await self._engine.stored(call_id)
        if record is None:
            raise CallNotFound(call_id)
        return record

    async def _connected(self, call_id: str) -> tuple[CallLane, Conversation]:
        lane = self._engine.lane_of(call_id)
        if lane is None:
            raise CallNotActive(call_id, _last_state(await self._stored(call_id)))
        conversation = lane.begin()
        if lane.record.ending is not None or conversation is None:
            doing = "ending" if lane.record.ending is not None else "not connected yet"
            raise CallNotReady(f"the call is {doing} (state {lane.record.state.value})")
        return lane, conversation


def _last_state(record: CallRecord) -> str:
    reason = record.end_reason.value if record.end_reason else CallState.ERROR.value
    ended = datetime.fromtimestamp((record.ended_at or 0) / 1000, UTC)
    return f"{reason} at {ended.isoformat(timespec='seconds')}"
