"""Calls through the whole gateway with carrier Twilio, compared with bare WebSocket servers.

    python -m tests.bench.bench_twilio [seconds] [rounds]

Each of our calls comes as a signed webhook, gets its document, and connects its media socket with
the token in it; the voice model ``echo`` returns its audio. The peers only echo on a socket.
pipecat, also a framework, runs its pipeline for each socket, with as many streams as it handles
with ease. Servers run in turn on one core, the load on the others; figures are medians of the
rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from tests.ports import reserve_port

from . import peering
from .carrier.calls import Figures, measure
from .carrier.gateway import gateway
from .carrier.processes import ServerProcess, cores, serving
from .carrier.rest import rest_api

OURS = "voicecall"
FEW = 20
MANY = (100, 400)
PEERS = {FEW: ("pipecat",), **dict.fromkeys(MANY, ("floor", "node", "uvicorn"))}
MOST_CPU = {"floor": 1.5, "node": 0.9}
MOST_P99_MS = 20
MOST_STREAM_KB = 100
MOST_IDLE_MB = 150


def _peer(command: Callable[[str], Sequence[str]]) -> AbstractContextManager[ServerProcess]:
    port = reserve_port()
    return serving(command(str(port)), port)


SERVERS: dict[str, Callable[[str], AbstractContextManager[ServerProcess]]] = {
    OURS: gateway,
    "floor": lambda api: _peer(lambda port: peering.python("floor", port)),
    "node": lambda api: _peer(peering.node),
    "uvicorn": lambda api: _peer(lambda port: peering.python("asgi", port)),
    "pipecat": lambda api: _peer(lambda port: peering.python("pipecat", port)),
}


async def one(name: str, streams: int, seconds: float) -> Figures:
    async with rest_api() as api:
        with contextlib.ExitStack() as stack:
            server = await asyncio.to_thread(stack.enter_context, SERVERS[name](api))
            figures = await measure(server, streams, seconds, calls=name == OURS)
            # The gateway can only stop in good order while its carrier answers.
            await asyncio.to_thread(stack.close)
    print(f"{name:10} {streams:4} streams: {figures}", flush=True)
    return figures


def _median(seen: Sequence[Figures], figure: Callable[[Figures], float]) -> float:
    return statistics.median(map(figure, seen))


def compare(streams: int, seen: Mapping[str, Sequence[Figures]]) -> None:
    """Print ours against the peers."""
    cpu = {name: _median(figures, lambda each: each.cpu) for name, figures in seen.items()}
    for name in seen:
        if name != OURS:
            bound = f" (at most {MOST_CPU[name]})" if name in MOST_CPU else ""
            print(f"CPU ratio to {name} at {streams}: {cpu[OURS] / cpu[name]:.2f}{bound}")


def judge(streams: int, ours: Sequence[Figures]) -> None:
    """Print ours against the bounds."""
    for what, value, most in (
        ("p99, ms,", _median(ours, lambda each: each.p99), MOST_P99_MS),
        ("memory a stream, kB,", _median(ours, lambda each: each.a_stream) / 1e3, MOST_STREAM_KB),
        ("idle memory, MB,", _median(ours, lambda each: each.idle) / 1e6, MOST_IDLE_MB),
    ):
        print(f"{what} at {streams}: {value:.1f}, ratio to its bound {most}: {value / most:.2f}")


def main(seconds: float = 5.0, rounds: int = 3) -> None:
    peering.prepare()
    os.sched_setaffinity(0, cores()[1])
    for streams, peers in PEERS.items():
        seen: dict[str, list[Figures]] = {name: [] for name in (OURS, *peers)}
        for _ in range(rounds):
            for name in seen:
                seen[name].append(asyncio.run(one(name, streams, seconds)))
        compare(streams, seen)
        if streams in MANY:
            judge(streams, seen[OURS])


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((float, int), sys.argv[1:], strict=False)))
