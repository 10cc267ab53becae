"""Media echo through the call server, compared with a bare WebSocket echo.

    python tests/bench/bench_media.py [streams] [seconds]

Prints CPU milliseconds per stream and second, and the delay of the echo. Each server runs in its
own process. The load comes from this one, in frames of 20 ms that are spread over the 20 ms.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import threading
import time
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import anyio
import msgspec
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_connect,
    ws_create_server,
)

from voicecall import ProviderContext
from voicecall.events import CarrierEvent
from voicecall.media import Audio, MediaEvent, Started, Upgrade
from voicecall.seam import SystemSeam
from voicecall.telephony import Verified, WebhookReply, WebhookRequest
from voicecall_calls.config import ServeConfig
from voicecall_calls.doors import Attachment, MediaSocket
from voicecall_calls.server import CallServer, StreamOptions, WebhookSecurity
from voicecall_mock.codec import MockCodec
from voicecall_mock.config import MockConfig
from voicecall_mock.provider import MockProvider

FRAME_S = 0.02
WARM_UP_S = 0.5
START = b'{"event":"start","stream":"st-%d","call":"mk-%d","token":"t"}'


class _Echo:
    def __init__(self, socket: MediaSocket) -> None:
        self._socket = socket

    def received(self, event: MediaEvent) -> None:
        if type(event) is Audio:
            self._socket.send(self._socket.codec.audio(event.payload))

    def closed(self) -> None:
        pass


class _Engine:
    async def recorded(
        self, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply | None:
        return None

    async def handle(
        self, request: WebhookRequest, verified: Verified, events: object
    ) -> WebhookReply:
        return WebhookReply()

    async def admit(self, started: Started, upgrade: Upgrade, socket: MediaSocket) -> Attachment:
        return _Echo(socket)


async def call_server(ready: Callable[[str], None]) -> None:
    """The whole call server: upgrade, admission, codec, attachment."""
    many = 10_000
    server = CallServer(
        MockProvider(MockConfig(), ProviderContext(Path("unused"))),
        _Engine(),
        serve=ServeConfig(port=0),
        stream=StreamOptions(max_connections=many, max_pending=many, max_pending_per_client=many),
        security=WebhookSecurity(),
        seam=SystemSeam(),
    )
    async with server.run():
        ready(server.stream_url)
        await anyio.sleep_forever()


class _BareEcho(WSListener):
    def __init__(self) -> None:
        self._codec = MockCodec()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            event = self._codec.decode(frame.get_payload_as_bytes())
            if type(event) is Audio:
                transport.send(WSMsgType.TEXT, self._codec.audio(event.payload))


async def bare_server(ready: Callable[[str], None]) -> None:
    """The floor: picows, the same codec, nothing else."""

    def listener(request: WSUpgradeRequest) -> WSListener:
        return _BareEcho()

    server = await ws_create_server(listener, "127.0.0.1", 0)
    ready(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    await anyio.sleep_forever()


def serve(server: Callable[[Callable[[str], None]], object], pipe: Connection) -> None:
    """A server's process: reports its URL, then its CPU seconds whenever it is asked."""

    def ready(url: str) -> None:
        pipe.send(url)
        threading.Thread(target=tell, daemon=True).start()

    def tell() -> None:
        while pipe.recv():
            pipe.send(time.process_time())

    anyio.run(server, ready)  # type: ignore[arg-type]


class _Stream(WSListener):
    def __init__(self, delays: list[float]) -> None:
        self._delays = delays

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            message = msgspec.json.decode(frame.get_payload_as_bytes())
            sent = float(msgspec.json.decode(f'"{message["payload"]}"', type=bytes).split()[0])
            self._delays.append(time.perf_counter() - sent)


async def load(
    url: str, streams: int, seconds: float, cpu: Callable[[], float]
) -> dict[str, float]:
    """Figures of one run."""
    delays: list[float] = []
    transports = []
    for number in range(streams):
        transport, _ = await ws_connect(lambda: _Stream(delays), url)
        transport.send(WSMsgType.TEXT, START % (number, number))
        transports.append(transport)
    begin = time.perf_counter()
    used, measured, sent, ignored = 0.0, False, 0, 0
    while (now := time.perf_counter() - begin) < WARM_UP_S + seconds:
        if not measured and now >= WARM_UP_S:
            delays.clear()
            used, measured, ignored = cpu(), True, sent
        due = int(now / FRAME_S * streams)
        for number in range(sent, due):
            payload = b"%.6f " % time.perf_counter()
            body = b2a_base64(payload.ljust(160, b"."), newline=False)
            transports[number % streams].send(
                WSMsgType.TEXT, b'{"event":"media","at":0,"payload":"' + body + b'"}'
            )
        sent = due
        await asyncio.sleep(0.001)
    used = cpu() - used
    await asyncio.sleep(0.1)
    for transport in transports:
        transport.disconnect()
    figures = statistics.quantiles(delays, n=100)
    return {
        "ms a stream and second": used * 1000 / streams / seconds,
        "p50 ms": figures[49] * 1000,
        "p99 ms": figures[98] * 1000,
        "frames lost": float(max(0, sent - ignored - len(delays))),
    }


def measure(
    server: Callable[[Callable[[str], None]], object], streams: int, seconds: float
) -> dict[str, float]:
    """Run one server under load in its own process."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(server, theirs))
    process.start()
    try:
        url = ours.recv()

        def cpu() -> float:
            ours.send(True)
            return float(ours.recv())

        return asyncio.run(load(url, streams, seconds, cpu))
    finally:
        process.terminate()
        process.join()


def main(streams: int = 100, seconds: float = 2.0) -> None:
    key = "ms a stream and second"
    ratios = []
    for _ in range(2):
        rows = {"bare": measure(bare_server, streams, seconds)}
        rows["call server"] = measure(call_server, streams, seconds)
        for name, figures in rows.items():
            line = ", ".join(f"{label} {value:.2f}" for label, value in figures.items())
            print(f"{name:12} {streams} streams: {line}")
        ratios.append(rows["call server"][key] / rows["bare"][key])
    print(f"CPU ratio to bare: {statistics.mean(ratios):.2f}")


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
