"""A gateway inside a command, running until its calls are over."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any, NoReturn

from anyio.from_thread import start_blocking_portal

from voicecall.errors import VoicecallError
from voicecall.hosting import RpcCall
from voicecall.registry import Registry
from voicecall_calls.commands.offline import PHONE_OFF
from voicecall_gateway.auth import SCOPES
from voicecall_gateway.config import LoadedConfig
from voicecall_gateway.logs import Mask, configure_logging, credentials_in
from voicecall_gateway.output import print_error
from voicecall_gateway.runtime import Gateway

__all__ = ["Standalone"]

_POLL_S = 0.25
_OPERATOR = RpcCall("command", frozenset(SCOPES))


class Standalone:
    """Runs from its construction on. :meth:`close` stops it; if ``lasting``, it first serves until
    no call is live.

    SIGINT and SIGTERM interrupt whatever is under way; after that, only the gateway's own stop is
    waited for. SIGHUP, sent when a terminal closes, does the same unless it is ignored. The exit
    status says which signal it was. Log lines go to the gateway's log. One per process, in its main
    thread.
    """

    def __init__(
        self, loaded: LoadedConfig, registry: Registry, environ: Mapping[str, str]
    ) -> None:
        mask = Mask(credentials_in(loaded.tree))
        configure_logging(loaded.state_dir, mask, stderr=False)
        self.lasting = False
        self._drain_s = loaded.gateway.drain_seconds
        self._begun = False
        self._interrupted: int | None = None
        """The latest signal."""
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
        """The payload that an RPC method returns."""
        served = self._gateway.host.methods.get(method)
        if served is None:
            raise VoicecallError(PHONE_OFF)
        handler = served.handler

        async def run() -> dict[str, Any]:
            return dict(await handler(params, _OPERATOR))

        return self._portal.call(run)

    def close(self) -> None:
        try:
            while self.lasting and self._interrupted is None and self._live():
                time.sleep(_POLL_S)
        finally:
            try:
                self._announce_drain()
            finally:
                self._stack.close()

    def _announce_drain(self) -> None:
        """Say why a command that was interrupted does not end yet."""
        # A phone that is not running refuses to be asked, and has no calls.
        with suppress(VoicecallError):
            if self._interrupted is not None and self._drain_s and self._live():
                print_error(
                    f"the call has up to {self._drain_s:g} s to end;"
                    " interrupt again to stop at once"
                )

    def _live(self) -> bool:
        return bool(self.call("voicecall.status", {})["calls"])

    def _interrupt(self, number: int, _: object) -> None:
        # Raising in the middle of the start would leave a gateway that is never stopped, but waited
        # for.
        at_once = self._begun or self._interrupted is not None
        self._interrupted = number
        if at_once:
            _stop(number)


def _stop(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
