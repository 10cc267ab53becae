"""Signed webhooks through the call server, compared with a bare ASGI application.

    python tests/bench/bench_webhooks.py [connections] [seconds]

Prints requests per second and CPU microseconds per request. Both run on the same HTTP server, each
in its own process; every request is new and signed.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import uvicorn

from voicecall import ProviderContext
from voicecall.events import CarrierEvent
from voicecall.media import Started, Upgrade
from voicecall.seam import SystemSeam
from voicecall.telephony import Verified, WebhookReply, WebhookRequest
from voicecall_calls.config import ServeConfig
from voicecall_calls.doors import AdmissionRefused, Attachment, MediaSocket
from voicecall_calls.server import CallServer, StreamOptions, WebhookSecurity
from voicecall_mock.config import DEFAULT_AUTH_TOKEN, MockConfig
from voicecall_mock.protocol import sign
from voicecall_mock.provider import MockProvider

PATH = "/voice/webhook"
REPLY = b'{"actions": []}'


class _Engine:
    async def recorded(
        self, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply | None:
        return None

    async def handle(
        self, request: WebhookRequest, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply:
        return WebhookReply(body=REPLY, content_type="application/json")

    async def admit(self, started: Started, upgrade: Upgrade, socket: MediaSocket) -> Attachment:
        raise AdmissionRefused(1008, "Unknown call")


async def call_server(ready: Callable[[str], None]) -> None:
    """The whole pipeline: caps, signature, duplicates, parsing; without a store."""
    server = CallServer(
        MockProvider(MockConfig(), ProviderContext(Path("unused"))),
        _Engine(),
        serve=ServeConfig(port=0),
        stream=StreamOptions(),
        security=WebhookSecurity(max_in_flight=1000, max_in_flight_per_client=1000),
        seam=SystemSeam(),
    )
    async with server.run():
        ready(server.local_url)
        await anyio.sleep_forever()


async def _bare(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    length = (b"content-length", str(len(REPLY)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": REPLY})


async def bare_server(ready: Callable[[str], None]) -> None:
    """The floor: reads the body and replies."""
    config = uvicorn.Config(
        _bare,
        port=0,
        loop="asyncio",
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        while not server.started:
            await anyio.sleep(0.01)
        ready(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}{PATH}")


def serve(server: Callable[[Callable[[str], None]], object], pipe: Connection) -> None:
    """A server's process: reports its URL, then its CPU seconds whenever it is asked."""

    def ready(url: str) -> None:
        pipe.send(url)
        threading.Thread(target=tell, daemon=True).start()

    def tell() -> None:
        while pipe.recv():
            pipe.send(time.process_time())

    anyio.run(server, ready)  # type: ignore[arg-type]


def request_bytes(url: str, serial: int) -> bytes:
    """A new, signed webhook."""
    call = {"id": f"mk-{serial}", "direction": "inbound", "from": "+1555", "to": "+1666"}
    body = json.dumps(
        {"id": f"ev-{serial}", "type": "call.ringing", "at": 1, "call": call}
    ).encode()
    timestamp = str(time.time_ns() // 1_000_000)
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\nmock-timestamp: {timestamp}\r\n"
        f"mock-signature: {sign(DEFAULT_AUTH_TOKEN, timestamp, url, body)}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def load(
    url: str, connections: int, seconds: float, cpu: Callable[[], float]
) -> dict[str, float]:
    """Figures of one run."""
    delays: list[float] = []
    end = time.perf_counter() + seconds
    parts = urlsplit(url)

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        serial = number
        while (begin := time.perf_counter()) < end:
            writer.write(request_bytes(url, serial))
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            await reader.readexactly(len(REPLY))
            delays.append(time.perf_counter() - begin)
            serial += connections
        writer.close()
        await writer.wait_closed()

    used = cpu()
    await asyncio.gather(*(client(number) for number in range(connections)))
    used = cpu() - used
    return {
        "requests/s": len(delays) / seconds,
        "CPU us a request": used / len(delays) * 1e6,
        "p99 ms": statistics.quantiles(delays, n=100)[98] * 1000,
    }


def measure(
    server: Callable[[Callable[[str], None]], object], connections: int, seconds: float
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

        return asyncio.run(load(url, connections, seconds, cpu))
    finally:
        process.terminate()
        process.join()


def main(connections: int = 32, seconds: float = 2.0) -> None:
    ratios = []
    for _ in range(2):
        rows = {"bare": measure(bare_server, connections, seconds)}
        rows["call server"] = measure(call_server, connections, seconds)
        for name, figures in rows.items():
            line = ", ".join(f"{label} {value:.1f}" for label, value in figures.items())
            print(f"{name:12} {connections} connections: {line}")
        key = "CPU us a request"
        ratios.append(rows["call server"][key] / rows["bare"][key])
    print(f"CPU ratio to bare: {statistics.mean(ratios):.2f}")


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
