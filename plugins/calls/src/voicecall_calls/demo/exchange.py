"""The demo's telephone exchange: another process, controlled over its REST API."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx

from voicecall.errors import VoicecallError

__all__ = ["DemoExchange", "exchange_process"]

# The pipe is closed however the demo ends. It is read with os.read, without Python's buffer, whose
# lock the interpreter needs when it exits. The token is in the environment, since every user of the
# machine can read the arguments of a process.
_EMULATE = """
import os, signal, sys, threading
from voicecall_gateway.cli import main

sys.argv += ["--auth-token", os.environ.pop("EXCHANGE_TOKEN")]

def stay() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stay, daemon=True).start()
main()
"""
_START_PATIENCE_S = 20.0


class DemoExchange:
    """Requests to an exchange at ``base_url``."""

    def __init__(self, base_url: str, auth_token: str) -> None:
        self.base_url = base_url
        self._headers = {"authorization": f"Bearer {auth_token}"}

    async def _request(self, method: str, path: str, body: Any = None) -> httpx.Response:
        async with httpx.AsyncClient(
            base_url=self.base_url, headers=self._headers, trust_env=False
        ) as http:
            response = await http.request(method, path, json=body)
        if response.status_code >= 400:
            raise VoicecallError(f"the exchange answers {response.status_code}: {response.text}")
        return response

    async def call_in(self, number: str, to: str, steps: Sequence[Mapping[str, Any]]) -> str:
        """Let a phone place a call. Returns the exchange's id of the call."""
        response = await self._request(
            "POST", f"/v1/phones/{number}/dial", {"to": to, "script": list(steps)}
        )
        return str(response.json()["id"])

    async def stats(self, call_id: str) -> Mapping[str, Any]:
        """Statistics of the call, measured at the phone."""
        ledger = (await self._request("GET", "/v1/ledger")).json()
        for call in ledger["calls"]:
            if call["id"] == call_id:
                stats: Mapping[str, Any] = call["stats"]
                return stats
        raise VoicecallError(f"the exchange has no call {call_id}")

    async def recording(self, call_id: str) -> bytes:
        return (await self._request("GET", f"/v1/calls/{call_id}/recording")).content


@asynccontextmanager
async def exchange_process(
    carrier: str, voice: str, auth_token: str
) -> AsyncIterator[DemoExchange]:
    """Run ``voicecall emulate`` on a free port until the context exits or this process dies.
    ``voice``: ``<tts id>:<voice>``."""
    arguments = [sys.executable, "-c", _EMULATE, "emulate", carrier, "--port", "0"]
    arguments += ["--tts", voice]
    environ = {**os.environ, "EXCHANGE_TOKEN": auth_token}
    async with await anyio.open_process(arguments, stderr=subprocess.PIPE, env=environ) as process:
        try:
            yield DemoExchange(await _address(process), auth_token)
        finally:
            if process.returncode is None:
                process.terminate()


async def _address(process: anyio.abc.Process) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    text = b""
    with anyio.move_on_after(_START_PATIENCE_S):
        async for piece in process.stdout:
            text += piece
            if b"\n" in text:
                return text.split(b"\n")[0].decode().rsplit(" ", 1)[-1]
        errors = b"".join([piece async for piece in process.stderr]).decode(errors="replace")
        raise VoicecallError(f"the exchange did not start: {errors.strip() or 'no reason given'}")
    raise VoicecallError("the exchange did not start in time")
