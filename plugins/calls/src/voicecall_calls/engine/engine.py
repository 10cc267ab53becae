"""The call engine: routes events to lanes, carries out effects, and recovers after a restart."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol
from urllib.parse import quote

import anyio
import anyio.abc

from voicecall import events as ev
from voicecall import machine as mc
from voicecall import telephony as tel
from voicecall.coordinator import Coordinator
from voicecall.errors import StoreError
from voicecall.media import Started, Upgrade
from voicecall.model import CallRecord, EndDetail, MediaPath, TranscriptEntry
from voicecall.seam import Seam
from voicecall.store import CallStore, TurnRow
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.doors import AdmissionRefused, Attachment, MediaSocket
from voicecall_calls.news import LazyEvent
from voicecall_calls.pairing import Pairing

from .company import Company
from .deadlines import Deadlines
from .effects import Effects
from .intake import Intake
from .lane import CallLane, Job
from .places import Places
from .planner import Planner
from .replies import as_reply
from .steady import SteadySeam
from .strays import Strays

__all__ = ["CallEngine", "Observer"]

_log = logging.getLogger("voicecall.calls")

_BUSY_CALLS = 16


class Observer(Protocol):
    """Notified of committed events and of calls that have ended."""

    def event(self, record: CallRecord, event: ev.CallEvent) -> None: ...

    def said(self, record: CallRecord, entry: TranscriptEntry) -> None: ...

    def turn(self, row: TurnRow) -> None: ...

    def ended(self, record: CallRecord) -> None: ...


class CallEngine:
    """Implements the doors of :mod:`voicecall_calls.doors`, and provides what the lanes need."""

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
        media: MediaPath,
        voice: Callable[[CallRecord], str | None] = lambda record: None,
        one_for_all: bool = False,
    ) -> None:
        self.config = config
        self.one_for_all = one_for_all
        self.provider_id = provider_id
        self.provider = provider
        self.store = store
        self.coordinator = coordinator
        self.lanes: dict[str, CallLane] = {}
        self.seam: Seam = SteadySeam(seam, lambda: bool(self.lanes))
        self.pairing = Pairing(store, coordinator, seam)
        speaks = provider.capabilities.native_speech
        self.policy = replace(config.policy(), carrier_speaks=speaks)
        self.places = Places(coordinator, lambda: self.config, self.policy)
        self.webhook_url = webhook_url
        self.stream_url = stream_url
        self.default_agent = default_agent
        self.media = media
        self.accepting = True
        self.stopping = False
        self.refused: Counter[str] = Counter()
        """Number of refused inbound calls, by ``endDetail``."""
        self.conversations: Callable[[CallLane], Conversation] | None = None
        self.planner = Planner(
            provider.capabilities,
            self.policy,
            stream_url=stream_url,
            new_token=seam.token,
            new_id=seam.new_id,
            voice=voice,
            speaks_at_dial=provider.speaks_at_dial,
            end_silence_ms=config.silence_timeout_ms,
            refusal=lambda: self.config.phrases.refused,
        )
        self.observer = observer
        self._effects = Effects(self)
        self._intake = Intake(self)
        self.strays = Strays(self)
        self._deadlines = Deadlines(self.seam, self.spawn)
        self._by_alias: dict[str, str] = {}
        self.busy = anyio.Semaphore(_BUSY_CALLS, fast_acquire=True)
        """Bounds how many calls apply an event at the same time. When many calls change at once,
        audio waits for only some of them in each iteration of the event loop. Webhooks have their
        own caps."""
        self.company = Company(lambda: len(self.lanes))
        """Batches patient events."""
        self._tasks: anyio.abc.TaskGroup | None = None
        self._quiet = anyio.Event()
        self._ready = LazyEvent()

    def reconfigure(
        self, config: VoiceCallConfig, default_agent: str, one_for_all: bool = False
    ) -> None:
        """Set the configuration that new calls are admitted, greeted and limited by. Live calls
        keep their times."""
        self.config = config
        self.one_for_all = one_for_all
        self.default_agent = default_agent

    # --- life -------------------------------------------------------------------------------

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Recover stored calls, then accept events. On exit, live calls are left to the carrier
        and recovered at the next start."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                await self._recover()
                tasks.start_soon(self._deadlines.run)
                self._ready.set()
                try:
                    yield
                finally:
                    self.accepting, self.stopping = False, True
                    for lane in list(self.lanes.values()):
                        if lane.conversation is not None:
                            lane.conversation.close("the gateway stopped")
                    tasks.cancel_scope.cancel()
        finally:
            # Even if the shutdown is cut short: a webhook may arrive after that.
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
                recovering.start_soon(self._recover_one, lane)

    async def _recover_one(self, lane: CallLane) -> None:
        record = lane.record
        await self.places.take(record.direction, record.call_id, unlimited=True)
        await lane.apply(ev.Recovered(at=self.seam.now_ms()))

    async def take_up(self, record: CallRecord) -> CallLane:
        """Adopt a live call that only the store knows: its first commit was stored, but the
        answer was lost. The call continues as after a restart. Returns its lane. Raises
        ``StoreError``; the call is then not adopted."""
        lane = CallLane(record, self)
        self._adopt(lane)
        try:
            await self._recover_one(lane)
        except StoreError:
            await self._forget(record)
            raise
        return lane

    async def wait_idle(self) -> None:
        """Wait until no call is live."""
        while self.lanes:
            self._quiet = anyio.Event()
            await self._quiet.wait()

    async def hang_up_all(self, patience_s: float) -> None:
        """End every live call and accept no new ones. Calls that have not ended after
        ``patience_s`` are left to the carrier and the next start."""
        self.accepting = False
        at = self.seam.now_ms()
        for lane in list(self.lanes.values()):
            asked = ev.EndRequested(at=at, detail=EndDetail.SHUTDOWN)
            self.spawn(partial(lane.bring, asked))
        with anyio.move_on_after(patience_s):
            await self.wait_idle()

    def spawn(self, job: Job) -> None:
        """Run a task that may outlive its call (a hang-up, a dial). If it fails, that is logged
        and affects nothing else."""
        if self._tasks is not None:
            self._tasks.start_soon(_contained, job)

    # --- finding lanes ----------------------------------------------------------------------

    def lane_of(self, any_id: str) -> CallLane | None:
        """The lane of the live call with this id, ours or the carrier's."""
        return self.lanes.get(any_id) or self.lane_with(any_id)

    async def stored(self, any_id: str) -> CallRecord | None:
        """The newest record of a call, live or finished, by our id or the carrier's."""
        lane = self.lane_of(any_id)
        if lane is not None:
            return lane.record
        return await self.store.load(any_id) or await self.store.find(self.provider_id, any_id)

    def _adopt(self, lane: CallLane) -> None:
        record = lane.record
        self.lanes[record.call_id] = lane
        for alias in record.aliases:
            self._by_alias[alias] = record.call_id
        self._deadlines.watch(lane)

    async def _forget(self, record: CallRecord) -> None:
        self.lanes.pop(record.call_id, None)
        for alias in record.aliases:
            if self._by_alias.get(alias) == record.call_id:
                del self._by_alias[alias]
        await self.places.give_back(record)

    def lane_with(self, provider_call_id: str) -> CallLane | None:
        """The lane of the live call with this carrier id."""
        return self.lanes.get(self._by_alias.get(provider_call_id, ""))

    def carrier_ids(self) -> Collection[str]:
        """The carrier's ids of all live calls."""
        return self._by_alias.keys()

    # --- webhooks ---------------------------------------------------------------------------

    async def recorded(
        self, verified: tel.Verified, events: Sequence[ev.CarrierEvent]
    ) -> tel.WebhookReply | None:
        """The reply to a replayed webhook that carried no event."""
        # A replayed event is recognised by its own key, like one that is delivered again.
        return None if events else as_reply(await self.store.reply(verified.key))

    async def handle(
        self,
        request: tel.WebhookRequest,
        verified: tel.Verified,
        events: Sequence[ev.CarrierEvent],
    ) -> tel.WebhookReply:
        """Commit the events of one webhook in order. The last one determines the reply."""
        await self._ready.wait()
        return await self._intake.handle(request, verified, events)

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
        # Its token is used up, and if this event were lost, no other socket would be requested.
        await lane.bring(ev.StreamAttached(at=self.seam.now_ms(), stream_id=started.stream_id))
        if lane.record.live and lane.record.stream_id != started.stream_id:
            raise AdmissionRefused(1013, "Not connected")
        conversation = None if lane.record.terminal else lane.begin()
        if conversation is None:
            raise AdmissionRefused(1008, "The call is over")
        self._effects.early.discard(lane.record.call_id)
        return conversation.attach(socket, started)

    # --- for the lanes ----------------------------------------------------------------------

    def ref(self, record: CallRecord) -> tel.CallRef:
        """The reference to the call for the carrier's adapter."""
        url = self.webhook_url()
        url += f"{'&' if '?' in url else '?'}callId={quote(record.call_id, safe='')}"
        return tel.CallRef(record.call_id, record.provider_call_id, record.aliases, url)

    async def issue_tokens(
        self, record: CallRecord, tokens: Sequence[str], *, busy_ms: int = 0
    ) -> None:
        """Register stream tokens before a document that contains them is sent. ``busy_ms``: how
        long the carrier plays something before it opens the socket."""
        ttl = self.policy.ring_timeout_ms + busy_ms + 30_000
        for token in tokens:
            await self.coordinator.put_token(token, {"call_id": record.call_id}, ttl_ms=ttl)

    def published(self, lane: CallLane, before: CallRecord, events: Sequence[ev.CallEvent]) -> None:
        """Update the indexes and deadlines for the lane's new record, and notify the observer."""
        record = lane.record
        if record.live:
            if record.call_id not in self.lanes:
                self._adopt(lane)
            else:
                for alias in record.aliases:
                    self._by_alias.setdefault(alias, record.call_id)
                self._deadlines.watch(lane)
        for event in events:
            self.observer.event(record, event)
        for entry in record.transcript[len(before.transcript) :]:
            self.observer.said(record, entry)

    async def act(
        self, lane: CallLane, effects: Sequence[mc.Effect], actions: Sequence[tel.Action]
    ) -> None:
        """Carry out effects, and the actions that were not part of a reply. Returns quickly: slow
        work becomes a task."""
        self._effects.carry_out(lane, effects, actions)
        for effect in effects:
            if isinstance(effect, mc.Release):
                await self._release(lane)
                break

    async def _release(self, lane: CallLane) -> None:
        record = lane.record
        if lane.conversation is not None:
            reason = record.end_reason.value if record.end_reason else "ended"
            lane.conversation.close(f"Call ended: {reason}")
        self._effects.early.discard(record.call_id)
        await self._forget(record)
        if record.end_detail is EndDetail.STREAM_NEVER_STARTED:
            text = "call %s: no media socket came to %s; does the proxy forward WebSockets?"
            _log.warning(text, record.call_id, self.stream_url())
        self.observer.ended(record)
        lane.release()
        self._quiet.set()


async def _contained(job: Job) -> None:
    try:
        await job()
    except Exception:  # noqa: BLE001 (the boundary between a call's task and all other calls)
        _log.exception("a task of a call failed")
