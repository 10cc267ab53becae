"""Running the services of plugins: start, report problems, drain, stop."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import anyio
from anyio.abc import TaskGroup

from voicecall.errors import VoicecallError
from voicecall.hosting import Liveness, Service

__all__ = ["ServiceRunner"]

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0

_log = logging.getLogger("voicecall.gateway.services")


class ServiceRunner:
    """One service in its own task, so that a failure does not affect other services.

    A service that cannot start is retried after 1 s, then after twice as long each time, up to a
    minute: what it needs may become available. One that fails while it runs is not retried.

    ``settled`` is set when the service runs or has failed to start; ``problem`` says why it does
    not run. ``drained``: a drain has completed.
    """

    def __init__(self, plugin_id: str, service: Service) -> None:
        self.plugin_id = plugin_id
        self.name = service.name
        self.running = False
        self.problem: str | None = None
        self.settled = anyio.Event()
        self.drained = False
        self.service = service
        self._scope = anyio.CancelScope()
        self._launched = False
        self._stop = anyio.Event()
        self._stopped = anyio.Event()

    def live(self) -> int | None:
        """How much a restart of the service would interrupt (0 if it does not run); None if it
        does not report that."""
        if not self.running:
            return 0
        if not isinstance(self.service, Liveness):
            return None
        try:
            count = self.service.live()
            if not isinstance(count, int):
                raise TypeError(f"live() returns {type(count).__name__}, not a number")
            return count
        except (Exception, SystemExit):  # noqa: BLE001 (a stranger's service)
            _log.exception("the service %s cannot report what is under way", self.name)
            return None

    def launch(self, tasks: TaskGroup) -> None:
        """Start the service as a task of ``tasks``."""
        self._launched = True
        tasks.start_soon(self._run, name=f"service {self.name}")

    async def _run(self) -> None:
        wait = FIRST_WAIT_S
        try:
            with self._scope:
                while not await self._entered():
                    self.settled.set()
                    await anyio.sleep(wait)
                    wait = min(wait * 2, LONGEST_WAIT_S)
        finally:
            self.running = False
            self.settled.set()
            self._stopped.set()

    async def _entered(self) -> bool:
        """Run the service until it is stopped or fails; False if it could not start."""
        try:
            async with self.service.run():
                self._starts()
                await self._stop.wait()
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a stranger's service)
            reasons = _reasons(error)
            if reasons is not None:
                self._fail(reasons)
            else:
                self._fail(f"internal error ({type(error).__name__}), see the log", error)
        return self.running

    def _starts(self) -> None:
        if self.problem is not None:
            _log.info("%s has started after all", self.name)
        self.problem = None
        self.running = True
        self.settled.set()

    def _fail(self, reason: str, bug: BaseException | None = None) -> None:
        verb = "stopped" if self.running else "cannot start"
        problem = f"{self.name} {verb}: {reason}"
        if problem == self.problem:
            return
        self.problem = problem
        if bug is not None:
            _log.error("the service %s of %s failed", self.name, self.plugin_id, exc_info=bug)
        _log.error("%s%s", problem, "" if self.running else "; it is tried again")

    def problems(self) -> Sequence[str]:
        """One sentence for each reason why this service is not ready."""
        if self.problem is not None:
            return [self.problem]
        if not self.running:
            return [f"{self.name} {'has stopped' if self.settled.is_set() else 'is starting'}"]
        try:
            found = self.service.problems()
            texts = list(found)
            if isinstance(found, str) or not all(isinstance(text, str) for text in texts):
                raise TypeError(f"problems() returns {found!r}, not a sequence of strings")
            return texts
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a stranger's service)
            _log.exception("the service %s cannot report its state", self.name)
            return [f"{self.name} cannot report its state ({type(error).__name__})"]

    async def drain(self) -> None:
        """Wait for what is under way. The caller limits the time."""
        if not self.running:
            if self.settled.is_set():
                # No more retries: it must not start while everything else stops.
                self._scope.cancel()
            self.drained = True
            return
        try:
            await self.service.drain()
            self.drained = True
        except (Exception, SystemExit):  # noqa: BLE001 (a stranger's service)
            _log.exception("the service %s did not drain", self.name)

    async def stop(self) -> None:
        """Stop the service and wait until it has closed everything. A start in progress is
        cancelled."""
        if not self._launched:
            return
        if not self.running:
            self._scope.cancel()
        self._stop.set()
        await self._stopped.wait()


def _reasons(error: BaseException) -> str | None:
    """The message of a voicecall error, or the messages of a group of only such errors; None for
    anything else."""
    if isinstance(error, VoicecallError):
        return str(error)
    if not isinstance(error, ExceptionGroup):
        return None
    texts = [_reasons(inner) for inner in error.exceptions]
    known = [text for text in texts if text is not None]
    return "; ".join(known) if len(known) == len(texts) else None
