"""Echo calls through a whole gateway: delay, underruns, processor time, memory.

    python tests/bench/bench_echo.py [calls] [seconds]

The gateway (configuration, store, webhooks, media, the realtime bridge with the provider
``echo``) runs in a process of its own, pinned to one core. The telephone exchange and its phones
run in this one, on the other cores: each phone calls in and says a numbered frame every 20 ms.

*delay*: from the moment a phone's frame is written into the socket to the arrival of the same
frame from the gateway, found by its content. The pacer's lead is no part of it: audio that
arrives in real time finds the lead empty and must leave at once. What the exchange itself takes
to write and read is included, and so is its own lateness on a busy machine, which is printed.

*underrun*: the phone's playback buffer ran dry for a frame or more in the middle of the echo.
As a phone does, it begins to play when 60 ms are there.

Memory is the growth of the gateway's resident set from before the first call to the end of the
measurement, divided by the calls.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import struct
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio

from voicecall.registry import Registry
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.runtime import Gateway
from voicecall_mock.exchange import Exchange, ExchangeOptions
from voicecall_mock.exchange.playback import FRAME, FRAME_MS
from voicecall_mock.exchange.script import Silent
from voicecall_mock.exchange.sockets import SocketStream

TOKEN = "a-token-of-the-benchmark"
HERE = "+15550200000"
MAGIC = b"frame"
WARM_UP_S = 3.0
JITTER_FRAMES = 3


# --- the gateway's process --------------------------------------------------------------------


def gateway(exchange_url: str, directory: str, calls: int, core: int, pipe: Connection) -> None:
    """Run until told to stop; tells CPU seconds and resident bytes whenever it is asked."""
    os.sched_setaffinity(0, {core})
    phone = {
        "provider": "mock",
        "mock": {"apiBaseUrl": exchange_url, "authToken": TOKEN},
        "inboundPolicy": "open",
        "maxConcurrentInboundCalls": calls,
        "serve": {"port": 0},
        "realtime": {"enabled": True, "provider": "echo"},
        "streaming": {
            "maxConnections": 2 * calls,
            "maxPendingConnections": 2 * calls,
            "maxPendingConnectionsPerIp": 2 * calls,
        },
        "webhookSecurity": {"maxInFlightPerClient": 2 * calls, "maxInFlight": 2 * calls},
    }
    tree = {"gateway": {"port": 0}, "plugins": {"entries": {"voice-call": {"config": phone}}}}

    async def serve() -> None:
        loaded = config_from_tree(tree, environ={}, source="bench", state_dir=Path(directory))
        async with Gateway(loaded, Registry()).run() as running:
            pipe.send(list(await running.wait_started()))
            threading.Thread(target=_tell, args=(pipe,), daemon=True).start()
            await anyio.sleep_forever()

    anyio.run(serve)


def _tell(pipe: Connection) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    while pipe.recv():
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
        pipe.send((time.process_time(), resident))


# --- the phones -------------------------------------------------------------------------------


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
        """The next frame; 20 ms have passed."""
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


async def phones(exchange: Exchange, calls: int, seconds: float, pipe: Connection) -> None:
    measure = Measure()
    _, before = _ask(pipe)
    ids = []
    for number in range(calls):
        ids.append(exchange.dial_in(f"+1555010{number:04d}", HERE, (Silent(),)))
        await anyio.sleep(0.02)
    with anyio.fail_after(30):
        while any(exchange.calls[one].line.stream is None for one in ids):
            await anyio.sleep(0.05)
    for one in ids:
        line = exchange.calls[one].line
        assert line.stream is not None
        ear = Ear(line.stream, measure)
        line.exchange_frames = _mouth(line.exchange_frames, ear)  # type: ignore[method-assign]
    await anyio.sleep(WARM_UP_S)
    cpu, _ = _ask(pipe)
    own = time.process_time()
    measure.on = True
    await anyio.sleep(seconds)
    measure.on = False
    cpu_after, after = _ask(pipe)
    own = time.process_time() - own
    alive = sum(not exchange.calls[one].over.is_set() for one in ids)
    _report(measure, calls, seconds, cpu_after - cpu, own, (after - before) / calls, alive)


def _mouth(exchange_frames: Any, ear: Ear) -> Any:
    def both(heard: bytes | None) -> bytes:
        exchange_frames(heard)
        return ear.say()

    return both


def _ask(pipe: Connection) -> tuple[float, int]:
    pipe.send(True)
    cpu, resident = pipe.recv()
    return float(cpu), int(resident)


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
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[:-1]))
    options = ExchangeOptions(auth_token=TOKEN, answer_after_ms=20, recording_limit_s=0)
    with tempfile.TemporaryDirectory(prefix="voicecall-bench-") as directory:
        async with Exchange(options).serve() as exchange:
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(
                target=gateway, args=(exchange.base_url, directory, calls, cores[-1], theirs)
            )
            process.start()
            try:
                problems = await anyio.to_thread.run_sync(ours.recv)
                if problems:
                    raise RuntimeError("; ".join(problems))
                await phones(exchange, calls, seconds, ours)
            finally:
                process.terminate()
                process.join()


def main(calls: int = 50, seconds: int = 60) -> None:
    anyio.run(run, calls, float(seconds))


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
