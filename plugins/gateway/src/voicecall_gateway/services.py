"""Running the services of plugins: start in order, report, drain, stop in reverse."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import anyio
from anyio.abc import TaskGroup

from voicecall.errors import VoicecallError
from voicecall.hosting import Liveness, Service

__all__ = ["ServiceRunner"]

_log = logging.getLogger("voicecall.gateway.services")


class ServiceRunner:
    """One service in a task of its own, so that one that breaks takes no other down.

    ``settled`` is set when it runs or has failed to; ``problem`` says why it does not run.
    ``drained``: nothing was under way any more when that was asked for.
    """

    def __init__(self, plugin_id: str, service: Service) -> None:
        self.plugin_id = plugin_id
        self.name = service.name
        self.running = False
        self.problem: str | None = None
        self.settled = anyio.Event()
        self.drained = False
        self._service = service
        self._scope = anyio.CancelScope()
        self._launched = False
        self._stop = anyio.Event()
        self._stopped = anyio.Event()

    @property
    def service(self) -> Service:
        return self._service

    def live(self) -> int | None:
        """How much would be lost if the service were started anew; None where it does not tell.
        One that does not run has nothing to lose."""
        if not self.running:
            return 0
        if not isinstance(self._service, Liveness):
            return None
        try:
            return self._service.live()
        except Exception:  # noqa: BLE001 (a stranger's service)
            _log.exception("the service %s cannot tell what is under way", self.name)
            return None

    def launch(self, tasks: TaskGroup) -> None:
        """Start the service as a task of ``tasks``."""
        self._launched = True
        tasks.start_soon(self._run, name=f"service {self.name}")

    async def _run(self) -> None:
        try:
            with self._scope:
                async with self._service.run():
                    self.running = True
                    self.settled.set()
                    await self._stop.wait()
        except VoicecallError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 (a stranger's service)
            reasons = _reasons(error)
            if reasons is None:
                _log.exception("the service %s of %s broke", self.name, self.plugin_id)
            self._fail(reasons or f"internal error ({type(error).__name__}), see the log")
        finally:
            self.running = False
            self.settled.set()
            self._stopped.set()

    def _fail(self, reason: str) -> None:
        verb = "stopped" if self.settled.is_set() else "cannot start"
        self.problem = f"{self.name} {verb}: {reason}"
        _log.error("%s", self.problem)

    def problems(self) -> Sequence[str]:
        """Why this service is not ready, one sentence each."""
        if self.problem is not None:
            return [self.problem]
        if not self.running:
            return [f"{self.name} {'has stopped' if self.settled.is_set() else 'is starting'}"]
        try:
            return list(self._service.problems())
        except Exception as error:  # noqa: BLE001 (a stranger's service)
            _log.exception("the service %s cannot tell its state", self.name)
            return [f"{self.name} cannot tell its state ({type(error).__name__})"]

    async def drain(self) -> None:
        """Wait for what is under way. The caller bounds the time."""
        if not self.running:
            self.drained = True
            return
        try:
            await self._service.drain()
            self.drained = True
        except Exception:  # noqa: BLE001 (a stranger's service)
            _log.exception("the service %s did not drain", self.name)

    async def stop(self) -> None:
        """Leave the service and wait until everything in it is closed. One that is still
        starting is cancelled."""
        if not self._launched:
            return
        if not self.settled.is_set():
            self._scope.cancel()
        self._stop.set()
        await self._stopped.wait()


def _reasons(error: Exception) -> str | None:
    """The messages of a group that holds nothing but voicecall's own errors."""
    if not isinstance(error, ExceptionGroup):
        return None
    parts = []
    for inner in error.exceptions:
        text = str(inner) if isinstance(inner, VoicecallError) else _reasons(inner)
        if text is None:
            return None
        parts.append(text)
    return "; ".join(parts)
