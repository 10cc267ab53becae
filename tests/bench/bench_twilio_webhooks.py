"""Signed webhooks of new inbound calls through the whole gateway, compared with starlette and
Twilio's own validator, which stores nothing, and with our call server and store without calls.

    python -m tests.bench.bench_twilio_webhooks [seconds] [rounds]

Ours commits the call and the event before it answers. First 32 connections send requests as fast
as they can, then 1,000 requests a second are offered. Servers run in turn on one core, the load on
the others; figures are medians of the rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.ports import reserve_port

from . import peering
from .carrier.gateway import gateway
from .carrier.processes import ServerProcess, cores, serving
from .carrier.rest import rest_api
from .carrier.webhooks import AUTH_TOKEN, PATH, HttpLink, inbound

CONNECTIONS = 32
OFFERED = 1000
OURS = "voicecall"
_LEAST_RATIO = 0.7
_MOST_P99_MS = 20
_WARM_UP = 200


@dataclass(frozen=True, slots=True)
class Figures:
    """``rate`` in requests per second, ``cpu`` in microseconds per request, times in ms."""

    rate: float
    cpu: float
    p50: float
    p99: float

    def __str__(self) -> str:
        return (
            f"{self.rate:5.0f} requests/s, {self.cpu:4.0f} us CPU each, "
            f"p50 {self.p50:5.1f} ms, p99 {self.p99:5.1f} ms; average {os.getloadavg()[0]:.1f}"
        )


def _validator() -> AbstractContextManager[ServerProcess]:
    port = reserve_port()
    return serving(peering.python("validator", str(port), AUTH_TOKEN), port)


def _storing() -> AbstractContextManager[ServerProcess]:
    port = reserve_port()
    return serving([sys.executable, "-m", "tests.bench.carrier.storing", str(port)], port)


SERVERS: dict[str, Callable[[str], AbstractContextManager[ServerProcess]]] = {
    OURS: gateway,
    "validator": lambda api: _validator(),
    "storing": lambda api: _storing(),
}


def _requests(port: int) -> Iterator[bytes]:
    """New calls without end."""
    url = f"http://127.0.0.1:{port}{PATH}"
    return (inbound(f"CA{number:032x}", number, url) for number in itertools.count())


async def closed_loop(
    server: ServerProcess, requests: Iterator[bytes], links: list[HttpLink], seconds: float
) -> Figures:
    """Every connection sends its next request as soon as it has an answer."""
    delays: list[float] = []
    cpu, begin = server.cpu_s(), time.perf_counter()
    end = begin + seconds

    async def client(link: HttpLink) -> None:
        while (asked := time.perf_counter()) < end:
            await link.ask(next(requests))
            delays.append(time.perf_counter() - asked)

    await asyncio.gather(*map(client, links))
    return _figures(delays, server.cpu_s() - cpu, time.perf_counter() - begin)


async def open_loop(
    server: ServerProcess, requests: Iterator[bytes], links: list[HttpLink], seconds: float
) -> Figures:
    """Offer requests at a fixed rate, until a second's worth of them waits. Delays count from
    when a request was due, and so include its wait for a connection."""
    delays: list[float] = []
    free: asyncio.Queue[HttpLink] = asyncio.Queue()
    for link in links:
        free.put_nowait(link)

    async def one(due: float) -> None:
        link = await free.get()
        await link.ask(next(requests))
        delays.append(time.perf_counter() - due)
        free.put_nowait(link)

    cpu, begin = server.cpu_s(), time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(seconds * OFFERED)):
            due = begin + number / OFFERED
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            if number - len(delays) > OFFERED:
                break
            tasks.create_task(one(due))
    return _figures(delays, server.cpu_s() - cpu, time.perf_counter() - begin)


def _figures(delays: list[float], cpu: float, wall: float) -> Figures:
    cuts = statistics.quantiles(delays, n=100)
    count = len(delays)
    return Figures(count / wall, cpu / count * 1e6, cuts[49] * 1000, cuts[98] * 1000)


async def one(name: str, seconds: float) -> tuple[Figures, Figures]:
    async with rest_api() as api:
        with contextlib.ExitStack() as stack:
            server = await asyncio.to_thread(stack.enter_context, SERVERS[name](api))
            requests = _requests(server.port)
            links = [await HttpLink.open(server.port) for _ in range(CONNECTIONS)]
            for _ in range(_WARM_UP):
                await links[0].ask(next(requests))
            offered = await open_loop(server, requests, links, seconds)
            closed = await closed_loop(server, requests, links, seconds)
            for link in links:
                await link.close()
            await asyncio.to_thread(stack.close)
    print(f"{name:10} {OFFERED}/s offered: {offered}")
    print(f"{name:10} {CONNECTIONS} connections: {closed}", flush=True)
    return offered, closed


def main(seconds: float = 3.0, rounds: int = 3) -> None:
    peering.prepare()
    os.sched_setaffinity(0, cores()[1])
    seen: dict[str, list[tuple[Figures, Figures]]] = {name: [] for name in SERVERS}
    for _ in range(rounds):
        for name in SERVERS:
            seen[name].append(asyncio.run(one(name, seconds)))
    rates = {
        name: statistics.median(closed.rate for _, closed in pairs) for name, pairs in seen.items()
    }
    ratio = rates[OURS] / rates["validator"]
    print(f"ratio of requests/s to the validator's: {ratio:.2f} (at least {_LEAST_RATIO})")
    share = rates["storing"] / rates["validator"]
    print(f"ratio of server and store without calls to the validator's: {share:.2f}")
    p99 = statistics.median(offered.p99 for offered, _ in seen[OURS])
    print(f"ratio of p99 at {OFFERED}/s to its bound, {_MOST_P99_MS} ms: {p99 / _MOST_P99_MS:.2f}")


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((float, int), sys.argv[1:], strict=False)))
