"""The gateway as an object, for a program that embeds it, a test, or the ``voicecall`` command."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version as distribution_version
from itertools import chain
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from voicecall.hosting import RpcCall, RpcMethod
from voicecall.registry import Registry
from voicecall.seam import Seam, SystemSeam

from .auth import ADMIN, READ, gateway_token
from .config import LoadedConfig
from .descriptors import Descriptors
from .garbage import collect_garbage, collect_rarely
from .host import Host
from .logs import private_directory
from .parameters import refuse_unknown
from .plugins import missing_backends, missing_plugins, missing_tools
from .pluginset import PluginSet
from .providerblocks import misspelt_blocks
from .reload import Reloader
from .rpc import RpcServer
from .sections import url_host
from .server import AdminServer, bind_port, make_app
from .throttle import Throttle
from .toolhttp import ToolEndpoint

__all__ = ["Gateway", "serve"]

FLUSH_SECONDS = 1.0
CLOSING_SECONDS = 15.0
"""Time that a stop may take after the drain."""
AT_ONCE_SECONDS = 5.0
"""Time that a stop may take after the second request."""

_log = logging.getLogger("voicecall.gateway")


class Gateway:
    """One gateway. :meth:`run` may be entered once.

    ``on_secrets`` is called with every secret of the configuration, so that a log can mask it.
    ``reload`` reads the configuration again: when the file ``watch`` changes, and on request
    (:meth:`request_reload`, ``gateway.reload``).
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        registry: Registry,
        *,
        seam: Seam | None = None,
        environ: Mapping[str, str] | None = None,
        on_secrets: Callable[[Iterable[str]], None] | None = None,
        reload: Callable[[], LoadedConfig] | None = None,
        watch: Path | None = None,
    ) -> None:
        self.version = distribution_version("voicecall-gateway")
        self.loaded = loaded
        self.registry = registry
        self.seam: Seam = seam or SystemSeam()
        self.host = Host(loaded, registry, self.seam, environ or {})
        self.port = loaded.gateway.port
        self.token: str | None = None
        self._plugins = PluginSet(registry, self.host)
        self._descriptors = Descriptors()
        self._reloader = Reloader(self, self._plugins, reload, watch)
        self._started = anyio.Event()
        self._start_scope: anyio.CancelScope | None = None
        self._stop_requested = anyio.Event()
        self._started_at = self.seam.monotonic()
        self._rpc: RpcServer | None = None
        self._on_secrets = on_secrets
        self.use(loaded)

    @property
    def url(self) -> str:
        """``http://host:port`` of the admin port, as bound."""
        return f"http://{url_host(self.loaded.gateway.bind)}:{self.port}"

    def problems(self) -> Sequence[str]:
        """One sentence for each reason why the gateway is not ready; empty if it is."""
        problems: list[str] = []
        if self._stop_requested.is_set():
            problems.append("the gateway is stopping")
        elif not self._started.is_set():
            problems.append("the gateway is starting")
        problems += self._descriptors.problems()
        problems += self._plugins.problems()
        # Everyone who can reach the admin port can read them, and a vendor's error may quote its
        # key.
        return [self.loaded.secrets.explain(problem) for problem in problems]

    def _absent(self) -> Sequence[str]:
        """One sentence for each reason why a method may be missing."""
        return [*self.problems(), *self._plugins.off()]

    def _readiness(self) -> tuple[Sequence[str], Sequence[str]]:
        return self.problems(), self._reloader.waiting()

    async def wait_started(self) -> Sequence[str]:
        """Wait until every service runs or has failed to start; returns :meth:`problems`."""
        await self._started.wait()
        return self.problems()

    @property
    def stopping(self) -> bool:
        return self._stop_requested.is_set()

    def idle(self) -> bool:
        """Whether nothing is under way, as far as the services report it."""
        return not self._plugins.live()

    def use(self, loaded: LoadedConfig) -> None:
        """Make ``loaded`` the configuration. The reloader applies it to the plugins."""
        self.loaded = self.host.loaded = loaded
        if self._on_secrets is not None:
            loaded.secrets.on_found(self._on_secrets)

    def remark(self, loaded: LoadedConfig, before: LoadedConfig | None = None) -> None:
        """Log the notes and warnings about a configuration, except those that ``before`` had
        too."""
        notes, warnings = self._remarks(loaded)
        told = [] if before is None else [*chain(*self._remarks(before))]
        for level, texts in ((logging.INFO, notes), (logging.WARNING, warnings)):
            for text in texts:
                if text not in told:
                    _log.log(level, "%s", text)

    def _remarks(self, loaded: LoadedConfig) -> tuple[list[str], list[str]]:
        """The notes and the warnings about a configuration."""
        return (
            [*loaded.notes, *missing_backends(self.registry, loaded)],
            [
                *loaded.warnings,
                *missing_plugins(self.registry, loaded),
                *misspelt_blocks(self.registry, loaded),
                *missing_tools(loaded, self.host.tools),
            ],
        )

    def request_reload(self) -> None:
        """Read the configuration again as soon as possible."""
        self._reloader.request()

    def request_stop(self) -> None:
        """Make the gateway not ready, and wake :meth:`wait_stop_requested`."""
        self._stop_requested.set()

    async def wait_stop_requested(self) -> None:
        await self._stop_requested.wait()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Gateway]:
        """Run the gateway. The context is entered when the admin port is open; plugins may still
        be starting (:meth:`wait_started`).

        On a normal exit, what is under way is drained first, for ``gateway.drainSeconds`` at most.
        Raises :exc:`VoicecallError` if it cannot start, and ``RuntimeError`` the second time.
        """
        if self._rpc is not None:
            raise RuntimeError("a gateway runs once: make another one")
        section = self.loaded.gateway
        private_directory(self.loaded.state_dir)
        listener = await bind_port(section.bind, section.port)
        failure: Exception | None = None
        with listener:
            self.port = listener.getsockname()[1]
            self.token = gateway_token(section, self.host.environ, self.loaded.state_dir, self.seam)
            throttle = Throttle(self.seam)
            async with anyio.create_task_group() as tasks:
                rpc = RpcServer(
                    self.host,
                    tasks,
                    token=self.token,
                    throttle=throttle,
                    version=self.version,
                    absent=self._absent,
                )
                self._rpc = rpc
                self.host.register_rpc(RpcMethod("gateway.status", READ, self._status))
                tools = ToolEndpoint(
                    self.host,
                    token=self.token,
                    throttle=throttle,
                    bind=section.bind,
                    denied=lambda name: name in self.loaded.gateway.tools.deny,
                )
                self.host.register_rpc(RpcMethod("gateway.reload", ADMIN, self._reloader.rpc))
                app = make_app(rpc, tools, self._readiness, bind=section.bind, version=self.version)
                server = AdminServer(app)
                tasks.start_soon(server.run_on, listener, name="admin port")
                tasks.start_soon(rpc.tick, name="tick")
                tasks.start_soon(self._descriptors.watch, name="descriptors")
                tasks.start_soon(self._start_plugins, tasks, name="plugins")
                try:
                    yield self
                except Exception as error:  # noqa: BLE001 (raised again outside of the group)
                    failure = error
                await self._stop(rpc, tools, drain=failure is None)
                with anyio.move_on_after(FLUSH_SECONDS):
                    await rpc.close()
                await server.stop()
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    # --- start ------------------------------------------------------------------------------

    async def _start_plugins(self, tasks: TaskGroup) -> None:
        self.remark(self.loaded)
        try:
            with anyio.CancelScope() as self._start_scope:
                if not self.stopping:
                    await self._plugins.start(self.loaded, tasks)
        finally:
            self._started.set()
        # The tools are not known earlier.
        for text in missing_tools(self.loaded, self.host.tools):
            _log.warning("%s", text)
        if not self.stopping:
            _log.info("the gateway is %s", "not ready" if self.problems() else "ready")
            await self._reloader.watch(tasks)

    # --- stop -------------------------------------------------------------------------------

    async def _stop(self, rpc: RpcServer, tools: ToolEndpoint, *, drain: bool) -> None:
        self.request_stop()
        rpc.announce_shutdown("the gateway is stopping")
        await self._reloader.close()
        tools.closing = True
        if drain:
            with anyio.move_on_after(self.loaded.gateway.drain_seconds) as patience:
                async with anyio.create_task_group() as draining:
                    draining.start_soon(self._plugins.drain)
                    draining.start_soon(rpc.wait_idle)
                    draining.start_soon(tools.wait_idle)
            # With drainSeconds 0 the drain is cut short even if there is nothing to wait for.
            if patience.cancelled_caught and (left := self._under_way(rpc, tools)):
                _log.warning("stopping with work still under way: %s", ", ".join(left))
        if self._start_scope is not None:
            self._start_scope.cancel()
        await self._started.wait()
        await self._plugins.stop()

    def _under_way(self, rpc: RpcServer, tools: ToolEndpoint) -> list[str]:
        left = self._plugins.undrained()
        for count, what in ((rpc.in_flight, "RPC requests"), (tools.in_flight, "tools")):
            if count:
                left.append(f"{what} ({count})")
        return left

    # --- RPC --------------------------------------------------------------------------------

    async def _status(self, params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        """``gateway.status``."""
        refuse_unknown(params, ())
        reasons = list(self.problems())
        return {
            "ready": not reasons,
            "reasons": reasons,
            "version": self.version,
            "url": self.url,
            "uptimeMs": round((self.seam.monotonic() - self._started_at) * 1000),
            "stateDir": str(self.loaded.state_dir),
            "connections": self._rpc.connections if self._rpc is not None else 0,
            "plugins": [running.state() for running in self._plugins.running.values()],
            "waiting": list(self._reloader.unused()),
        }


async def _settle(gateway: Gateway) -> None:
    """Once the gateway has started, collect garbage when no call has to wait long for it."""
    await gateway.wait_started()
    collect_rarely()
    await collect_garbage(gateway.idle)


async def serve(
    gateway: Gateway,
    *,
    announce: Callable[[Gateway], None] | None = None,
    limit: Callable[[float], None] = lambda _: None,
) -> bool:
    """Run until SIGTERM or SIGINT, then drain and stop. A second signal stops at once. SIGHUP
    reads the configuration again; with a terminal it means that the terminal is gone, and stops.

    ``announce(gateway)`` is called when the admin port is open, ``limit(seconds)`` on each of the
    two signals with the time that the stop may take from there. Returns whether the stop was
    orderly. Raises what :meth:`Gateway.run` raises.
    """
    orderly = False
    failure: Exception | None = None
    at_terminal = os.isatty(0)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                async for number in signals:
                    name = signal.Signals(number).name
                    if number == signal.SIGHUP and not at_terminal:
                        gateway.request_reload()
                        continue
                    if gateway.stopping:
                        _log.warning("%s again: stopping at once", name)
                        limit(AT_ONCE_SECONDS)
                        tasks.cancel_scope.cancel()
                        return
                    _log.info("%s: draining, then stopping", name)
                    limit(gateway.loaded.gateway.drain_seconds + CLOSING_SECONDS)
                    gateway.request_stop()

            tasks.start_soon(watch, name="signals")
            try:
                async with gateway.run():
                    if announce is not None:
                        announce(gateway)
                    tasks.start_soon(_settle, gateway, name="settling")
                    await gateway.wait_stop_requested()
                orderly = True
            except Exception as error:  # noqa: BLE001 (raised again outside of the group)
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return orderly
