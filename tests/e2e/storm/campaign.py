"""One part for each way of talking: calls over a faulty carrier, kills, and final checks."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import anyio
import pytest
from tests.e2e.crash.judge import Store

from voicecall.model import MediaPath
from voicecall_gateway.client import RpcError
from voicecall_testing.speech import FskSpeech
from voicecall_testing.twilio import TwilioEmulator, TwilioOptions

from .crowd import CHATTER, FULL, Crowd
from .ends import Ends
from .gateway import INBOUND, OUR_NUMBER, OUTBOUND, StormGateway
from .judge import Judge
from .weather import Weather

__all__ = ["MEDIA", "Campaign", "Summary", "campaign"]

MEDIA = (MediaPath.NATIVE, MediaPath.STREAM, MediaPath.REALTIME)
CROWD = 10
"""Concurrent calls."""
CALM_S = 45.0
"""The longest that a call takes to end by itself."""
SETTLED_S = 30.0

OPTIONS = TwilioOptions(
    numbers=(OUR_NUMBER,),
    calls_per_second=20.0,
    # Redelivered while the next gateway starts.
    retry_pause_s=0.8,
    second_s=0.5,
    word_ms=40,
    least_speech_ms=60,
    digit_ms=10,
    recording_limit_s=0,
    keep_calls=2000,
)


@dataclass(slots=True)
class Summary:
    """``kills``: when, in epoch ms. ``live``: at each of them, the calls that were not over."""

    seed: int
    calls: int = 0
    kills: list[int] = field(default_factory=list)
    live: list[int] = field(default_factory=list)


class Campaign:
    def __init__(self, gateway: StormGateway, twilio: TwilioEmulator, seed: int) -> None:
        self._gateway = gateway
        self._twilio = twilio
        self._rng = random.Random(seed)
        self._crowd = Crowd(gateway, twilio, self._rng)
        self._weather = Weather(twilio.faults, self._rng)
        self._store = Store(gateway.database)
        self._judge = Judge(twilio, self._store)
        self.summary = Summary(seed)
        self._ends = Ends(twilio, self.summary.kills)
        self._part_began = 0

    async def run(self, calls: int, kills: int) -> None:
        """Hold ``calls`` calls and kill the gateway ``kills`` times, shared among the parts.
        Raises ``AssertionError`` on the first thing wrong."""
        for index, media in enumerate(MEDIA):
            share = slice(index, None, len(MEDIA))
            await self._part(media, len(range(calls)[share]), len(range(kills)[share]))
        assert self._store.rows("SELECT call_id FROM calls WHERE live") == []
        self._judge.dialled_once()
        self._judge.redelivered()
        self._judge.notified_once()
        documents = self._store.rows("SELECT document FROM calls")
        records = [json.loads(document) for (document,) in documents]
        self._ends.judge(records)

    async def _part(self, media: MediaPath, calls: int, kills: int) -> None:
        self._part_began = self._twilio.seam.now_ms()
        self._gateway.talk_by(media)
        urls = self._judge.adapter.number_urls(self._gateway.webhook_url)
        voice, status = urls.values()
        self._twilio.set_voice_url(voice, status_callback=status)
        await self._start()
        self._weather.break_out()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._weather.rage)
            tasks.start_soon(self._crowd.meddle)
            async with anyio.create_task_group() as busy:
                busy.start_soon(self._feed, calls)
                busy.start_soon(self._kill_now_and_then, kills)
            with anyio.move_on_after(CALM_S):
                while self._crowd.busy:
                    await anyio.sleep(0.1)
            tasks.cancel_scope.cancel()
        self._twilio.faults.rest = []
        # What was lost is found out by asking.
        await self._over(SETTLED_S)
        self._weather.calm()
        await self._caps_are_free()
        output = await self._gateway.stop()
        assert "under way" not in output, output
        self._judge.after_death(output)

    async def _start(self) -> None:
        await self._gateway.start()
        await self._gateway.ready()

    async def _feed(self, calls: int) -> None:
        async with anyio.create_task_group() as diallings:
            for _ in range(calls):
                self.summary.calls += 1
                if self._rng.random() < 0.4:
                    self._crowd.call_in()
                else:
                    dial = partial(self._crowd.dial, self._crowd.dialling(), patient=True)
                    diallings.start_soon(dial)
                while self._crowd.busy >= CROWD:
                    await anyio.sleep(0.05)
                await anyio.sleep(self._rng.uniform(0, 0.4))

    async def _kill_now_and_then(self, kills: int) -> None:
        """Now and then one dies while it starts, or stays down until redelivery has ended."""
        rng = self._rng
        for _ in range(kills):
            await anyio.sleep(rng.uniform(1.0, 5.0))
            await self._kill()
            match rng.random():
                case luck if luck < 0.15:
                    await self._gateway.start()
                    await anyio.sleep(rng.uniform(0.05, 0.6))
                    await self._kill()
                case luck if luck < 0.25:
                    await anyio.sleep(rng.uniform(3.0, 6.0))
            await self._start()

    async def _kill(self) -> None:
        output = await self._gateway.kill()
        self._judge.after_death(output)
        self.summary.live.append(len(self._store.live()))
        self.summary.kills.append(self._twilio.seam.now_ms())

    # --- the reckoning ----------------------------------------------------------------------

    async def _over(self, within_s: float) -> None:
        """Wait until every call is over on both sides."""
        with anyio.move_on_after(within_s):
            while self._crowd.busy or self._store.live():
                await anyio.sleep(0.1)
        assert not self._crowd.busy
        assert self._store.live() == []

    async def _caps_are_free(self) -> None:
        """Exactly as many calls as configured can be up again, in each direction."""
        for _ in range(OUTBOUND):
            await self._crowd.dial(self._crowd.staying())
        with pytest.raises(RpcError, match=FULL):
            await self._crowd.dial(self._crowd.staying())
        await self._end_all()
        for _ in range(INBOUND):
            self._crowd.call_in(CHATTER)
        await self._until(lambda: len(self._store.live()) == INBOUND)
        assert not self._refused()
        self._crowd.call_in(CHATTER)
        await self._until(lambda: len(self._refused()) == 1)
        await self._end_all()

    async def _until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(SETTLED_S):
            while not condition():
                await anyio.sleep(0.05)

    async def _end_all(self) -> None:
        async with anyio.create_task_group() as tasks:
            for record in self._store.live():
                params = {"callId": record["call_id"]}
                tasks.start_soon(self._gateway.call, "voicecall.end", params)
        await self._over(SETTLED_S)

    def _refused(self) -> list[Any]:
        """Calls of this part for which there was no place."""
        return self._store.rows(
            "SELECT call_id FROM calls WHERE started_at >= ?"
            " AND json_extract(document, '$.end_detail') = 'capacity'",
            self._part_began,
        )

    def check(self, calls: int, kills: int) -> None:
        """Raises ``AssertionError`` if there were too few faults."""
        assert self.summary.calls == calls
        assert len(self.summary.kills) >= kills
        assert self._judge.webhooks > 4 * calls
        assert self._twilio.ledger.entries("webhook", duplicate=True)

    def __str__(self) -> str:
        summary, ledger = self.summary, self._twilio.ledger
        counts = {
            "duplicates": len(ledger.entries("webhook", duplicate=True)),
            "lost": len(ledger.entries("webhook-lost")),
            "given up": len(ledger.entries("webhook-given-up")),
            "sockets dropped": len(ledger.entries("stream-dropped")),
            "ignored": self._judge.ignored,
            "callers never known": self._ends.unknown,
            **dict(self._ends.found.most_common()),
        }
        return (
            f"seed {summary.seed}, calls {summary.calls}, kills {len(summary.kills)},"
            f" live at a kill mean {fmean(summary.live or [0]):.1f},"
            f" webhooks {self._judge.webhooks}, "
            + ", ".join(f"{name} {count}" for name, count in counts.items())
        )


@asynccontextmanager
async def campaign(root: Path, seed: int) -> AsyncIterator[Campaign]:
    """A campaign below ``root``. Its carrier outlives every gateway."""
    async with TwilioEmulator(replace(OPTIONS, seed=seed), speech=FskSpeech()).serve() as twilio:
        gateway = StormGateway(root, twilio)
        async with gateway.at_hand():
            yield Campaign(gateway, twilio, seed)
