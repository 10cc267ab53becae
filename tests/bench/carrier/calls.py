"""Many calls to one server for some seconds: their cost and their delays."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from array import array
from dataclasses import dataclass
from urllib.parse import urlsplit

from picows import ws_connect

from .processes import ServerProcess
from .streams import FRAME_S, Stream, pace
from .webhooks import PATH, HttpLink, inbound, order

__all__ = ["Figures", "measure"]

_WARM_UP_S = 5.0
"""All streams begin together. After this time the first of the echo's responses have ended, and
from then on about as many end in each second."""
_DRAIN_S = 0.5
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Figures:
    """``cpu`` in milliseconds a stream and second; times in milliseconds, memory in bytes;
    ``lost`` frames of the measured ones, ``late`` the p99 of the load's own lateness."""

    cpu: float
    core: float
    p50: float
    p99: float
    lost: float
    idle: int
    a_stream: float
    late: float
    own_core: float
    alive: bool

    def __str__(self) -> str:
        text = (
            f"{self.cpu:5.2f} ms CPU, {self.core:4.0%} of the core, p50 {self.p50:6.2f} ms, "
            f"p99 {self.p99:6.2f} ms, lost {self.lost:.2%}, idle {self.idle / 1e6:4.0f} MB, "
            f"{self.a_stream / 1e3:5.0f} kB a stream; load {self.own_core:4.0%} of its core, "
            f"late p99 {self.late:.1f} ms, average {os.getloadavg()[0]:.1f}"
        )
        return text if self.alive else text + "; streams were closed"


async def measure(server: ServerProcess, streams: int, seconds: float, *, calls: bool) -> Figures:
    """Hold ``streams`` streams for ``seconds``. With ``calls`` each comes from a signed webhook
    and the document in its reply; a first one is made and ended before anything is counted."""
    if calls:
        first = await _connect(server.port, 0, 1, calls=True)
        await pace(first, 1.0)
        _hang_up(first)
        await asyncio.sleep(0.5)
    idle = server.resident()
    all_streams = await _connect(server.port, 1, streams, calls=calls)
    await pace(all_streams, _WARM_UP_S)
    for each in all_streams:
        each.measuring = True
    cpu, own, began = server.cpu_s(), time.process_time(), time.perf_counter()
    late = await pace(all_streams, seconds)
    wall = time.perf_counter() - began
    cpu, own = server.cpu_s() - cpu, time.process_time() - own
    resident = server.resident()
    await asyncio.sleep(_DRAIN_S)
    alive = not any(each.closed for each in all_streams)
    _hang_up(all_streams)
    delays = array("d")
    for each in all_streams:
        delays.extend(each.delays)
    measured = sum(each.measured for each in all_streams)
    cuts = statistics.quantiles(delays, n=100) if len(delays) > 1 else [float("nan")] * 99
    await asyncio.sleep(_DRAIN_S)
    return Figures(
        cpu=cpu * 1000 / (measured * FRAME_S),
        core=cpu / wall,
        p50=cuts[49] * 1000,
        p99=cuts[98] * 1000,
        lost=1 - len(delays) / measured,
        idle=idle,
        a_stream=(resident - idle) / streams,
        late=statistics.quantiles(late, n=100)[98] * 1000,
        own_core=own / wall,
        alive=alive,
    )


async def _connect(port: int, first: int, count: int, *, calls: bool) -> list[Stream]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> Stream:
        async with gate:
            call_sid = f"CA{number:032x}"
            path, parameters = "/", {}
            if calls:
                link = await HttpLink.open(port)
                url = f"http://127.0.0.1:{port}{PATH}"
                wanted = order(await link.ask(inbound(call_sid, number, url)))
                await link.close()
                path, parameters = urlsplit(wanted.url).path, wanted.parameters
            stream = Stream(f"MZ{number:032x}", call_sid, parameters)
            await ws_connect(lambda: stream, f"ws://127.0.0.1:{port}{path}")
            return stream

    return list(await asyncio.gather(*(one(first + index) for index in range(count))))


def _hang_up(streams: list[Stream]) -> None:
    for each in streams:
        each.hang_up()
