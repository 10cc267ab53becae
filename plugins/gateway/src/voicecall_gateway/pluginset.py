"""The plugins of a running gateway and their services: start, restart, stop."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from voicecall.errors import VoicecallError
from voicecall.registry import Registry

from .aside import aside
from .host import Host
from .pluginconfig import plugin_config, value_warnings
from .pluginhost import PluginHost
from .plugins import LoadedPlugin, load_plugins
from .services import ServiceRunner

if TYPE_CHECKING:
    from .config import LoadedConfig

__all__ = ["PluginSet", "RunningPlugin", "prepare"]

_log = logging.getLogger("voicecall.gateway")


def prepare(registry: Registry, loaded: LoadedConfig) -> Sequence[LoadedPlugin]:
    """Load the enabled plugins and all parts of the configuration that they may ask for. Takes long
    and follows references to secrets, so call it in a thread."""
    plugins = load_plugins(registry, loaded)
    if any(plugin.info for plugin in plugins):
        for text in value_warnings(registry, loaded, plugins):
            _log.warning("%s", text)
    return plugins


class RunningPlugin:
    """One plugin: ``plugin`` is the result of loading it, ``host`` its view of the gateway,
    ``problem`` why its services could not be created."""

    def __init__(self, plugin: LoadedPlugin, host: Host, loaded: LoadedConfig) -> None:
        self.plugin = plugin
        self.host = PluginHost(host, loaded)
        self.runners: list[ServiceRunner] = []
        self.problem: str | None = None

    def make_services(self) -> None:
        """Get the plugin's services. A failure is recorded as ``problem``."""
        plugin = self.plugin
        if plugin.error is not None:
            self._fails(plugin.error)
        elif plugin.enabled:
            try:
                plugin_config(self.host.registry, self.host.loaded, plugin.id)
                services = self.host.registry.hooks.services(plugin.module, self.host)
                self.runners = [ServiceRunner(plugin.id, service) for service in services]
            except VoicecallError as error:
                self._fails(str(error))
            except (Exception, SystemExit) as error:  # noqa: BLE001 (a stranger's hook)
                _log.exception("the plugin %s failed at start", plugin.id)
                self._fails(f"the plugin {plugin.id!r} failed: {type(error).__name__}: {error}")

    def _fails(self, reason: str) -> None:
        # What it registered before it failed may depend on what it did not create.
        self.host.withdraw()
        self.problem = reason
        _log.error("%s", reason)

    async def launch(self, tasks: TaskGroup) -> None:
        """Start the services, one after the other."""
        for runner in self.runners:
            runner.launch(tasks)
            await runner.settled.wait()

    async def drain(self) -> None:
        async with anyio.create_task_group() as draining:
            for runner in self.runners:
                draining.start_soon(runner.drain)

    async def stop(self) -> None:
        """Stop the services, last one first, then remove what the plugin registered."""
        for runner in reversed(self.runners):
            await runner.stop()
        self.host.withdraw()

    def problems(self) -> list[str]:
        found = [self.problem] if self.problem is not None else []
        return found + [text for runner in self.runners for text in runner.problems()]

    def state(self) -> Mapping[str, Any]:
        """For ``gateway.status``."""
        state: dict[str, Any] = {"id": self.plugin.id, "enabled": self.plugin.enabled}
        if self.problem is not None:
            state["error"] = self.host.hide(self.problem)
        state["services"] = [{"name": r.name, "running": r.running} for r in self.runners]
        return state


class PluginSet:
    """All plugins, in the order in which they were found."""

    def __init__(self, registry: Registry, host: Host) -> None:
        self.running: dict[str, RunningPlugin] = {}
        self._registry = registry
        self._host = host

    async def start(self, loaded: LoadedConfig, tasks: TaskGroup) -> None:
        """Load and start all plugins concurrently. Services run in ``tasks``."""
        # In a thread: imports take long and secrets may hang, but /healthz must answer meanwhile.
        plugins = await aside(partial(prepare, self._registry, loaded), "plugins")
        for plugin in plugins:
            self._take(plugin, loaded)
        async with anyio.create_task_group() as starting:
            for running in self.running.values():
                starting.start_soon(running.launch, tasks)

    async def restart(
        self, plugin: LoadedPlugin, loaded: LoadedConfig, tasks: TaskGroup, drain_seconds: float
    ) -> None:
        """Stop a plugin, if it runs, and start it again with ``plugin`` and ``loaded``."""
        before = self.running.get(plugin.id)
        if before is not None:
            with anyio.move_on_after(drain_seconds):
                await before.drain()
            await before.stop()
        await self._take(plugin, loaded).launch(tasks)

    def _take(self, plugin: LoadedPlugin, loaded: LoadedConfig) -> RunningPlugin:
        """Add a plugin, in place of an earlier one, with its services, which are not started."""
        running = RunningPlugin(plugin, self._host, loaded)
        self.running[plugin.id] = running
        if plugin.module is None:
            self._host.off.add(plugin.id)
        else:
            self._host.off.discard(plugin.id)
        running.make_services()
        return running

    def problems(self) -> list[str]:
        return [text for running in self.running.values() for text in running.problems()]

    def off(self) -> list[str]:
        """A sentence about the plugins that are not enabled, if any."""
        names = [plugin_id for plugin_id, one in self.running.items() if not one.plugin.enabled]
        return [f"plugins that are off: {', '.join(names)}"] if names else []

    async def drain(self) -> None:
        async with anyio.create_task_group() as draining:
            for running in self.running.values():
                draining.start_soon(running.drain)

    def live(self) -> int:
        """How much is under way, as far as the services report it."""
        runners = (runner for running in self.running.values() for runner in running.runners)
        return sum(runner.live() or 0 for runner in runners)

    def undrained(self) -> list[str]:
        """The services with work still under way after a drain that was cut short."""
        return [
            f"{runner.name} ({live} live)" if (live := runner.live()) else runner.name
            for running in self.running.values()
            for runner in running.runners
            if not runner.drained
        ]

    async def stop(self) -> None:
        for running in reversed(list(self.running.values())):
            await running.stop()
