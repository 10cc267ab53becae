"""What carriers report: assigns the events of a webhook to their call, or opens a new call.

An event of a call that is not live opens a new one without asking the store first. If the store
knows the carrier's id or the event, it refuses the commit, and only then is it queried.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio
from msgspec.structs import replace

from voicecall import events as ev
from voicecall import machine as mc
from voicecall import telephony as tel
from voicecall.errors import DuplicateKey, StoreError
from voicecall.model import CallRecord, Direction, EndDetail
from voicecall.store import Commit, RecordedReply
from voicecall.wellformed import well_formed
from voicecall_calls.news import LazyEvent

from .admission import admit_inbound
from .inbound import inbound_record
from .lane import Applied, CallLane, ReplyMaker
from .replies import as_reply, recorded

if TYPE_CHECKING:
    from .engine import CallEngine

__all__ = ["Intake"]

_log = logging.getLogger("voicecall.calls")

OPENING_AGE_MS = 60_000
"""How old the event that opens a call may be: its webhook may be a late redelivery."""
_OVER = (ev.CallEnded, ev.CallFailed)
_OPENING = (ev.Initiated, ev.Ringing, ev.Answered, ev.Active)


class Intake:
    def __init__(self, engine: CallEngine) -> None:
        self._engine = engine
        self._opening: dict[str, LazyEvent] = {}
        """By the carrier's call id."""
        self._unsure = 0
        self._settled: anyio.Event | None = None

    async def handle(
        self,
        request: tel.WebhookRequest,
        verified: tel.Verified,
        events: Sequence[ev.CarrierEvent],
    ) -> tel.WebhookReply:
        """Commit the events of one webhook in order. The last one determines the reply."""
        engine = self._engine
        if not events:
            _log.debug("a webhook contains no event")
            empty = engine.provider.render(request, None, ()).reply
            kept = recorded(empty, verified.key, engine.seam.now_ms())
            await engine.store.commit(Commit(reply=kept))
            return empty
        *earlier, last = events
        for event in earlier:
            await self._take(event, None)
        reply = await self._take(last, self._reply_maker(request, last))
        return engine.provider.render(request, None, ()).reply if reply is None else reply

    def _reply_maker(self, request: tel.WebhookRequest, event: ev.CarrierEvent) -> ReplyMaker:
        engine = self._engine
        over = isinstance(event, _OVER)

        def make(
            record: CallRecord, actions: Sequence[tel.Action]
        ) -> tuple[RecordedReply, list[tel.Action]]:
            ref = engine.ref(record)
            if record.terminal and not actions and not over:
                # A call that is finished here asks what to do next: nothing else would end it.
                reply = engine.provider.render(request, ref, [tel.Hangup()]).reply
                return recorded(reply, event.key, engine.seam.now_ms()), []
            rendered = engine.provider.render(request, ref, actions)
            return recorded(rendered.reply, event.key, engine.seam.now_ms()), list(rendered.rest)

        return make

    # --- finding the call -------------------------------------------------------------------

    async def _take(
        self, event: ev.CarrierEvent, maker: ReplyMaker | None
    ) -> tel.WebhookReply | None:
        try:
            lane = self._live(event)
            if lane is None:
                return await self._take_unknown(event, maker)
        except _IdentityClash:
            text = "a webhook is ignored: the carrier's id %s and our id %s are of different calls"
            _log.warning(text, event.provider_call_id, event.call_id)
            return None
        return await self._apply(lane, event, maker)

    async def _apply(
        self, lane: CallLane, event: ev.CarrierEvent, maker: ReplyMaker | None
    ) -> tel.WebhookReply | None:
        now = self._engine.seam.now_ms()
        if isinstance(event, _OVER):
            event = _in_time(event, lane.record.started_at, now)
        else:
            event = _from_now_on(event, now)
        return await self._reply(event, await lane.apply(event, reply=maker))

    async def _reply(self, event: ev.CarrierEvent, applied: Applied) -> tel.WebhookReply | None:
        """The reply to an event, made now or when the event was first applied."""
        if applied.duplicate:
            return as_reply(await self._engine.store.reply(event.key))
        return as_reply(applied.reply)

    def _live(self, event: ev.CarrierEvent) -> CallLane | None:
        """The live call of an event. The carrier's id decides: if it is known, our id in the event
        must belong to the same call."""
        lane = self._engine.lane_with(event.provider_call_id)
        if lane is not None and event.call_id and event.call_id != lane.record.call_id:
            raise _IdentityClash
        return lane

    async def _known(self, event: ev.CarrierEvent) -> CallLane | None:
        """The lane of an event; a finished call gets a lane for just this event."""
        engine = self._engine
        if (lane := self._live(event)) is not None:
            return lane
        record = await engine.store.find(engine.provider_id, event.provider_call_id)
        if record is None and event.call_id:
            lane = engine.lanes.get(event.call_id)
            record = lane.record if lane is not None else await engine.store.load(event.call_id)
        if record is None:
            return None
        if event.call_id and event.call_id != record.call_id:
            raise _IdentityClash
        lane = engine.lanes.get(record.call_id)
        if lane is not None:
            return lane
        return CallLane(record, engine) if record.terminal else await engine.take_up(record)

    async def _take_unknown(
        self, event: ev.CarrierEvent, maker: ReplyMaker | None
    ) -> tel.WebhookReply | None:
        """Handle an event of a call that is not live. Only one event at a time may open the call
        with a given id."""
        id_ = event.provider_call_id
        while (before := self._opening.get(id_)) is not None:
            await before.wait()
        if (lane := self._live(event)) is not None:
            return await self._apply(lane, event, maker)
        over = self._opening[id_] = LazyEvent()
        try:
            return await self._open_or_find(event, maker)
        finally:
            del self._opening[id_]
            over.set()

    async def _open_or_find(
        self, event: ev.CarrierEvent, maker: ReplyMaker | None
    ) -> tel.WebhookReply | None:
        # Under the pairing policy callers are told a code, which must not happen twice.
        asks = self._engine.config.inbound_policy == "pairing"
        refused: StoreError | None = None
        if _opens(event) and event.call_id is None and not asks:
            try:
                applied = await self._open_unsure(event, maker)
            except StoreError as error:
                # The carrier's id may be that of a finished call.
                refused = error
            else:
                if applied is not None and not applied.duplicate:
                    return as_reply(applied.reply)
        if (lane := await self._known(event)) is not None:
            return await self._apply(lane, event, maker)
        if refused is not None:
            raise refused
        if _opens(event):
            return await self._reply(event, await self._open(event, maker))
        name, call = type(event).__name__, event.provider_call_id
        _log.info("an event of an unknown call is ignored: %s of %.80s", name, call)
        return None

    # --- inbound calls ----------------------------------------------------------------------

    async def _open_unsure(
        self, event: ev.CarrierEvent, maker: ReplyMaker | None
    ) -> Applied | None:
        """:meth:`_open` a call that the store may already know. None if no place is free: before
        the call is refused, it must be certain that it is new."""
        self._unsure += 1
        try:
            return await self._open(event, maker, sure=False)
        except _Full:
            return None
        finally:
            self._unsure -= 1
            if self._settled is not None:
                self._settled.set()
                self._settled = None

    async def _has_place(self, call_id: str, *, sure: bool) -> bool:
        """Take a place for the call; False if none is free. Places held by calls that may turn out
        to be known are waited for: they may be released in a moment."""
        while not await self._engine.places.take(Direction.INBOUND, call_id):
            if not sure:
                raise _Full
            if not self._unsure:
                return False
            if self._settled is None:
                self._settled = anyio.Event()
            await self._settled.wait()
        return True

    async def _open(
        self, event: ev.CarrierEvent, maker: ReplyMaker | None, *, sure: bool = True
    ) -> Applied:
        """Raises ``StoreError``, also if the call is already stored."""
        engine = self._engine
        now = engine.seam.now_ms()
        event = well_formed(_in_time(event, now - OPENING_AGE_MS, now))
        call_id = engine.seam.new_id()
        admission = await admit_inbound(engine.config, event.from_number, engine.pairing)
        refusal = admission.refused
        if refusal is None and not engine.accepting:
            refusal = EndDetail.SHUTDOWN
        if refusal is None and not await self._has_place(call_id, sure=sure):
            refusal = EndDetail.CAPACITY
        if refusal is not None:
            return await self._refuse(event, maker, call_id, refusal)
        record = inbound_record(engine, event, call_id, admission.code)
        event = _from_now_on(event, now)
        step = mc.step(record, event, engine.policy)
        stored = False
        try:
            applied = await CallLane(record, engine).open(step, event, reply=maker)
            stored = not applied.duplicate
            return applied
        except StoreError as error:
            if not isinstance(error, DuplicateKey):
                engine.strays.look_for(call_id)
            raise
        finally:
            if not stored:
                await engine.places.give_back(record)

    async def _refuse(
        self, event: ev.CarrierEvent, maker: ReplyMaker | None, call_id: str, detail: EndDetail
    ) -> Applied:
        engine = self._engine
        step = mc.refuse_inbound(
            call_id=call_id, provider=engine.provider_id, event=event, detail=detail
        )
        applied = await CallLane(step.record, engine).open(step, event, reply=maker)
        if not applied.duplicate:
            engine.refused[detail.value] += 1
            _log.info("inbound call %s refused: %s", call_id, detail.value)
        return applied


class _Full(Exception):
    """No place is free at the moment."""


class _IdentityClash(Exception):
    """Our id and the carrier's id in one event belong to different calls."""


def _opens(event: ev.CarrierEvent) -> bool:
    return isinstance(event, _OPENING) and event.direction is Direction.INBOUND


def _in_time(event: ev.CarrierEvent, earliest: int, now: int) -> ev.CarrierEvent:
    """The event, its time limited to a plausible range: a carrier's clock may be wrong."""
    at = max(min(event.at, now), earliest)
    return event if at == event.at else replace(event, at=at)


def _from_now_on(event: ev.CarrierEvent, now: int) -> ev.CarrierEvent:
    """The event, dated now. Deadlines count from it: if it was reported late, or by a clock that is
    slow, the media socket would have no time left to connect."""
    return event if now == event.at else replace(event, at=now)
