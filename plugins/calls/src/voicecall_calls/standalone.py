"""A gateway inside a command, for as long as its calls last."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from typing import Any, NoReturn

import anyio
from anyio.from_thread import start_blocking_portal

from voicecall.errors import VoicecallError
from voicecall.hosting import RpcCall
from voicecall.registry import Registry
from voicecall.seam import SystemSeam
from voicecall.store import CallStore
from voicecall_calls.config import PLUGIN_ID, VoiceCallConfig
from voicecall_calls.making import open_provider
from voicecall_calls.operations import projection
from voicecall_calls.storing import selected_store, store_directory
from voicecall_gateway.config import LoadedConfig
from voicecall_gateway.host import provider_context
from voicecall_gateway.logs import Mask, configure_logging, credentials_in
from voicecall_gateway.pluginconfig import plugin_config
from voicecall_gateway.runtime import Gateway

__all__ = ["Standalone", "stored_status"]

_POLL_S = 0.25
_OPERATOR = RpcCall("command", frozenset({"operator.read", "operator.write", "operator.admin"}))


class Standalone:
    """Open once made; :meth:`close` serves until no call is live, where it is ``lasting``, then
    stops. SIGINT and SIGTERM interrupt what is under way, and then nothing is waited for but the
    gateway's own stop; so does SIGHUP, with which a terminal goes, unless it is ignored. The exit
    status tells which it was. What is logged goes to the gateway's log. One a process, in its main
    thread."""

    def __init__(
        self, loaded: LoadedConfig, registry: Registry, environ: Mapping[str, str]
    ) -> None:
        mask = Mask(credentials_in(loaded.tree))
        configure_logging(loaded.state_dir, mask, stderr=False)
        self.lasting = False
        self._begun = False
        self._interrupted: int | None = None
        """The signal that came last."""
        self._stack = ExitStack()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._stack.callback(signal.signal, number, signal.signal(number, self._interrupt))
        self._portal = self._stack.enter_context(start_blocking_portal())
        self._gateway = Gateway(loaded, registry, environ=environ, on_secrets=mask.add)
        try:
            running = self._portal.wrap_async_context_manager(self._gateway.run())
            self._stack.enter_context(running)
            self._begun = True
            if self._interrupted is not None:
                _stop(self._interrupted)
            problems = self._portal.call(self._gateway.wait_started)
            if problems:
                raise VoicecallError("; ".join(problems))
        except BaseException:
            self._stack.close()
            raise

    def call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of one RPC method."""
        served = self._gateway.host.methods.get(method)
        if served is None:
            raise VoicecallError(
                f"the phone is off: set plugins.entries.{PLUGIN_ID}.enabled to true"
                f" (voicecall plugins enable {PLUGIN_ID})"
            )
        handler = served.handler

        async def run() -> dict[str, Any]:
            return dict(await handler(params, _OPERATOR))

        return self._portal.call(run)

    def close(self) -> None:
        try:
            while self.lasting and self._interrupted is None and self._live():
                time.sleep(_POLL_S)
        finally:
            self._stack.close()

    def _live(self) -> bool:
        return bool(self.call("voicecall.status", {})["calls"])

    def _interrupt(self, number: int, _: object) -> None:
        # In the middle of the begin it would leave a gateway behind that nobody ends, and that is
        # waited for.
        at_once = self._begun or self._interrupted is not None
        self._interrupted = number
        if at_once:
            _stop(number)


def _stop(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def stored_status(
    loaded: LoadedConfig, registry: Registry, environ: Mapping[str, str], call_id: str | None
) -> dict[str, Any]:
    """What the store says, with no gateway running: nothing is live then."""
    config: VoiceCallConfig = plugin_config(registry, loaded, PLUGIN_ID)
    chosen = selected_store(config, registry, environ, loaded.state_dir)
    directory = store_directory(config, loaded.state_dir)
    if hasattr(chosen.config, "directory") and not directory.exists():
        # No gateway ever ran here; looking must not leave files behind.
        return {"found": False} if call_id else {"found": True, "calls": []}
    context = provider_context(
        registry=registry,
        environ=environ,
        state_dir=loaded.state_dir,
        seam=SystemSeam(),
        path="store",
    )

    async def read() -> dict[str, Any]:
        async with AsyncExitStack() as stack:
            store: CallStore = await open_provider(chosen, context, stack)
            return await _status(store, call_id)

    return anyio.run(read)


async def _status(store: CallStore, call_id: str | None) -> dict[str, Any]:
    if call_id is None:
        return {"found": True, "calls": [projection(r) for r in await store.live()]}
    record = await store.load(call_id)
    if record is None:
        every = await store.recent(10_000)
        record = next((r for r in every if call_id in r.aliases), None)
    return {"found": False} if record is None else {"found": True, "call": projection(record)}
