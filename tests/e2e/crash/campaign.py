"""Round after round: ten calls, a kill, a restart, the verdict."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio
import pytest

from voicecall.model import Direction
from voicecall_gateway.client import RpcError
from voicecall_mock.exchange import Exchange, ExchangeOptions

from .gateway import INBOUND, OUTBOUND, Gateway
from .judge import Judge, Store
from .workload import Workload

__all__ = ["RECOVERY_S", "Campaign", "Summary", "campaign"]

RECOVERY_S = 30.0
KEPT = 3
"""At most so many calls that came through a restart go on into the next round."""
SAID_AGAIN = 5
"""The phone may interrupt before the first word."""

EXCHANGE = ExchangeOptions(
    answer_after_ms=50,
    word_ms=40,
    least_speech_ms=60,
    digit_ms=10,
    # Redelivered until long after a restart, and soon after it.
    redelivery_s=(0.05, 0.1, *[0.2] * 300),
    recording_limit_s=0,
)


@dataclass(slots=True)
class Summary:
    """``recovered`` and ``finalised`` count calls that were live when their gateway was killed."""

    seed: int
    kills: int = 0
    webhooks: int = 0
    ignored: int = 0
    dials: int = 0
    recovered: int = 0
    finalised: int = 0
    max_recovery_s: float = 0.0

    def __str__(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in asdict(self).items())


class Campaign:
    def __init__(self, gateway: Gateway, exchange: Exchange, seed: int) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._rng = random.Random(seed)
        self._workload = Workload(gateway, exchange, self._rng)
        self._store = Store(gateway.database)
        self._judge = Judge(exchange, self._store)
        self._live: set[str] = set()
        self.summary = Summary(seed)

    async def run(self, kills: int) -> None:
        """Kill the gateway ``kills`` times; raises ``AssertionError`` on the first thing wrong."""
        await self._gateway.start()
        await self._gateway.ready()
        while self.summary.kills < kills:
            await self._calls_and_kill()
            if self._rng.random() < 0.2 and self.summary.kills < kills:
                await self._gateway.start()
                await anyio.sleep(self._rng.uniform(0.05, 0.6))
                await self._kill()
            await self._restart()
            await self._end_calls(keep=self._rng.randint(0, KEPT))
        await self._caps_are_free()
        self._judge.after_kill(await self._gateway.stop())
        self._judge.finally_()
        self._count()

    def _count(self) -> None:
        self.summary.webhooks = self._judge.webhooks
        self.summary.ignored = self._judge.ignored
        self.summary.dials = self._judge.dials

    # --- a round ----------------------------------------------------------------------------

    async def _calls_and_kill(self) -> None:
        """Fill the caps with calls and kill the gateway at some moment after that began."""
        going_on = [record["direction"] for record in self._store.live()]
        outbound = OUTBOUND - going_on.count(Direction.OUTBOUND)
        inbound = INBOUND - going_on.count(Direction.INBOUND)
        self._workload.trouble()
        diallings = [self._workload.outbound() for _ in range(outbound)]
        # Squared: more of them while calls are being dialled.
        moment = 1.5 * self._rng.random() ** 2
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._workload.dial, diallings)
            tasks.start_soon(self._workload.meddle)
            for _ in range(inbound):
                self._workload.call_in()
            await anyio.sleep(moment)
            await self._kill()

    async def _kill(self) -> None:
        output = await self._gateway.kill()
        self.summary.kills += 1
        self._judge.after_kill(output)
        self._count()
        self._live |= {record["call_id"] for record in self._store.live()}

    async def _restart(self) -> None:
        """Start the next gateway; in time every call is recovered, or over with a reason."""
        self._exchange.faults.replace({})
        begun = anyio.current_time()
        await self._gateway.start()
        await self._gateway.ready()
        await self._workload.dial_again()
        assert not self._workload.unanswered
        await self._agree(begun)
        self.summary.max_recovery_s = max(
            self.summary.max_recovery_s, round(anyio.current_time() - begun, 2)
        )
        self._judge.all_ends_have_reasons()
        recovered = self._live & {record["call_id"] for record in self._store.live()}
        self.summary.recovered += len(recovered)
        self.summary.finalised += len(self._live - recovered)
        self._live = set()
        await self._talk_on(recovered)

    async def _talk_on(self, recovered: set[str]) -> None:
        """The conversation of one recovered call goes on: what is asked to be said is heard."""
        for record in self._store.live():
            if record["call_id"] in recovered and record["answered_at"] is not None:
                await self._is_heard(record["call_id"], record["provider_call_id"])
                return

    async def _is_heard(self, call_id: str, carrier_id: str) -> None:
        call = self._exchange.calls[carrier_id]
        text = f"Are you still there at {self.summary.kills}?"
        for _ in range(SAID_AGAIN):
            try:
                await self._gateway.call("voicecall.speak", {"callId": call_id, "message": text})
            except RpcError:
                # It may have been about to end; then it is over soon.
                with anyio.fail_after(RECOVERY_S):
                    await call.over.wait()
            if call.over.is_set() or ("heard", text) in call.stats.log:
                return
        raise AssertionError(f"recovered, but not heard: {call.to_json()} {call.stats.log}")

    async def _agree(self, begun: float) -> None:
        """Wait until gateway and exchange say the same of every call."""
        while wrong := self._judge.disagreements():
            late = anyio.current_time() - begun > RECOVERY_S
            assert not late, f"{RECOVERY_S:g} s after the restart: " + "; ".join(wrong)
            await anyio.sleep(0.05)

    async def _end_calls(self, *, keep: int) -> None:
        """End all live calls but ``keep``, and wait until they are over on both sides."""
        live = self._store.live()
        self._rng.shuffle(live)
        begun = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for record in live[keep:]:
                params = {"callId": record["call_id"]}
                tasks.start_soon(self._gateway.call, "voicecall.end", params)
        await self._agree(begun)

    async def _caps_are_free(self) -> None:
        """After all calls are over, exactly as many as configured can be placed again."""
        await self._end_calls(keep=0)
        diallings = [self._workload.outbound() for _ in range(OUTBOUND)]
        for dialling in diallings:
            # Nobody hangs up before the last one is placed.
            dialling.params["mode"] = "conversation"
            self._workload.never_answers(dialling.params["to"])
        await self._workload.dial(diallings)
        assert all(dialling.call_id for dialling in diallings)
        with pytest.raises(RpcError, match="Maximum concurrent calls"):
            await self._gateway.call("voicecall.start", self._workload.outbound().params)
        await self._end_calls(keep=0)
        assert self._store.live() == []


@asynccontextmanager
async def campaign(root: Path, seed: int) -> AsyncIterator[Campaign]:
    """A campaign below ``root``, with an exchange of its own that outlives every gateway."""
    async with Exchange(EXCHANGE).serve() as exchange:
        async with Gateway(root, exchange.base_url).at_hand() as gateway:
            yield Campaign(gateway, exchange, seed)
