"""Random fates of an inbound call, its webhooks, store, carrier and gateway: it is recorded once,
and nothing of it is left here or at the carrier."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import ProviderUnavailable, RequestRejected, StoreError, VoicecallError
from voicecall.model import Direction, EndDetail, EndReason, MediaPath
from voicecall_calls.doors import AdmissionRefused
from voicecall_calls.engine.places import INBOUND_CAP
from voicecall_testing.clock import VirtualSeam, virtual_backend
from voicecall_testing.fakes import NATIVE, STREAMING, ScriptedCarrier
from voicecall_testing.harness import CALLER, Phone, open_phone

pytestmark = pytest.mark.integration

ID = "carrier-1"
RINGS_S = 40.0
LONGEST_S = 60
LONG_S = 400.0
REDELIVERY_S = 4.5
DELIVERIES = 4
LONGEST_LEFT_MS = 60_000
"""Hang-ups that fail are repeated for so long."""
DOWN = ProviderUnavailable("down", provider="scripted")

STORE: Mapping[str, Mapping[str, float]] = {
    "fails once": {"failures": 1},
    "fails": {"failures": 20},
    "loses an answer": {"lost": 1},
    "loses answers": {"lost": 2},
    "is slow": {"delay_s": 0.5},
    "works": {"failures": 0, "lost": 0, "delay_s": 0.0},
}
CARRIER = ("slow", "fast", "hang-ups fail", "streams fail", "status fails")
CALL = ("drop", "keys", "speak", "end", "hang up", "die")
acts = st.lists(
    st.tuples(
        st.sampled_from((*STORE, *CARRIER, *CALL)),
        st.sampled_from([0.0, 0.01, 0.05, 0.3, 1.0, 5.0]),
    ),
    max_size=12,
)


class Exchange(ScriptedCarrier):
    """A carrier with one call, which rings, is connected, and is ``over_at`` a time. ``phone``: the
    gateway while it lives."""

    def __init__(self, media: MediaPath, steers: bool, world: anyio.abc.TaskGroup) -> None:
        super().__init__(NATIVE if media is MediaPath.NATIVE else STREAMING, steers=steers)
        self.phone: Phone | None = None
        self.seam = VirtualSeam()
        self.world = world
        self.up = True
        self.connected = False
        self.over_at = 0
        self._numbers = count()

    async def ring(self) -> None:
        self.tell(ev.Initiated, direction=Direction.INBOUND, from_number=CALLER)
        await anyio.sleep(RINGS_S)
        if not self.connected:
            self.over(EndReason.NO_ANSWER)

    def over(self, reason: EndReason) -> None:
        if self.up:
            self.up, self.over_at = False, self.seam.now_ms()
            self.tell(ev.CallEnded, reason=reason)

    def tell(self, kind: type[ev.CarrierEvent], **more: Any) -> None:
        """A webhook, which is repeated until it is answered."""
        key = f"event-{next(self._numbers)}"
        event = kind(at=self.seam.now_ms(), key=key, provider_call_id=ID, **more)

        async def deliver() -> None:
            for _ in range(DELIVERIES):
                if self.phone is not None:
                    with suppress(StoreError):
                        reply = await self.phone.tell(event)
                        for name in json.loads(reply.body or b"[]"):
                            self._obey(name)
                        return
                await anyio.sleep(REDELIVERY_S)

        self.world.start_soon(deliver)

    def _obey(self, action: str) -> None:
        if action == "Answer" and self.up and not self.connected:
            self.connected = True
            self.tell(ev.Answered)
        elif action in ("Hangup", "Reject"):
            self.over(EndReason.COMPLETED)

    async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
        if not self.up and not isinstance(action, tel.Hangup):
            raise RequestRejected("the call is over", provider="scripted")
        await super().perform(call, action)
        self._obey(type(action).__name__)

    async def status(self, call: tel.CallRef) -> tel.CallStatus:
        if self.status_errors:
            raise self.status_errors.popleft()
        if not self.up:
            return tel.CallStatus(ev.CarrierStatus.ENDED)
        connected = ev.CarrierStatus.CONNECTED if self.connected else ev.CarrierStatus.LIVE
        return tel.CallStatus(connected)

    def acts(self, phone: Phone, call: tel.CallRef | None, action: tel.Action) -> None:
        """What follows an action, however it came."""
        match action:
            case tel.Answer(stream=stream) if stream is not None:
                phone.tasks.start_soon(attach, phone, stream.token)
            case tel.AttachStream(stream=stream):
                phone.tasks.start_soon(attach, phone, stream.token)
            case tel.Speak(utterance_id=utterance_id) if self.up:
                self.tell(ev.PlaybackEnded, utterance_id=utterance_id)


async def attach(phone: Phone, token: str) -> None:
    await phone.settle()
    with suppress(AdmissionRefused, StoreError):
        await phone.attach(token, call=ID)


async def end(phone: Phone, call_id: str) -> None:
    with suppress(VoicecallError):
        await phone.operations.end(call_id)


async def act(exchange: Exchange, phone: Phone, what: str) -> None:
    for name, value in STORE.get(what, {}).items():
        setattr(phone.store, name, value)
    match what:
        case "slow" | "fast":
            exchange.delay_s = 3.0 if what == "slow" else 0.0
        case "hang-ups fail" if tel.Hangup not in exchange.action_errors:
            # Only once: hang-ups are not repeated for ever.
            exchange.fail(tel.Hangup, DOWN, DOWN)
        case "streams fail":
            exchange.fail(tel.AttachStream, DOWN, DOWN)
        case "status fails":
            exchange.status_errors.extend([DOWN, DOWN])
        case "drop" if phone.sockets:
            phone.socket.drop()
        case "keys" if exchange.up and exchange.connected:
            exchange.tell(ev.DigitsPressed, digits="5")
        case "speak" if exchange.up and exchange.connected:
            exchange.tell(ev.SpeechHeard, text="Hello?")
        case "end":
            for call_id in phone.engine.lanes:
                phone.tasks.start_soon(end, phone, call_id)
        case "hang up":
            exchange.over(EndReason.HANGUP_USER)


@asynccontextmanager
async def living(
    exchange: Exchange, media: MediaPath, directory: Path, seed: int
) -> AsyncIterator[Phone]:
    """A gateway that is killed at the end."""
    config = {"maxDurationSeconds": LONGEST_S}
    async with open_phone(
        directory, media=media, carrier=exchange, config=config, seed=seed
    ) as phone:
        exchange.phone, exchange.acted = phone, partial(exchange.acts, phone)
        yield phone
        exchange.phone = None
        phone.store.failures = 1_000_000


async def play(
    media: MediaPath, steers: bool, happens: list[tuple[str, float]], directory: Path
) -> None:
    async with anyio.create_task_group() as world:
        exchange = Exchange(media, steers, world)
        world.start_soon(exchange.ring)
        coming, lives = iter(happens), count()
        dead = True
        while dead:
            dead = False
            async with living(exchange, media, directory, next(lives)) as phone:
                for what, pause_s in coming:
                    await act(exchange, phone, what)
                    await phone.settle(pause_s)
                    dead = what == "die"
                    if dead:
                        break
                else:
                    await act(exchange, phone, "works")
                    await act(exchange, phone, "fast")
                    await phone.settle(LONG_S)
                    await check(exchange, phone)
            await anyio.sleep(1)
        world.cancel_scope.cancel()


async def check(exchange: Exchange, phone: Phone) -> None:
    assert not exchange.up
    assert not phone.engine.lanes
    assert not phone.engine.carrier_ids()
    assert await phone.engine.coordinator.holders(INBOUND_CAP) == 0
    records = await phone.store.recent(10)
    assert len(records) <= 1
    assert len(phone.watcher.ends) <= 1
    for record in records:
        assert record.ended_at is not None
        assert exchange.over_at - record.ended_at <= LONGEST_LEFT_MS
        assert record.end_detail is not EndDetail.HANGUP_FAILED
    for told in phone.watcher.ends:
        assert [(record.end_reason, record.end_detail) for record in records] == [
            (told.end_reason, told.end_detail)
        ]


@pytest.mark.parametrize("steers", [False, True])
@pytest.mark.parametrize("media", [MediaPath.NATIVE, MediaPath.STREAM])
@settings(max_examples=15)
@given(happens=acts)
def test_a_call_that_comes_in_is_recorded_once_and_leaves_nothing_behind(
    media: MediaPath, steers: bool, happens: list[tuple[str, float]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        scene = partial(play, media, steers, happens, Path(name))
        backend, options = virtual_backend
        anyio.run(scene, backend=backend, backend_options=options)
