"""One serial lane a call: step, commit, publish, act. Nothing else changes a call's record."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.abc

from voicecall import events as ev
from voicecall import machine as mc
from voicecall import telephony as tel
from voicecall.errors import DuplicateKey, StoreError
from voicecall.model import CallRecord, EndDetail, EndReason
from voicecall.seam import Seam
from voicecall.store import CallStore, Commit, DialReservation, RecordedReply, StoredEvent

from .phases import note_phase
from .planner import Plan, Planner

if TYPE_CHECKING:
    from voicecall_calls.conversation.base import Conversation

__all__ = ["Applied", "CallLane", "Job", "LaneHost", "ReplyMaker"]

_log = logging.getLogger("voicecall.calls")

Job = Callable[[], Coroutine[Any, Any, None]]
"""A task of a call."""

ReplyMaker = Callable[[CallRecord, Sequence[tel.Action]], tuple[RecordedReply, list[tel.Action]]]
"""Makes the reply to the webhook that waits, and returns the actions that are left over."""


class LaneHost(Protocol):
    """What a lane needs of the engine."""

    store: CallStore
    seam: Seam
    policy: mc.CallPolicy
    planner: Planner
    busy: anyio.Semaphore
    """Bounds the calls that take an event at the same time. When many calls change at once, audio
    waits only for some of them in each round of the loop. Webhooks have caps of their own."""

    def callback_url(self, call_id: str) -> str:
        """Where the carrier sends what it has to say of a call."""
        ...

    async def issue_tokens(self, record: CallRecord, tokens: Sequence[str]) -> None:
        """Make stream tokens known before a document with them leaves."""
        ...

    def published(self, lane: CallLane, before: CallRecord, events: Sequence[ev.CallEvent]) -> None:
        """The new record is committed and visible."""
        ...

    async def act(
        self, lane: CallLane, effects: Sequence[mc.Effect], actions: Sequence[tel.Action]
    ) -> None:
        """Carry out effects and the actions that no reply took along. Quick: slow work goes to
        :meth:`CallLane.spawn`."""
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of an event. ``reply`` is set where a webhook waited."""

    outcome: mc.Outcome
    record: CallRecord
    reply: RecordedReply | None = None
    duplicate: bool = False


@dataclass(slots=True)
class _Timer:
    """Wakes when the lane's deadlines change."""

    changed: anyio.Event = field(default_factory=anyio.Event)

    def poke(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class CallLane:
    """``record`` is the newest committed record; read it freely, change it by :meth:`apply`."""

    def __init__(self, record: CallRecord, host: LaneHost) -> None:
        self.record = record
        self.host = host
        self.conversation: Conversation | None = None
        self._lock = anyio.Lock()
        self._timer = _Timer()
        self._jobs: list[Job] = []
        self._tasks: anyio.abc.TaskGroup | None = None
        self._released = anyio.Event()

    @property
    def ref(self) -> tel.CallRef:
        """The call as the carrier's adapter wants it."""
        record = self.record
        url = self.host.callback_url(record.call_id)
        return tel.CallRef(record.call_id, record.provider_call_id, record.aliases, url)

    async def new_stream(self) -> tel.StreamRequest:
        """Another media socket for the call, with its token made known."""
        stream = self.host.planner.new_stream()
        await self.host.issue_tokens(self.record, [stream.token])
        return stream

    # --- events -----------------------------------------------------------------------------

    async def apply(
        self,
        event: ev.CallEvent,
        *,
        reply: ReplyMaker | None = None,
        reservation: DialReservation | None = None,
    ) -> Applied:
        """Take one event. Raises ``StoreError`` where it could not be committed; then nothing
        has changed and the event may come again."""
        async with self._exclusively(webhook=reply is not None):
            step = mc.step(self.record, event, self.host.policy)
            return await self._commit(step, event, reply, reservation)

    async def open(
        self,
        step: mc.Step,
        event: ev.CallEvent,
        *,
        reply: ReplyMaker | None = None,
        reservation: DialReservation | None = None,
    ) -> Applied:
        """Commit the first record of a call, made by an ``open_…`` or ``refuse_…`` function."""
        async with self._exclusively(webhook=reply is not None):
            return await self._commit(step, event, reply, reservation, new=True)

    @asynccontextmanager
    async def _exclusively(self, *, webhook: bool) -> AsyncIterator[None]:
        # Shielded: whoever is cancelled here must not leave a commit that nobody published.
        with anyio.CancelScope(shield=True):
            async with nullcontext() if webhook else self.host.busy, self._lock:
                yield

    async def _commit(
        self,
        step: mc.Step,
        event: ev.CallEvent,
        reply: ReplyMaker | None,
        reservation: DialReservation | None,
        *,
        new: bool = False,
    ) -> Applied:
        before = self.record
        if step.outcome is mc.Outcome.RETRYABLE:
            return Applied(step.outcome, before)
        plan = self.host.planner.plan(step, event)
        if plan.tokens:
            await self.host.issue_tokens(plan.record, plan.tokens)
        recorded, rest = None, plan.actions
        if reply is not None:
            recorded, rest = reply(plan.record, plan.actions)
        changed = new or step.outcome is mc.Outcome.PROCESSED
        keys = [event.key] if isinstance(event, ev.CarrierEvent) else []
        if changed or keys or recorded is not None:
            try:
                await self.host.store.commit(
                    Commit(
                        record=plan.record if changed else None,
                        transcript_from=0 if new else len(before.transcript),
                        events=_stored(plan) if changed else (),
                        processed_keys=keys,
                        reply=recorded,
                        reservation=reservation,
                    )
                )
            except DuplicateKey as error:
                if error.kind != "processed":
                    raise
                return Applied(mc.Outcome.IGNORED, before, duplicate=True)
        if changed:
            self.record = plan.record
            self.host.published(self, before, plan.events)
            self._timer.poke()
        if recorded is not None and len(rest) < len(plan.actions):
            note_phase(plan.record, "document served")
        await self.host.act(self, plan.effects, rest)
        return Applied(step.outcome, plan.record, recorded)

    # --- tasks of the call ------------------------------------------------------------------

    def spawn(self, job: Job) -> None:
        """Run ``job`` as a task of this call; it is cancelled when the call is released."""
        if self._tasks is not None:
            self._tasks.start_soon(self._guarded, job)
        elif not self._released.is_set():
            self._jobs.append(job)

    def release(self) -> None:
        """The call is over: end its tasks."""
        self._released.set()

    async def released(self) -> None:
        """Wait until the call is over."""
        await self._released.wait()

    async def run(self) -> None:
        """Own the call's tasks until it is released."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._watch_deadlines)
            for job in self._jobs:
                tasks.start_soon(self._guarded, job)
            self._jobs.clear()
            await self._released.wait()
            self._tasks = None
            tasks.cancel_scope.cancel()

    async def _guarded(self, job: Job) -> None:
        """One call's trouble ends that call and no other."""
        try:
            await job()
        except Exception:  # noqa: BLE001 (the boundary between calls)
            _log.exception("call %s: a task failed", self.record.call_id)
            now = self.host.seam.now_ms()
            await self.apply(
                ev.EndRequested(at=now, reason=EndReason.ERROR, detail=EndDetail.INTERNAL)
            )

    async def _watch_deadlines(self) -> None:
        retry_ms = 0
        while True:
            changed = self._timer.changed
            upcoming = self.record.next_deadline
            wait = math.inf
            if upcoming is not None:
                wait = max(upcoming[0] - self.host.seam.now_ms(), retry_ms, 0) / 1000
            with anyio.move_on_after(wait):
                await changed.wait()
                continue
            if upcoming is None:
                continue
            try:
                await self.apply(ev.DeadlineDue(at=self.host.seam.now_ms(), kind=upcoming[1]))
                retry_ms = 0
            except StoreError as error:
                # The deadline stands until it can be committed.
                retry_ms = 1000
                _log.error("call %s: deadline %s: %s", self.record.call_id, upcoming[1], error)


def _stored(plan: Plan) -> list[StoredEvent]:
    return [StoredEvent(e.at, type(e).__name__, e.to_dict()) for e in plan.events]
