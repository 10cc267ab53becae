"""A gateway inside a command, for as long as its calls last."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
from anyio.from_thread import start_blocking_portal

from voicecall.errors import VoicecallError
from voicecall.hosting import RpcCall
from voicecall.registry import Registry
from voicecall.seam import SystemSeam
from voicecall_calls.operations import projection
from voicecall_gateway.config import LoadedConfig
from voicecall_gateway.runtime import Gateway

__all__ = ["Standalone", "stored_status"]

_POLL_S = 0.25
_OPERATOR = RpcCall("command", frozenset({"operator.read", "operator.write", "operator.admin"}))


class Standalone:
    """Open once made; :meth:`close` serves until no call is live, then stops."""

    def __init__(
        self, loaded: LoadedConfig, registry: Registry, environ: Mapping[str, str]
    ) -> None:
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())
        self._gateway = Gateway(loaded, registry, environ=environ)
        try:
            running = self._portal.wrap_async_context_manager(self._gateway.run())
            self._stack.enter_context(running)
            problems = self._portal.call(self._gateway.wait_started)
            if problems:
                raise VoicecallError("; ".join(problems))
        except BaseException:
            self._stack.close()
            raise

    def call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of one RPC method."""
        handler = self._gateway.host.methods[method].handler

        async def run() -> dict[str, Any]:
            return dict(await handler(params, _OPERATOR))

        return self._portal.call(run)

    def close(self) -> None:
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while self.call("voicecall.status", {})["calls"]:
                time.sleep(_POLL_S)
        finally:
            signal.signal(signal.SIGTERM, before)
            self._stack.close()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def stored_status(loaded: LoadedConfig, registry: Registry, call_id: str | None) -> dict[str, Any]:
    """What the store says, with no gateway running: nothing is live then."""
    values = loaded.plugin_values("voice-call")
    directory = values.get("store")
    folder = Path(directory).expanduser() if directory else loaded.state_dir / "voice-calls"
    if not folder.exists():
        return {"found": False} if call_id else {"found": True, "calls": []}
    return anyio.run(_read, folder, call_id)


async def _read(folder: Path, call_id: str | None) -> dict[str, Any]:
    from voicecall_calls.store import SqliteStore

    store = SqliteStore(folder, SystemSeam())
    async with store.lifespan():
        if call_id is None:
            return {"found": True, "calls": [projection(r) for r in await store.live()]}
        record = await store.load(call_id)
        if record is None:
            every = await store.recent(10_000)
            record = next((r for r in every if call_id in r.aliases), None)
    return {"found": False} if record is None else {"found": True, "call": projection(record)}
