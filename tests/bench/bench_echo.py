"""Echo calls through a whole gateway: delay, underruns, CPU time, memory.

    python tests/bench/bench_echo.py [calls] [seconds]

Each phone calls in and says a numbered frame every 20 ms; the voice model ``echo`` says it back.

*delay*: from the moment a phone's frame is written to the socket until the same frame, recognised
by its content, arrives from the gateway. The pacer's lead is not part of it: audio that arrives in
real time finds the lead empty and must leave at once. The exchange's own time to write and read is
included, and so is its lateness on a busy machine, which is printed.

*underrun*: the phone's playback buffer ran dry for a frame or more in the middle of the echo.
As phones do, it begins to play when it has 60 ms.

Memory is the growth of the gateway's resident set from before the first call to the end of the
measurement, divided by the calls.
"""

from __future__ import annotations

import os
import statistics
import struct
import sys
import time
from typing import Any

import anyio
from tests.bench.whole import GatewayProcess, dial_in, gateway_process

from voicecall_mock.exchange import Exchange
from voicecall_mock.exchange.playback import FRAME, FRAME_MS
from voicecall_mock.exchange.sockets import SocketStream

MAGIC = b"frame"
WARM_UP_S = 3.0
JITTER_FRAMES = 3


class Ear:
    """One phone's socket: numbers the frames it says and times them when they come back."""

    def __init__(self, stream: SocketStream, measure: Measure) -> None:
        self._measure = measure
        self._sent: dict[int, float] = {}
        self._number = 0
        self._said_at = 0.0
        self._buffered = 0
        self._playing = False
        self._feed = stream.playback.feed
        stream.playback.feed = self.feed  # type: ignore[method-assign]

    def say(self) -> bytes:
        """Say the next frame; 20 ms have passed."""
        self._play()
        now = time.perf_counter()
        if self._measure.on:
            self._measure.ticks.append(now - self._said_at - FRAME_MS / 1000)
        self._said_at = now
        self._number += 1
        frame = (MAGIC + struct.pack(">I", self._number)).ljust(FRAME, b"\x55")
        self._sent[self._number] = now
        return frame

    def feed(self, payload: bytes, now: float) -> None:
        arrived = time.perf_counter()
        for start in range(0, len(payload), FRAME):
            frame = payload[start : start + FRAME]
            if frame.startswith(MAGIC):
                (number,) = struct.unpack_from(">I", frame, len(MAGIC))
                sent = self._sent.pop(number, None)
                if sent is not None and self._measure.on:
                    self._measure.delays.append(arrived - sent)
                    self._measure.echoed += 1
                self._buffered += 1
        self._feed(payload, now)

    def _play(self) -> None:
        if not self._playing:
            self._playing = self._buffered >= JITTER_FRAMES
        elif self._buffered:
            self._buffered -= 1
        else:
            self._playing = False
            if self._measure.on:
                self._measure.underruns += 1


class Measure:
    def __init__(self) -> None:
        self.on = False
        self.delays: list[float] = []
        self.underruns = 0
        self.echoed = 0
        self.ticks: list[float] = []


async def phones(exchange: Exchange, calls: int, seconds: float, gateway: GatewayProcess) -> None:
    measure = Measure()
    _, before = gateway.usage()
    lines = await dial_in(exchange, calls)
    for line in lines:
        assert line.stream is not None
        ear = Ear(line.stream, measure)
        line.exchange_frames = _mouth(line.exchange_frames, ear)  # type: ignore[method-assign]
    await anyio.sleep(WARM_UP_S)
    cpu, _ = gateway.usage()
    own = time.process_time()
    measure.on = True
    await anyio.sleep(seconds)
    measure.on = False
    cpu_after, after = gateway.usage()
    own = time.process_time() - own
    alive = sum(line.stream is not None for line in lines)
    _report(measure, calls, seconds, cpu_after - cpu, own, (after - before) / calls, alive)


def _mouth(exchange_frames: Any, ear: Ear) -> Any:
    def both(heard: bytes | None) -> bytes:
        exchange_frames(heard)
        return ear.say()

    return both


def _report(
    measure: Measure,
    calls: int,
    seconds: float,
    cpu: float,
    own: float,
    memory: float,
    alive: int,
) -> None:
    cuts = statistics.quantiles(measure.delays, n=1000)
    expected = calls * seconds * 1000 / FRAME_MS
    print(f"echo calls: {calls} for {seconds:g} s, {alive} alive at the end")
    print(f"  frames back: {measure.echoed} of about {expected:.0f}")
    print(f"  underruns at the phones: {measure.underruns}")
    print(
        f"  delay of a frame, ms: p50 {cuts[499] * 1000:.2f}, p99 {cuts[989] * 1000:.2f}, "
        f"p99.9 {cuts[998] * 1000:.2f}, max {max(measure.delays) * 1000:.1f}"
    )
    print(f"  gateway: {cpu * 1000 / calls / seconds:.2f} ms CPU a stream and second", end="")
    print(f" ({cpu / seconds:.0%} of its core), memory a call {memory / 1e6:.2f} MB")
    late = statistics.quantiles(measure.ticks, n=100)[98] * 1000
    print(
        f"  phones: {own / seconds:.0%} of a core, p99 of their own lateness {late:.2f} ms", end=""
    )
    print(f", load average {os.getloadavg()[0]:.1f}")


async def run(calls: int, seconds: float) -> None:
    many = 2 * calls
    phone = {
        "realtime": {"enabled": True, "provider": "echo"},
        "streaming": {
            "maxConnections": many,
            "maxPendingConnections": many,
            "maxPendingConnectionsPerIp": many,
        },
    }
    async with gateway_process(calls, {}, phone) as (exchange, gateway):
        await phones(exchange, calls, seconds, gateway)


def main(calls: int = 50, seconds: int = 60) -> None:
    anyio.run(run, calls, float(seconds))


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
