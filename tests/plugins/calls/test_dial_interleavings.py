"""Random fates of a dial request, its reply and webhooks, the store and the gateway: the request is
sent once, and no call that can be found goes on at the carrier for long after our record's end."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import (
    CallNotReady,
    OutcomeUnknown,
    ProviderUnavailable,
    RequestRejected,
    StoreError,
)
from voicecall.model import CallRecord, EndDetail, EndReason, MediaPath
from voicecall_calls.engine.places import OUTBOUND_CAP
from voicecall_testing.clock import VirtualSeam, virtual_backend
from voicecall_testing.fakes import NATIVE, ScriptedCarrier
from voicecall_testing.harness import FailingStore, Phone, open_phone

pytestmark = pytest.mark.integration

ID = "carrier-1"
RINGS_S = 30.0
LONGEST_S = 60
FOR_EVER_S = 1e6
LONG_S = 600.0
REDELIVERY_S = 4.5
DELIVERIES = 4
LONGEST_LEFT_MS = 50_000
"""A request without an answer is given up after 25 s, and looking for its call may take another
48 s; that call may have been ended at once."""
LOOKED_UP_S = 28.0
"""What is found by then goes on."""


@dataclass(frozen=True)
class Plan:
    """``waits_s`` the request waits for its turn; ``reply`` comes ``reply_s`` after the call was
    made. ``answers_s``: the callee, None: not at all. ``tells``: webhooks arrive, each ``late_s``
    after what they tell. ``ends_s``: when somebody asks for the end. ``fails_s``: when the store
    begins to fail, for ``failing_s``. ``dies_s``: when the gateway is killed, to come back after
    ``gone_s``."""

    waits_s: float
    reply: str
    reply_s: float
    looks_fail: int
    look_s: float
    answers_s: float | None
    tells: bool
    late_s: float
    ends_s: float | None
    hang_ups_fail: int
    fails_s: float | None = None
    failing_s: float = 0.0
    dies_s: float | None = None
    gone_s: float = 1.0

    @property
    def found(self) -> bool:
        """Whether the call is found in time, if it was made and nobody ends it."""
        looks = self.looks_fail + 1
        return looks * self.look_s + (1 << self.looks_fail) - 1 < LOOKED_UP_S


class Exchange(ScriptedCarrier):
    """A carrier with one call: ``made``, ``up``, ``connected``, over at ``over_at``."""

    def __init__(self, plan: Plan, world: anyio.abc.TaskGroup) -> None:
        super().__init__(NATIVE)
        self.plan = plan
        self.phone: Phone | None = None
        """The gateway while it lives."""
        self.seam = VirtualSeam()
        self.world = world
        self.made = self.up = self.connected = False
        self.over_at: int | None = None
        self._looks_left = plan.looks_fail
        down = ProviderUnavailable("down", provider="scripted")
        self.fail(tel.Hangup, *[down] * plan.hang_ups_fail)

    async def place_call(self, request: tel.DialRequest) -> str:
        self.dialled.append(request)
        await anyio.sleep(self.plan.waits_s)
        if not request.wanted():
            raise ProviderUnavailable("not wanted any more", provider="scripted")
        if self.plan.reply == "refused":
            raise RequestRejected("no such number", provider="scripted")
        self.made = self.up = True
        self.world.start_soon(self._ring, request.call_id)
        await anyio.sleep(self.plan.reply_s if self.plan.reply != "never" else FOR_EVER_S)
        if self.plan.reply == "lost":
            raise OutcomeUnknown("no reply", provider="scripted")
        return ID

    async def _ring(self, call_id: str) -> None:
        answers_s = self.plan.answers_s
        self._tell(call_id, ev.Ringing)
        await anyio.sleep(RINGS_S if answers_s is None else answers_s)
        if self.up and answers_s is not None:
            self.connected = True
            self._tell(call_id, ev.Answered)
            await anyio.sleep(LONGEST_S + 30)
        self._over(call_id, EndReason.COMPLETED if self.connected else EndReason.NO_ANSWER)

    def _over(self, call_id: str, reason: EndReason) -> None:
        if self.up:
            self.up = False
            self.over_at = self.seam.now_ms()
            self._tell(call_id, ev.CallEnded, reason=reason)

    def _tell(self, call_id: str, kind: type[ev.CarrierEvent], **more: Any) -> None:
        at, key = self.seam.now_ms(), f"{kind.__name__}-{call_id}"
        event = kind(at=at, key=key, provider_call_id=ID, call_id=call_id, **more)

        async def tell() -> None:
            await anyio.sleep(self.plan.late_s)
            for _ in range(DELIVERIES):
                if self.phone is not None:
                    with suppress(StoreError):
                        await self.phone.tell(event)
                        return
                await anyio.sleep(REDELIVERY_S)

        if self.plan.tells:
            self.world.start_soon(tell)

    async def find_dial(self, query: tel.DialQuery) -> str | None:
        await anyio.sleep(self.plan.look_s)
        if self._looks_left:
            self._looks_left -= 1
            raise ProviderUnavailable("down", provider="scripted")
        return ID if self.made else None

    async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
        if not self.up and not isinstance(action, tel.Hangup):
            raise RequestRejected("the call is over", provider="scripted")
        await super().perform(call, action)
        if isinstance(action, tel.Hangup):
            self._over(call.call_id, EndReason.COMPLETED)

    async def status(self, call: tel.CallRef) -> tel.CallStatus:
        if not self.made:
            return tel.CallStatus(ev.CarrierStatus.NOT_FOUND)
        if not self.up:
            return tel.CallStatus(ev.CarrierStatus.ENDED)
        connected = ev.CarrierStatus.CONNECTED if self.connected else ev.CarrierStatus.LIVE
        return tel.CallStatus(connected)


async def end(phone: Phone, call_id: str) -> None:
    with suppress(CallNotReady, StoreError):
        await phone.operations.end(call_id)


async def fail(store: FailingStore, begins_s: float, lasts_s: float) -> None:
    await anyio.sleep(begins_s)
    store.failures = 1_000_000
    await anyio.sleep(lasts_s)
    store.failures = 0


@asynccontextmanager
async def living(exchange: Exchange, directory: Path, seed: int) -> AsyncIterator[Phone]:
    """A gateway that is killed at the end."""
    config = {"maxDurationSeconds": LONGEST_S}
    async with open_phone(
        directory, media=MediaPath.NATIVE, carrier=exchange, config=config, seed=seed
    ) as phone:
        phone.plays = False
        exchange.phone = phone
        yield phone
        exchange.phone = None
        phone.store.failures = 1_000_000


async def dialled(plan: Plan, exchange: Exchange, directory: Path) -> list[CallRecord]:
    """The ends of the call, in one life of the gateway or two."""
    over: list[CallRecord] = []
    async with living(exchange, directory, 0) as phone:
        record = await phone.dial("Hello.")
        lives_s = LONG_S if plan.dies_s is None else plan.dies_s
        if plan.fails_s is not None:
            phone.tasks.start_soon(fail, phone.store, plan.fails_s, plan.failing_s)
        if plan.ends_s is not None and plan.ends_s < lives_s:
            await phone.settle(plan.ends_s)
            phone.tasks.start_soon(end, phone, record.call_id)
            lives_s -= plan.ends_s
        await phone.settle(lives_s)
        over += phone.watcher.ends
    if plan.dies_s is not None:
        await anyio.sleep(plan.gone_s)
        async with living(exchange, directory, 1) as phone:
            await phone.settle(LONG_S)
            over += phone.watcher.ends
    assert not phone.engine.lanes
    assert await phone.engine.coordinator.holders(OUTBOUND_CAP) == 0
    return over


async def play(plan: Plan, directory: Path) -> None:
    async with anyio.create_task_group() as world:
        exchange = Exchange(plan, world)
        (over,) = await dialled(plan, exchange, directory)
        world.cancel_scope.cancel()
    assert len(exchange.dialled) == 1
    # A call of which nothing can be stored has no conversation.
    assert over.end_detail is not EndDetail.INTERNAL or plan.fails_s is not None
    assert not exchange.up
    if exchange.over_at is not None:
        assert over.ended_at is not None
        assert exchange.over_at - over.ended_at <= LONGEST_LEFT_MS
        if plan.found and plan.ends_s is None and plan.fails_s is None:
            assert over.end_detail is not EndDetail.DIAL_UNKNOWN


seconds = st.sampled_from([0.0, 0.1, 3.0, 12.0, 24.5, 26.0, 31.0])
plans = st.builds(
    Plan,
    waits_s=seconds,
    reply=st.sampled_from(["ok", "lost", "never", "refused"]),
    reply_s=seconds,
    looks_fail=st.integers(0, 2),
    look_s=st.sampled_from([0.1, 4.0, 15.0]),
    answers_s=st.none() | st.sampled_from([0.0, 2.0, 20.0, 29.0]),
    tells=st.booleans(),
    late_s=st.sampled_from([0.0, 0.3, 5.0, 14.0]),
    ends_s=st.none() | seconds,
    hang_ups_fail=st.integers(0, 2),
    fails_s=st.none() | seconds,
    failing_s=st.sampled_from([0.5, 8.0, 25.0]),
    dies_s=st.none() | seconds,
    gone_s=st.sampled_from([0.1, 8.0, 40.0]),
)


@settings(max_examples=60)
@example(Plan(0.0, "never", 0.0, 0, 0.1, 20.0, False, 0.0, None, 0))
@example(Plan(12.0, "lost", 12.0, 0, 15.0, 20.0, False, 0.0, None, 0))
@example(Plan(0.0, "lost", 12.0, 0, 0.1, 20.0, False, 0.0, None, 0, 0.0, 25.0))
@example(Plan(0.0, "never", 0.0, 0, 15.0, 0.0, False, 0.0, 0.0, 0, None, 0.5, 31.0, 0.1))
@example(Plan(0.0, "never", 0.0, 0, 0.1, 0.0, False, 0.0, None, 0, 3.0, 25.0, 31.0, 0.1))
@given(plans)
def test_a_dial_request_is_sent_once_and_leaves_no_call_behind(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as name:
        backend, options = virtual_backend
        anyio.run(partial(play, plan, Path(name)), backend=backend, backend_options=options)
