"""A telephone exchange in this process, and a whole gateway (configuration, store, webhooks, media)
in another, pinned to its own core. This process keeps the other cores."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from voicecall import ProviderInfo
from voicecall.registry import Registry
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.eventloop import new_event_loop
from voicecall_gateway.runtime import Gateway
from voicecall_mock.exchange import Exchange, ExchangeOptions
from voicecall_mock.exchange.line import PhoneLine
from voicecall_mock.exchange.script import Silent
from voicecall_testing.offering import offered

__all__ = ["GatewayProcess", "dial_in", "gateway_process"]

_HERE = "+15550200000"
_TOKEN = "a-token-of-the-benchmark"

Providers = Callable[[], Sequence[ProviderInfo]]


class GatewayProcess:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def usage(self) -> tuple[float, int]:
        """CPU seconds so far, and resident bytes."""
        self._pipe.send(True)
        cpu, resident = self._pipe.recv()
        return float(cpu), int(resident)


@asynccontextmanager
async def gateway_process(
    calls: int, tree: Mapping[str, Any], phone: Mapping[str, Any], providers: Providers = tuple
) -> AsyncIterator[tuple[Exchange, GatewayProcess]]:
    """Start a gateway. ``tree`` and ``phone`` are added to a configuration of the carrier and its
    limits. ``providers``, a module-level function, returns providers besides the installed ones."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[:-1]))
    options = ExchangeOptions(auth_token=_TOKEN, answer_after_ms=20, recording_limit_s=0)
    with tempfile.TemporaryDirectory(prefix="voicecall-bench-") as directory:
        async with Exchange(options).serve() as exchange:
            phone = {**_carrier(exchange.base_url, calls), **phone}
            whole = {
                "gateway": {"port": 0},
                "plugins": {"entries": {"voice-call": {"config": phone}}},
                **tree,
            }
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(
                target=_serve, args=(whole, directory, cores[-1], providers, theirs)
            )
            process.start()
            try:
                problems = await anyio.to_thread.run_sync(ours.recv)
                if problems:
                    raise RuntimeError("; ".join(problems))
                yield exchange, GatewayProcess(ours)
            finally:
                process.terminate()
                process.join()


async def dial_in(exchange: Exchange, calls: int) -> list[PhoneLine]:
    """Have this many phones call in; their lines, once all have a media socket."""
    ids = []
    for number in range(calls):
        ids.append(exchange.dial_in(f"+1555010{number:04d}", _HERE, (Silent(),)))
        await anyio.sleep(0.02)
    lines = [exchange.calls[one].line for one in ids]
    with anyio.fail_after(30):
        while any(line.stream is None for line in lines):
            await anyio.sleep(0.05)
    return lines


def _carrier(exchange_url: str, calls: int) -> dict[str, Any]:
    return {
        "provider": "mock",
        "mock": {"apiBaseUrl": exchange_url, "authToken": _TOKEN},
        "inboundPolicy": "open",
        "maxConcurrentInboundCalls": calls,
        "serve": {"port": 0},
        "webhookSecurity": {"maxInFlightPerClient": 2 * calls, "maxInFlight": 2 * calls},
    }


def _serve(
    tree: dict[str, Any], directory: str, core: int, providers: Providers, pipe: Connection
) -> None:
    """Run until terminated; report CPU seconds and resident bytes whenever asked."""
    os.sched_setaffinity(0, {core})
    registry = Registry(extra=[offered(info) for info in providers()])

    async def serve() -> None:
        loaded = config_from_tree(tree, environ={}, source="bench", state_dir=Path(directory))
        async with Gateway(loaded, registry).run() as running:
            pipe.send(list(await running.wait_started()))
            threading.Thread(target=_tell, args=(pipe,), daemon=True).start()
            await anyio.sleep_forever()

    anyio.run(serve, backend_options={"loop_factory": new_event_loop})


def _tell(pipe: Connection) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    while pipe.recv():
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
        pipe.send((time.process_time(), resident))
