"""Rounds of ten calls or more, a kill, a restart and a verdict."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.model import Direction, MediaPath
from voicecall_gateway.client import RpcError
from voicecall_mock.exchange import Exchange, ExchangeOptions
from voicecall_testing.speech import FskSpeech

from .ear import is_heard
from .gateway import INBOUND, OUTBOUND, Gateway
from .judge import Judge, Store
from .summary import RECOVERY_S, Summary
from .workload import Workload

__all__ = ["Campaign", "campaign"]

STAYING = {Direction.OUTBOUND: 9, Direction.INBOUND: 4}
"""Calls that last until we end them: a few more than ten, as the engine gives a call up if both
faulty answers of a round hit it."""
CAPS = {Direction.OUTBOUND: OUTBOUND, Direction.INBOUND: INBOUND}
KEPT = 2
"""At most this many of the other calls go on into the next round."""
CHANGED = 5
"""At most this many of the staying calls are ended and replaced between two rounds."""
OLD_MS = 30_000
"""A staying call is ended after this time: long before the limits of call and recording."""

EXCHANGE = ExchangeOptions(
    answer_after_ms=50,
    word_ms=40,
    least_speech_ms=60,
    digit_ms=10,
    # Redelivered until long after a restart, and soon after it.
    redelivery_s=(0.05, 0.1, *[0.2] * 300),
    recording_limit_s=120,
    keep_calls=300,
)


class Campaign:
    def __init__(self, gateway: Gateway, exchange: Exchange, seed: int) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._rng = random.Random(seed)
        self._workload = Workload(gateway, exchange, self._rng)
        self._store = Store(gateway.database)
        self._judge = Judge(exchange, self._store)
        self._live: set[str] = set()
        self.summary = Summary(seed, gateway.media.value)

    async def run(self, kills: int) -> None:
        """Kill the gateway ``kills`` times; raises ``AssertionError`` on the first thing wrong."""
        await self._gateway.start()
        await self._gateway.ready()
        while self.summary.kills < kills:
            await self._fill_staying()
            await self._surge_and_kill()
            if self._rng.random() < 0.2 and self.summary.kills < kills:
                await self._gateway.start()
                await anyio.sleep(self._rng.uniform(0.05, 0.6))
                await self._kill()
            await self._restart()
            await self._end_some()
        await self._caps_are_free()
        self._judge.after_kill(await self._gateway.stop())
        self._judge.finally_()
        self._count()

    def _count(self) -> None:
        self.summary.webhooks = self._judge.webhooks
        self.summary.ignored = self._judge.ignored
        self.summary.dials = self._judge.dials

    # --- a round ----------------------------------------------------------------------------

    async def _fill_staying(self) -> None:
        """Return when the calls that stay are connected."""
        begun = anyio.current_time()
        live = [record["direction"] for record in self._staying()]
        missing = {way: count - live.count(way) for way, count in STAYING.items()}
        for _ in range(missing[Direction.INBOUND]):
            self._workload.call_in(stays=True)
        outbound = range(missing[Direction.OUTBOUND])
        await self._workload.dial([self._workload.outbound(stays=True) for _ in outbound])
        while self._connected() < sum(STAYING.values()) or self._judge.disagreements():
            late = anyio.current_time() - begun > RECOVERY_S
            assert not late, f"the calls do not come up: {self._judge.disagreements()}"
            await anyio.sleep(0.02)

    async def _surge_and_kill(self) -> None:
        """Fill the caps with more calls and kill the gateway at some moment after that began."""
        going_on = [record["direction"] for record in self._store.live()]
        room = {way: cap - going_on.count(way) for way, cap in CAPS.items()}
        self._workload.trouble()
        diallings = [self._workload.outbound() for _ in range(room[Direction.OUTBOUND])]
        # Squared: more of them while calls are being dialled.
        moment = 1.5 * self._rng.random() ** 2
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._workload.dial, diallings)
            for _ in range(2):
                tasks.start_soon(self._workload.meddle)
            tasks.start_soon(self._workload.replace, self._passing)
            for _ in range(room[Direction.INBOUND]):
                self._workload.call_in()
            await anyio.sleep(moment)
            await self._kill()

    async def _kill(self) -> None:
        connected = self._judge.connected()
        output = await self._gateway.kill()
        self._judge.after_kill(output)
        self._count()
        records = self._store.live()
        live = [
            record
            for record in records
            if record["answered_at"] is not None and record["provider_call_id"] in connected
        ]
        self.summary.live.append(len(live))
        self.summary.others.append(len(records) - len(live))
        self._live |= {record["call_id"] for record in records}

    async def _restart(self) -> None:
        """Start the next gateway. In time, every call is recovered, or over with a reason."""
        self._exchange.faults.replace({})
        begun = anyio.current_time()
        await self._gateway.start()
        await self._gateway.ready()
        await self._workload.dial_again()
        assert not self._workload.unanswered
        await self._agree(begun)
        self.summary.recovery_s.append(anyio.current_time() - begun)
        self._judge.all_ends_have_reasons()
        recovered = self._live & {record["call_id"] for record in self._store.live()}
        self.summary.recovered += len(recovered)
        self.summary.finalised += len(self._live - recovered)
        self._live = set()
        await self._talk_on(recovered)

    async def _talk_on(self, recovered: set[str]) -> None:
        """The conversation of one recovered call goes on: the phone hears a text we have spoken."""
        records = [
            record
            for record in self._store.live()
            if record["call_id"] in recovered and record["answered_at"] is not None
        ]
        self._rng.shuffle(records)
        text = f"Still there at {self.summary.kills}?"
        for record in records:
            call = self._exchange.calls[record["provider_call_id"]]
            if await is_heard(self._gateway, call, record["call_id"], text):
                self.summary.heard += 1
                return

    async def _agree(self, begun: float) -> None:
        """Wait until gateway and exchange agree about every call."""
        while wrong := self._judge.disagreements():
            late = anyio.current_time() - begun > RECOVERY_S
            assert not late, f"{RECOVERY_S:g} s after the restart: " + "; ".join(wrong)
            await anyio.sleep(0.05)

    def _staying(self) -> list[dict[str, Any]]:
        return [record for record in self._store.live() if self._workload.stays(record)]

    def _connected(self) -> int:
        return sum(record["answered_at"] is not None for record in self._staying())

    def _passing(self) -> list[dict[str, Any]]:
        return [record for record in self._store.live() if not self._workload.stays(record)]

    # --- between rounds ---------------------------------------------------------------------

    async def _end_some(self) -> None:
        """Make room: for the surge, and for other calls that stay."""
        passing, staying = self._passing(), self._staying()
        self._rng.shuffle(passing)
        self._rng.shuffle(staying)
        ending = passing[self._rng.randint(0, KEPT) :]
        changed = self._rng.randint(0, CHANGED)
        ending += staying[:changed]
        oldest = self._exchange.seam.now_ms() - OLD_MS
        ending += [record for record in staying[changed:] if record["started_at"] < oldest]
        await self._end(ending)

    async def _end(self, records: list[dict[str, Any]]) -> None:
        """End calls, and wait until they are over on both sides."""
        begun = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for record in records:
                params = {"callId": record["call_id"]}
                tasks.start_soon(self._gateway.call, "voicecall.end", params)
        await self._agree(begun)

    async def _caps_are_free(self) -> None:
        """When all calls are over, exactly as many as configured can be placed again."""
        await self._end(self._store.live())
        diallings = [self._workload.outbound() for _ in range(OUTBOUND)]
        for dialling in diallings:
            # Nobody hangs up before the last one is placed.
            dialling.params["mode"] = "conversation"
            self._workload.never_answers(dialling.params["to"])
        await self._workload.dial(diallings)
        assert all(dialling.call_id for dialling in diallings)
        with pytest.raises(RpcError, match="Maximum concurrent calls"):
            await self._gateway.call("voicecall.start", self._workload.outbound().params)
        await self._end(self._store.live())
        assert self._store.live() == []


@asynccontextmanager
async def campaign(root: Path, seed: int, media: MediaPath) -> AsyncIterator[Campaign]:
    """A campaign below ``root``. Its exchange outlives every gateway."""
    async with Exchange(EXCHANGE, speech=FskSpeech()).serve() as exchange:
        async with Gateway(root, exchange.base_url, media).at_hand() as gateway:
            yield Campaign(gateway, exchange, seed)
