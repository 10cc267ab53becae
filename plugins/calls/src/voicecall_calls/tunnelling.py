"""Keeping a tunnel open and reporting its URL."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from voicecall.errors import VoicecallError
from voicecall.seam import Seam
from voicecall.tunnel import TunnelProvider

__all__ = ["FIRST_WAIT_S", "LONGEST_WAIT_S", "TunnelKeeper"]

_log = logging.getLogger("voicecall.calls")

OPEN_S = 30.0
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0


class TunnelKeeper:
    """One tunnel, reopened when it is lost: after 1 s, then after twice as long each time, up to a
    minute. ``on_url`` is called with the public base URL, and again whenever it changes.

    ``problem`` says why there is no tunnel at the moment; None while there is one.
    """

    def __init__(
        self,
        tunnel: TunnelProvider,
        label: str,
        seam: Seam,
        *,
        port: int,
        paths: Sequence[str],
        on_url: Callable[[str], None],
    ) -> None:
        self.problem: str | None = f"the tunnel {label} is being opened"
        self._tunnel = tunnel
        self._label = label
        self._seam = seam
        self._port = port
        self._paths = paths
        self._on_url = on_url
        self._url: str | None = None
        self._tried = anyio.Event()
        self._found = anyio.Event()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Keep the tunnel open. Entered after the first attempt to open it, whatever its result."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep, name="tunnel")
            await self._tried.wait()
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def opened(self) -> None:
        """Wait until the tunnel has been open once, however many attempts that takes."""
        await self._found.wait()

    async def _keep(self) -> None:
        wait = FIRST_WAIT_S
        while True:
            begun = self._seam.monotonic()
            self._fails(await self._once())
            if self._seam.monotonic() - begun > LONGEST_WAIT_S:
                wait = FIRST_WAIT_S
            await anyio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_S)

    async def _once(self) -> str:
        """Open the tunnel and use it while it lasts. Returns why it ended."""
        try:
            with anyio.move_on_after(OPEN_S) as patience:
                async with self._tunnel.open(self._port, self._paths) as urls:
                    async for url in urls:
                        patience.deadline = float("inf")
                        self._opened(url)
            if patience.cancelled_caught:
                return f"{self._label}: not open after {OPEN_S:.0f} s"
            return f"{self._label}: the tunnel was closed"
        except VoicecallError as error:
            return str(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a stranger's tunnel)
            _log.exception("the tunnel %s broke", self._label)
            return f"{self._label}: internal error ({type(error).__name__}), see the log"

    def _opened(self, url: str) -> None:
        self.problem = None
        if url != self._url:
            self._url = url
            self._on_url(url)
        self._found.set()
        self._tried.set()

    def _fails(self, reason: str) -> None:
        self.problem = f"no tunnel: {reason}"
        _log.warning("%s; it will be opened again", self.problem)
        self._tried.set()
