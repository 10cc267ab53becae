"""One serial lane per call: step, commit, publish, act. Nothing else changes a call's record."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec

from voicecall import events as ev
from voicecall import machine as mc
from voicecall import telephony as tel
from voicecall.errors import DuplicateKey, ProviderError, StoreError
from voicecall.model import CallRecord, EndDetail, EndReason
from voicecall.store import Commit, DialReservation, RecordedReply, StoredEvent, TurnRow
from voicecall.wellformed import well_formed
from voicecall_calls.news import LazyEvent

from .asking import store_fault
from .phases import note_phases, phases_of
from .planner import Doubt, Plan

if TYPE_CHECKING:
    from voicecall_calls.conversation.base import Conversation

    from .engine import CallEngine

__all__ = ["Applied", "CallLane", "Job", "ReplyMaker"]

_log = logging.getLogger("voicecall.calls")
_PATIENCE_S = 60.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0

Job = Callable[[], Coroutine[Any, Any, object]]
"""A task of a call."""

ReplyMaker = Callable[[CallRecord, Sequence[tel.Action]], tuple[RecordedReply, list[tel.Action]]]
"""Makes the reply to the waiting webhook, and returns it with the actions that are left over."""


class Applied(msgspec.Struct, frozen=True):
    """The result of an event, with the ``reply`` if a webhook is waiting. The reply to a
    ``duplicate`` is in the store."""

    outcome: mc.Outcome
    reply: RecordedReply | None = None
    duplicate: bool = False


class CallLane:
    """``record`` is the newest committed record, including what was :meth:`noted <note>` since.
    Read it freely; change it with :meth:`apply`."""

    def __init__(self, record: CallRecord, host: CallEngine) -> None:
        self.record = record
        self.host = host
        self.wakes_at: int | None = None
        """For :class:`~.deadlines.Deadlines`: when the call is woken."""
        self.conversation: Conversation | None = None
        """Set once it has begun."""
        self.reattaches = 0
        """For :mod:`.carrier`: how many times in quick succession a lost media socket was
        replaced."""
        self.reattached_at = -math.inf
        self.dialled = LazyEvent()
        """Set when the dial request has an outcome, or will never have one."""
        self.dial_refused: ProviderError | None = None
        self._prepared: Callable[[], Conversation] | None = None
        self._noted: list[StoredEvent] = []
        self._stored_entries = len(record.transcript)
        self._doubts: dict[str, Doubt] = {}  # By the keys of carrier events.
        # asyncio's, since anyio's looks up the current task several times.
        self._lock = asyncio.Lock()
        self._waiting = 0
        """Number of events being applied or waiting for their turn."""
        self._patient = False
        self._jobs: list[Job] = []
        """Jobs that wait for the call's task group to be opened."""
        self._tasks: anyio.abc.TaskGroup | None = None
        self._released = LazyEvent()

    @property
    def ref(self) -> tel.CallRef:
        """The reference to the call for the carrier's adapter."""
        return self.host.ref(self.record)

    async def new_stream(self, busy_ms: int = 0) -> tel.StreamRequest:
        """A request for another media socket, with its token registered. ``busy_ms``: how long the
        carrier plays something before it opens the socket."""
        stream = self.host.planner.new_stream()
        await self.host.issue_tokens(self.record, [stream.token], busy_ms=busy_ms)
        return stream

    # --- the conversation -------------------------------------------------------------------

    def prepare(self, make: Callable[[], Conversation]) -> None:
        """Set how to make the conversation of the connected call; :meth:`begin` makes it."""
        self._prepared = make

    def begin(self) -> Conversation | None:
        """The conversation, begun now if it was only prepared. None before the call is connected,
        and if the conversation cannot be made, which ends the call."""
        if self._prepared is not None:
            make, self._prepared = self._prepared, None
            try:
                self.conversation = make()
                self.spawn(self.conversation.run)
            except Exception as error:  # noqa: BLE001 (it is the failure of the call's task)
                self.spawn(partial(_fail, error))
        return self.conversation

    # --- events -----------------------------------------------------------------------------

    async def apply(
        self,
        event: ev.CallEvent,
        *,
        reply: ReplyMaker | None = None,
        turns: Sequence[TurnRow] = (),
        patient: bool = False,
    ) -> Applied:
        """Apply one event, and store ``turns`` with it. Raises ``StoreError`` if it could not be
        committed; then nothing has changed, and the event may be applied again. ``patient``:
        nothing waits for the event, so it may wait for events of other calls, but only until the
        next event of its own call."""
        self.hurry()
        self._waiting += 1
        try:
            if reply is not None:
                # Cancelled only if the gateway stops; the carrier then redelivers.
                async with self._lock:
                    return await self._take(event, reply, turns)
            # Shielded: a cancellation must not leave a commit that is not published.
            with anyio.CancelScope(shield=True):
                if patient:
                    # It does not count as busy: it would keep others out while it waits.
                    async with self._lock:
                        await self._gather()
                        applied = await self._take(event, reply, turns)
                else:
                    async with self.host.busy, self._lock:
                        applied = await self._take(event, reply, turns)
            return applied
        finally:
            self._waiting -= 1

    async def persist(
        self, event: ev.CallEvent, *, turns: Sequence[TurnRow] = (), patient: bool = False
    ) -> Applied:
        """:meth:`apply` an event that must survive a temporary failure of the store: it is tried
        again for a minute, and the request to end a call until the gateway stops. Raises
        ``StoreError``."""
        ends = isinstance(event, ev.EndRequested)
        until = math.inf if ends else self.host.seam.monotonic() + _PATIENCE_S
        pause = 0.0
        while True:
            try:
                return await self.apply(event, turns=turns, patient=patient)
            except DuplicateKey:
                raise
            except StoreError as error:
                if not pause:
                    what = type(event).__name__
                    _log.error("call %s: %s not stored: %s", self.record.call_id, what, error)
                if self.host.stopping or self.host.seam.monotonic() >= until:
                    raise
            # Short pauses: what it is about goes on meanwhile, and the gateway may be killed.
            pause = min(2 * pause or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
            await anyio.sleep(pause)

    async def bring(self, event: ev.CallEvent) -> None:
        """:meth:`persist` an event. If that fails, the event is lost, and only the call's deadlines
        remain."""
        try:
            await self.persist(event)
        except StoreError:
            _log.error("call %s: %s is lost", self.record.call_id, type(event).__name__)

    async def end(self, reason: EndReason, detail: EndDetail) -> None:
        """Request the end of the call. Raises ``StoreError`` like :meth:`persist`."""
        now = self.host.seam.now_ms()
        await self.persist(ev.EndRequested(at=now, reason=reason, detail=detail))

    def hurry(self) -> None:
        """Let patient events of this call go on: something waits for them."""
        if self._patient:
            self.host.company.hurry()

    async def note(self, event: ev.CallEvent) -> None:
        """Apply an event that may be lost in a crash: it is visible at once, and stored with the
        next event that :meth:`apply` commits."""
        self.hurry()
        self._waiting += 1
        try:
            async with self._lock:
                self._note(event)
        finally:
            self._waiting -= 1

    def _note(self, event: ev.CallEvent) -> None:
        event = well_formed(event)
        step = mc.step(self.record, event, self.host.policy)
        if step.outcome is not mc.Outcome.PROCESSED:
            return
        plan = self.host.planner.plan(step, event)
        if plan.effects or plan.actions or plan.record.terminal:
            raise ValueError(f"{type(event).__name__} cannot be noted: it has effects")
        self._noted += plan.stored()
        self._publish(plan)
        note_phases(plan.record, *_phases(plan))

    async def open(
        self,
        step: mc.Step,
        event: ev.CallEvent,
        *,
        reply: ReplyMaker | None = None,
        reservation: DialReservation | None = None,
    ) -> Applied:
        """Commit the first record of a call, from an ``open_…`` or ``refuse_…`` function."""
        if reply is not None:
            async with self._lock:
                return await self._commit(step, event, reply, reservation, new=True)
        with anyio.CancelScope(shield=True):
            async with self._lock:
                applied = await self._commit(step, event, reply, reservation, new=True)
        return applied

    async def _take(
        self, event: ev.CallEvent, reply: ReplyMaker | None, turns: Sequence[TurnRow]
    ) -> Applied:
        event = well_formed(event)
        step = mc.step(self.record, event, self.host.policy)
        return await self._commit(step, event, reply, turns=turns)

    async def _gather(self) -> None:
        if self._waiting > 1:
            return
        self._patient = True
        try:
            await self.host.company.wait()
        finally:
            self._patient = False

    async def _commit(
        self,
        step: mc.Step,
        event: ev.CallEvent,
        reply: ReplyMaker | None,
        reservation: DialReservation | None = None,
        *,
        turns: Sequence[TurnRow] = (),
        new: bool = False,
    ) -> Applied:
        if step.outcome is mc.Outcome.RETRYABLE:
            return Applied(step.outcome)
        plan = self.host.planner.plan(step, event)
        if plan.tokens:
            await self.host.issue_tokens(plan.record, plan.tokens)
        recorded, rest, duplicate = None, plan.actions, False
        if reply is not None:
            recorded, rest = reply(plan.record, plan.actions)
        changed = new or step.outcome is mc.Outcome.PROCESSED
        keys = [event.key] if isinstance(event, ev.CarrierEvent) else []
        if changed or keys or turns:
            try:
                await self.host.store.commit(
                    Commit(
                        record=plan.record if changed else None,
                        transcript_from=self._stored_entries,
                        events=[*self._noted, *plan.stored()] if changed else (),
                        processed_keys=keys,
                        reply=recorded,
                        reservation=reservation,
                        turns=turns,
                    )
                )
            except DuplicateKey as error:
                if error.kind != "processed":
                    raise
                doubt = self._doubts.get(error.key)
                if doubt is None or not changed:
                    return Applied(mc.Outcome.IGNORED, duplicate=True)
                if doubt.before is self.record:
                    # The stored reply contains the ids of this plan.
                    plan, rest = doubt.plan, doubt.rest
                recorded, duplicate = None, True
                await self.host.store.commit(
                    Commit(record=plan.record, transcript_from=self._stored_entries)
                )
            except Exception as error:
                for key in keys:
                    self._doubts[key] = Doubt(self.record, plan, rest)
                if isinstance(error, StoreError):
                    raise
                raise store_fault(error) from error
            for key in keys:
                self._doubts.pop(key, None)
        if changed:
            self._noted.clear()
            self._stored_entries = len(plan.record.transcript)
            self._publish(plan)
        for row in turns:
            self.host.observer.turn(row)
        phases = _phases(plan) if changed else []
        if recorded is not None and len(rest) < len(plan.actions):
            phases.append("document served")
        note_phases(plan.record, *phases)
        await self.host.act(self, plan.effects, rest)
        return Applied(step.outcome, recorded, duplicate)

    def _publish(self, plan: Plan) -> None:
        before, self.record = self.record, plan.record
        self.host.published(self, before, plan.events)

    # --- tasks of the call ------------------------------------------------------------------

    def spawn(self, job: Job) -> None:
        """Run ``job`` as a task of this call; it is cancelled when the call is released."""
        if self._tasks is not None:
            self._tasks.start_soon(self.guarded(job))
        elif not self._released.is_set():
            if not self._jobs:
                self.host.spawn(self._run)
            self._jobs.append(job)

    def release(self) -> None:
        """The call is over: end its tasks."""
        self._released.set()

    async def released(self) -> None:
        """Wait until the call is over."""
        await self._released.wait()

    async def _run(self) -> None:
        """Own the call's tasks until it is released."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            for job in self._jobs:
                tasks.start_soon(self.guarded(job))
            self._jobs.clear()
            try:
                await self._released.wait()
            finally:
                # Even if the engine stops: a webhook may arrive after that.
                self._tasks = None
            tasks.cancel_scope.cancel()

    def guarded(self, job: Job) -> Job:
        """``job`` with its failures contained: they end this call and no other."""

        async def run() -> None:
            try:
                await job()
            except Exception:  # noqa: BLE001 (the boundary between calls)
                # A failure after a commit while everything is being stopped is not one of the call.
                await anyio.lowlevel.checkpoint_if_cancelled()
                _log.exception("call %s: a task failed", self.record.call_id)
                now = self.host.seam.now_ms()
                await self.bring(
                    ev.EndRequested(at=now, reason=EndReason.ERROR, detail=EndDetail.INTERNAL)
                )

        return run


async def _fail(error: Exception) -> None:
    raise error


def _phases(plan: Plan) -> list[str]:
    return [name for event in plan.events for name in phases_of(plan.record, event)]
