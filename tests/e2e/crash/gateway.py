"""The gateway under test: a process on fixed ports, with one state directory."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
from tests.e2e.lab.forked import Forked
from tests.ports import reserve_port

from voicecall.model import MediaPath
from voicecall_gateway.client import GatewayClient

__all__ = ["INBOUND", "OUTBOUND", "Gateway"]

OUTBOUND = 13
INBOUND = 6
"""Caps of the gateway. Every round fills them, so that a leaked place shows."""
STREAMED = {
    "streaming": {"enabled": True, "provider": "fsk"},
    "tts": {"provider": "fsk"},
    "silenceTimeoutMs": 200,
}
"""Text in tones both ways: cheap to make, and read back exactly."""
PATIENCE_S = 60.0


def _speech_installed(root: Path) -> Path:
    """A folder that, on the path, makes the speech providers of ``voicecall_testing`` installed."""
    packages = root / "packages"
    info = packages / "speech_in_tones-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: speech-in-tones\nVersion: 1.0\n")
    entry = "fsk = voicecall_testing.speech"
    (info / "entry_points.txt").write_text(
        f"[voicecall.tts]\n{entry}\n[voicecall.transcription]\n{entry}\n"
    )
    return packages


class Gateway:
    """``voicecall gateway run``, again and again. Use :meth:`at_hand`."""

    def __init__(self, root: Path, exchange_url: str, media: MediaPath) -> None:
        self.media = media
        self.port, webhook_port = reserve_port(), reserve_port()
        self.database = root / "state" / "voice-calls" / "calls.db"
        self.pid = 0
        """0 if it was killed or stopped."""
        self._config = root / "config.json5"
        self._output = root / "output.txt"
        self._read = 0
        self._environ = {
            **{key: value for key, value in os.environ.items() if "VOICECALL" not in key},
            "HOME": str(root),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(_speech_installed(root)), os.environ.get("PYTHONPATH")])
            ),
            "VOICECALL_STATE_DIR": str(root / "state"),
        }
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", trust_env=False)
        self._process: Forked | None = None
        phone = {
            "provider": "mock",
            "mock": {"apiBaseUrl": exchange_url},
            "serve": {"port": webhook_port},
            "inboundPolicy": "open",
            "inboundGreeting": "Good day to you.",
            "phrases": {"resumed": "Here I am."},
            "outbound": {"notifyHangupDelaySec": 1},
            "maxConcurrentCalls": OUTBOUND,
            "maxConcurrentInboundCalls": INBOUND,
            "maxDurationSeconds": 120,
            "ringTimeoutMs": 4000,
            **(STREAMED if media is MediaPath.STREAM else {}),
        }
        tree = {
            "gateway": {"port": self.port},
            "plugins": {"entries": {"voice-call": {"config": phone}}},
        }
        self._config.write_text(json.dumps(tree))

    @asynccontextmanager
    async def at_hand(self) -> AsyncIterator[Gateway]:
        """Start gateways inside; the last one is killed on the way out."""
        async with self._http:
            try:
                yield self
            finally:
                if self._process is not None:
                    self._process.kill()
                    self._process.wait()

    async def start(self) -> None:
        arguments = ["gateway", "run", "--config", str(self._config)]
        with self._output.open("ab") as output:
            self._process = await anyio.to_thread.run_sync(
                Forked, arguments, self._environ, self._output.parent, output.fileno()
            )
        self.pid = self._process.pid

    async def ready(self) -> None:
        """Wait until its phone takes calls."""
        answer = "nothing"
        with anyio.move_on_after(PATIENCE_S):
            while True:
                try:
                    response = await self._http.get("/readyz")
                except httpx.TransportError as error:
                    answer = repr(error)
                else:
                    answer = response.text
                    if response.status_code == 200:
                        return
                await anyio.sleep(0.02)
        raise AssertionError(f"the gateway is not ready: {answer}")

    async def kill(self) -> str:
        """``kill -9``; what it has written since the last time."""
        os.kill(self.pid, signal.SIGKILL)
        return await self._gone(-signal.SIGKILL)

    async def stop(self) -> str:
        """Ask it to end; what it has written since the last time."""
        os.kill(self.pid, signal.SIGTERM)
        return await self._gone(0)

    async def _gone(self, status: int) -> str:
        self.pid = 0
        assert self._process is not None
        ended = await anyio.to_thread.run_sync(self._process.wait, PATIENCE_S)
        with self._output.open() as output:
            output.seek(self._read)
            text = output.read()
            self._read = output.tell()
        assert ended == status, f"the gateway ended by itself ({ended}):\n{text}"
        return text

    def client(self) -> GatewayClient:
        """A synchronous RPC client, not connected yet."""
        return GatewayClient.connect(self._config, self._environ, timeout=PATIENCE_S)

    async def call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """One RPC. Raises what the client raises."""

        def ask() -> dict[str, Any]:
            with self.client() as client:
                return client.call(method, params)

        return await anyio.to_thread.run_sync(ask)
