"""Admission of media sockets, the same for every carrier.

============== ============================================ ===================================
when           rule                                         otherwise
============== ============================================ ===================================
upgrade        the path is the stream path                  404
upgrade        its signature, if it has one, is valid       401, unless signatures are skipped
upgrade        not shutting down, below the cap             503
connected      signed, or below the caps on pending
               sockets (total and per client)               close 1013
pre-start      admitted within the start timeout            close 1008
each message   not over the frame limit                     close 1009
first event    is the start, which comes only once          close 1008
start          the engine admits it                         close with the engine's code
============== ============================================ ===================================
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus

import anyio
from anyio.abc import TaskGroup

from voicecall.errors import WebhookRejected
from voicecall.media import Started, Upgrade
from voicecall.seam import Seam
from voicecall.telephony import TelephonyProvider
from voicecall_calls.doors import AdmissionRefused, MediaHost
from voicecall_gateway.floods import RepeatLog

from .limits import InFlight
from .options import StreamOptions
from .pipeline import loggable
from .sockets import CLOSE_GRACE_S, MediaConnection
from .upgrade import Refusal
from .urls import normal_path

__all__ = ["MediaServer"]

logger = logging.getLogger("voicecall.calls.server")

_LOOK_EVERY_S = 1.0
_REFUSALS = frozenset(status for status in HTTPStatus if status >= 400)


class MediaServer:
    """Owns every media socket of one listener."""

    def __init__(
        self,
        provider: TelephonyProvider,
        host: MediaHost,
        options: StreamOptions,
        *,
        url: Callable[[], str],
        seam: Seam,
        skip_signatures: bool,
    ) -> None:
        self._provider = provider
        self._skip_signatures = skip_signatures
        self._url = url
        self._seam = seam
        self._host = host
        self._options = options
        self._path = normal_path(options.path)
        self._sockets: set[MediaConnection] = set()
        self._pending: set[MediaConnection] = set()
        self._turned_away: set[MediaConnection] = set()
        """Sockets over the caps on pending ones. Until closed, they do not count as connections."""
        self._pending_limits = InFlight(
            per_client=options.max_pending_per_client, total=options.max_pending
        )
        self._log = RepeatLog(logger, seam.monotonic)
        self.refused: Counter[int] = Counter()
        """Number of refused sockets by HTTP status or, for those not yet admitted, close code."""
        self._tasks: TaskGroup | None = None
        """Set while sockets are admitted."""
        self._empty = anyio.Event()

    @property
    def open_sockets(self) -> int:
        """Connected sockets, including pending ones."""
        return len(self._sockets)

    @property
    def pending_sockets(self) -> int:
        """Unsigned sockets that the engine has not admitted yet."""
        return len(self._pending)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Admit sockets. On exit they are closed with 1001, and every attachment has been notified
        when this returns."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._look_after, name="media sockets")
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await self._close_all()
                tasks.cancel_scope.cancel()

    async def _look_after(self) -> None:
        while True:
            await anyio.sleep(_LOOK_EVERY_S)
            self._log.settle()
            for socket in list(self._sockets):
                socket.look_after()

    async def _close_all(self) -> None:
        self._tasks = None
        for socket in list(self._sockets):
            socket.close(1001, "Going away")
        with anyio.move_on_after(2 * CLOSE_GRACE_S):
            while self._sockets:
                self._empty = anyio.Event()
                await self._empty.wait()
        self._log.settle(at_once=True)

    # --- called by the connections ------------------------------------------------------------

    def upgrade(self, upgrade: Upgrade) -> MediaConnection | Refusal:
        """Accept or refuse the HTTP request that opens a media socket."""
        path = normal_path(upgrade.path)
        if path != self._path:
            text = "media socket of %s refused: its path is %s; media sockets are served at %s"
            self._log.info(text, upgrade.client, loggable(path), self._path)
            return Refusal(404, "Not Found")
        if self._tasks is None:
            return Refusal(503, "Shutting down")
        if len(self._sockets) - len(self._turned_away) >= self._options.max_connections:
            self._log.warning("media socket of %s refused: too many connections", upgrade.client)
            return Refusal(503, "Too many media stream connections")
        upgrade = replace(upgrade, url=self._url())
        signed = None
        try:
            if not self._skip_signatures:
                signed = self._provider.verify_upgrade(upgrade, self._seam.now_ms())
                if signed is not None and signed is not True:
                    raise WebhookRejected(401, f"verify_upgrade returns {signed!r}")
            codec = self._provider.media_codec(upgrade)
        except WebhookRejected as refused:
            reason = loggable(refused.reason)
            self._log.warning("media socket of %s refused: %s", upgrade.client, reason)
            # Any other status cannot be the answer to a handshake.
            status = refused.status if refused.status in _REFUSALS else 401
            return Refusal(status, "Unauthorized")
        except (Exception, SystemExit):
            logger.exception("no codec for the media socket of %s", upgrade.client)
            return Refusal(500, "Internal Server Error")
        return MediaConnection(
            upgrade,
            codec,
            self._options,
            seam=self._seam,
            log=self._log,
            refused=self.refused,
            connected=self._sockets.add if signed else self._connected,
            started=self._started,
            gone=self._gone,
        )

    def _connected(self, socket: MediaConnection) -> None:
        self._sockets.add(socket)
        if self._pending_limits.enter(socket.upgrade.client):
            self._pending.add(socket)
        else:
            self._turned_away.add(socket)
            socket.close(1013, "Too many pending media stream connections")

    def _started(self, socket: MediaConnection, started: Started) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(self._admit, socket, started, name="media admission")

    def _gone(self, socket: MediaConnection) -> None:
        self._settled(socket)
        self._sockets.discard(socket)
        self._turned_away.discard(socket)
        if not self._sockets:
            self._empty.set()

    def _settled(self, socket: MediaConnection) -> None:
        if socket in self._pending:
            self._pending.discard(socket)
            self._pending_limits.leave(socket.upgrade.client)

    async def _admit(self, socket: MediaConnection, started: Started) -> None:
        try:
            attachment = await self._host.admit(started, socket.upgrade, socket)
        except AdmissionRefused as refused:
            socket.close(refused.code, refused.reason)
        except Exception:
            logger.exception("admission of a media socket failed")
            socket.close(1011, "Internal error")
        else:
            self._settled(socket)
            socket.opened(attachment)
