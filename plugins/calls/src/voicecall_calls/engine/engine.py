"""The call engine: finds the lane of an event, carries out effects, recovers after a restart."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import urlencode

import anyio
import anyio.abc

from voicecall import events as ev
from voicecall import machine as mc
from voicecall import telephony as tel
from voicecall.coordinator import Coordinator
from voicecall.errors import StoreError
from voicecall.media import Started, Upgrade
from voicecall.model import (
    CallRecord,
    Direction,
    EndDetail,
    MediaPath,
    TranscriptEntry,
)
from voicecall.seam import Seam
from voicecall.store import CallStore, Commit, RecordedReply
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.pairing import Pairing
from voicecall_calls.ports import AdmissionRefused, Attachment, MediaSocket

from .admission import admit_inbound
from .effects import Effects
from .inbound import inbound_record
from .lane import Applied, CallLane, Job, ReplyMaker
from .phases import log_phases
from .places import Places
from .planner import Planner
from .replies import as_reply, recorded

__all__ = ["CallEngine", "Observer"]

_log = logging.getLogger("voicecall.calls")

OPENING_AGE_MS = 60_000
"""The first webhook of a call may come so late that its carrier delivered it again."""
_BUSY_CALLS = 16
_OPENING = (ev.Initiated, ev.Ringing, ev.Answered, ev.Active)


class Observer(Protocol):
    """After the fact: told of committed events and of ends."""

    def event(self, record: CallRecord, event: ev.CallEvent) -> None: ...

    def said(self, record: CallRecord, entry: TranscriptEntry) -> None: ...

    def ended(self, record: CallRecord) -> None: ...


class CallEngine:
    """Implements the doors of :mod:`voicecall_calls.ports` and the lanes' host."""

    def __init__(
        self,
        config: VoiceCallConfig,
        *,
        provider_id: str,
        provider: tel.TelephonyProvider,
        store: CallStore,
        coordinator: Coordinator,
        seam: Seam,
        observer: Observer,
        stream_url: Callable[[], str],
        webhook_url: Callable[[], str],
        default_agent: str,
        inbound_media: MediaPath,
        voice: Callable[[CallRecord], str | None] = lambda record: None,
    ) -> None:
        self.config = config
        self.provider_id = provider_id
        self.provider = provider
        self.store = store
        self.coordinator = coordinator
        self.seam = seam
        self.pairing = Pairing(store, coordinator, seam)
        self.policy = config.policy()
        self.places = Places(coordinator, lambda: self.config, self.policy)
        self.webhook_url = webhook_url
        self.default_agent = default_agent
        self.inbound_media = inbound_media
        self.accepting = True
        self.lanes: dict[str, CallLane] = {}
        self.conversations: Callable[[CallLane], Conversation] | None = None
        self.planner = Planner(
            provider.capabilities,
            self.policy,
            stream_url=stream_url,
            new_token=seam.token,
            new_id=seam.new_id,
            voice=voice,
            end_silence_ms=config.silence_timeout_ms,
        )
        self._observer = observer
        self._effects = Effects(self)
        self._by_alias: dict[str, str] = {}
        self.busy = anyio.Semaphore(_BUSY_CALLS, fast_acquire=True)
        self._admission = anyio.Lock()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._quiet = anyio.Event()
        self._ready = anyio.Event()

    def reconfigure(self, config: VoiceCallConfig, default_agent: str) -> None:
        """What the next calls are let in, greeted and limited by; live calls keep their times."""
        self.config = config
        self.default_agent = default_agent

    # --- life -------------------------------------------------------------------------------

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Recover stored calls, then take events. On exit live calls are left to the carrier;
        the next start finds them."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await self._recover()
            self._ready.set()
            try:
                yield
            finally:
                self.accepting = False
                for lane in list(self.lanes.values()):
                    if lane.conversation is not None:
                        lane.conversation.close("the gateway stopped")
                tasks.cancel_scope.cancel()
        self._tasks = None

    async def _recover(self) -> None:
        records = await self.store.live()
        for record in records:
            if record.provider == self.provider_id:
                self._adopt(CallLane(record, self))
            else:
                _log.warning(
                    "call %s belongs to carrier %s, which is not running",
                    record.call_id,
                    record.provider,
                )
        async with anyio.create_task_group() as recovering:
            for lane in list(self.lanes.values()):
                record = lane.record
                await self.places.take(record.direction, record.call_id, unlimited=True)
                recovering.start_soon(lane.apply, ev.Recovered(at=self.seam.now_ms()))

    async def wait_idle(self) -> None:
        """Return when no call is live."""
        while self.lanes:
            self._quiet = anyio.Event()
            await self._quiet.wait()

    def spawn(self, job: Job) -> None:
        """Run a task that may outlive its call (a hang-up, a dial)."""
        if self._tasks is not None:
            self._tasks.start_soon(job)

    # --- finding lanes ----------------------------------------------------------------------

    def lane_of(self, any_id: str) -> CallLane | None:
        """The live call with this id, ours or the carrier's."""
        return self.lanes.get(any_id) or self.lanes.get(self._by_alias.get(any_id, ""))

    async def stored(self, any_id: str) -> CallRecord | None:
        """The newest record of a call, live or over, by our id or the carrier's."""
        lane = self.lane_of(any_id)
        if lane is not None:
            return lane.record
        return await self.store.load(any_id) or await self.store.find(self.provider_id, any_id)

    def _adopt(self, lane: CallLane) -> None:
        record = lane.record
        self.lanes[record.call_id] = lane
        for alias in record.aliases:
            self._by_alias[alias] = record.call_id
        self.spawn(lane.run)

    def adopt(self, lane: CallLane) -> None:
        """Make the lane of a committed new call known."""
        self._adopt(lane)

    async def _lane_for(self, event: ev.CarrierEvent) -> CallLane | None:
        """The lane of an event; a finished call gets a lane for just this event. The carrier's id
        is what counts: where it is known, ours must be the same call's."""
        lane = self.lanes.get(self._by_alias.get(event.provider_call_id, ""))
        record = lane.record if lane is not None else None
        if record is None:
            record = await self.store.find(self.provider_id, event.provider_call_id)
        if record is None and event.call_id:
            lane = self.lanes.get(event.call_id)
            record = lane.record if lane is not None else await self.store.load(event.call_id)
        if record is None:
            return None
        if event.call_id and event.call_id != record.call_id:
            raise _IdentityClash
        lane = self.lanes.get(record.call_id)
        return CallLane(record, self) if lane is None and record.terminal else lane

    # --- webhooks ---------------------------------------------------------------------------

    async def recorded(self, verified: tel.Verified) -> tel.WebhookReply | None:
        """The reply to a replayed webhook that carried no event."""
        return as_reply(await self.store.reply(verified.key))

    async def handle(
        self,
        request: tel.WebhookRequest,
        verified: tel.Verified,
        events: Sequence[ev.CarrierEvent],
    ) -> tel.WebhookReply:
        """Commit the events of one webhook in order; the last one carries the reply."""
        await self._ready.wait()
        reply: tel.WebhookReply | None = None
        for index, event in enumerate(events):
            last = index == len(events) - 1
            maker = self._reply_maker(request, event) if last else None
            reply = await self._take(event, maker)
        if reply is not None:
            return reply
        empty = self.provider.render(request, None, ()).reply
        if not events:
            _log.debug("a webhook says nothing that changes a call")
            await self.store.commit(Commit(reply=recorded(empty, verified.key, self.seam.now_ms())))
        return empty

    def _reply_maker(self, request: tel.WebhookRequest, event: ev.CarrierEvent) -> ReplyMaker:
        over = isinstance(event, ev.CallEnded | ev.CallFailed)

        def make(
            record: CallRecord, actions: Sequence[tel.Action]
        ) -> tuple[RecordedReply, list[tel.Action]]:
            url = self.callback_url(record.call_id)
            ref = tel.CallRef(record.call_id, record.provider_call_id, record.aliases, url)
            if record.terminal and not actions and not over:
                # A call that we are done with asks what to do next: nothing would end it.
                reply = self.provider.render(request, ref, [tel.Hangup()]).reply
                return recorded(reply, event.key, self.seam.now_ms()), []
            rendered = self.provider.render(request, ref, actions)
            return recorded(rendered.reply, event.key, self.seam.now_ms()), list(rendered.rest)

        return make

    async def _take(
        self, event: ev.CarrierEvent, maker: ReplyMaker | None
    ) -> tel.WebhookReply | None:
        now = self.seam.now_ms()
        try:
            lane = await self._lane_for(event)
            if lane is None:
                async with self._admission:
                    lane = await self._lane_for(event)
                    if lane is None:
                        opening = _in_time(event, now - OPENING_AGE_MS, now)
                        applied = await self._open_inbound(opening, maker)
                        return as_reply(applied.reply) if applied else None
        except _IdentityClash:
            _log.warning("a webhook names two different calls; it has no effect")
            return None
        applied = await lane.apply(_in_time(event, lane.record.started_at, now), reply=maker)
        if applied.duplicate:
            return as_reply(await self.store.reply(event.key))
        return as_reply(applied.reply)

    async def _open_inbound(
        self, event: ev.CarrierEvent, maker: ReplyMaker | None
    ) -> Applied | None:
        """A call that somebody else started. None: not one that we make a record of."""
        if not isinstance(event, _OPENING) or event.direction is not Direction.INBOUND:
            _log.info("an event of an unknown call is ignored: %s", type(event).__name__)
            return None
        call_id = self.seam.new_id()
        admission = await admit_inbound(self.config, event.from_number, self.pairing)
        refusal = admission.refused
        if refusal is None and not self.accepting:
            refusal = EndDetail.SHUTDOWN
        if refusal is None:
            free = await self.places.take(Direction.INBOUND, call_id)
            refusal = None if free else EndDetail.CAPACITY
        if refusal is not None:
            _log.info("inbound call %s refused: %s", call_id, refusal.value)
            step = mc.refuse_inbound(
                call_id=call_id, provider=self.provider_id, event=event, detail=refusal
            )
            return await CallLane(step.record, self).open(step, event, reply=maker)
        record = inbound_record(
            self.config,
            event,
            call_id=call_id,
            provider=self.provider_id,
            media=self.inbound_media,
            policy=self.policy,
            default_agent=self.default_agent,
            code=admission.code,
        )
        step = mc.step(record, event, self.policy)
        lane = CallLane(record, self)
        try:
            applied = await lane.open(step, event, reply=maker)
        except StoreError:
            await self.places.give_back(record)
            raise
        return applied

    # --- media sockets ----------------------------------------------------------------------

    async def admit(self, started: Started, upgrade: Upgrade, socket: MediaSocket) -> Attachment:
        """Admit a media socket by its one-use token."""
        await self._ready.wait()
        value = await self.coordinator.take_token(started.token) if started.token else None
        if value is None:
            raise AdmissionRefused(1008, "Unknown call")
        lane = self.lanes.get(str(value["call_id"]))
        if lane is None or started.provider_call_id not in lane.record.aliases:
            raise AdmissionRefused(1008, "Unknown call")
        stream_id = started.stream_id
        applied = await lane.apply(ev.StreamAttached(at=self.seam.now_ms(), stream_id=stream_id))
        if applied.record.terminal or lane.conversation is None:
            raise AdmissionRefused(1008, "The call is over")
        return lane.conversation.attach(socket, started)

    def callback_url(self, call_id: str) -> str:
        url = self.webhook_url()
        return url + ("&" if "?" in url else "?") + urlencode({"callId": call_id})

    def carrier_ids(self) -> Collection[str]:
        """The carrier's ids of all live calls."""
        return self._by_alias.keys()

    async def issue_tokens(self, record: CallRecord, tokens: Sequence[str]) -> None:
        ttl = self.policy.ring_timeout_ms + 30_000
        for token in tokens:
            value: Mapping[str, Any] = {"call_id": record.call_id}
            await self.coordinator.put_token(token, value, ttl_ms=ttl)

    # --- the lanes' host --------------------------------------------------------------------

    def published(self, lane: CallLane, before: CallRecord, events: Sequence[ev.CallEvent]) -> None:
        record = lane.record
        if record.call_id not in self.lanes and record.live:
            self._adopt(lane)
        if record.live:
            for alias in record.aliases:
                self._by_alias.setdefault(alias, record.call_id)
        for event in events:
            log_phases(record, event)
            self._observer.event(record, event)
        for entry in record.transcript[len(before.transcript) :]:
            self._observer.said(record, entry)

    async def act(
        self, lane: CallLane, effects: Sequence[mc.Effect], actions: Sequence[tel.Action]
    ) -> None:
        self._effects.carry_out(lane, effects, actions)
        if any(isinstance(effect, mc.Release) for effect in effects):
            await self._release(lane)

    async def _release(self, lane: CallLane) -> None:
        record = lane.record
        if lane.conversation is not None:
            reason = record.end_reason.value if record.end_reason else "ended"
            lane.conversation.close(f"Call ended: {reason}")
        self.lanes.pop(record.call_id, None)
        for alias in record.aliases:
            if self._by_alias.get(alias) == record.call_id:
                del self._by_alias[alias]
        await self.places.give_back(record)
        self._observer.ended(record)
        lane.release()
        self._quiet.set()

    # --- outbound calls ---------------------------------------------------------------------

    def with_message_at_dial(self, step: mc.Step) -> mc.Step:
        """The first step of an outbound call, with the carrier told at once what to speak where
        it can be."""
        record = step.record
        words = self.planner.first_words(record)
        if words is None or record.message is None or not self.provider.speaks_at_dial(words):
            return step
        message = replace(record.message, at_dial=words.utterance_id)
        return replace(step, record=replace(record, message=message))


class _IdentityClash(Exception):
    """Our id and the carrier's id in one event belong to different calls."""


def _in_time(event: ev.CarrierEvent, earliest: int, now: int) -> ev.CarrierEvent:
    """The event at a time when it can have happened: deadlines count from it, and a carrier's
    clock may be wrong."""
    at = max(min(event.at, now), earliest)
    return event if at == event.at else replace(event, at=at)
