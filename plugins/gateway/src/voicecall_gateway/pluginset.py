"""The plugins of a running gateway with their services: start, change, stop."""

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
    """Load the enabled plugins, and everything of the configuration that they may ask for. Takes
    long and follows references to secrets: for a thread."""
    plugins = load_plugins(registry, loaded)
    if any(plugin.info for plugin in plugins):
        for text in value_warnings(registry, loaded, plugins):
            _log.warning("%s", text)
    return plugins


class RunningPlugin:
    """One plugin: ``plugin`` as it was loaded, ``host`` what it was given, ``problem`` why it has
    no services where it should."""

    def __init__(self, plugin: LoadedPlugin, host: Host, loaded: LoadedConfig) -> None:
        self.plugin = plugin
        self.host = PluginHost(host, loaded)
        self.runners: list[ServiceRunner] = []
        self.problem: str | None = None

    def make_services(self) -> None:
        """Ask the plugin for its services."""
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
        # What it registered before it failed may need what it has not made.
        self.host.withdraw()
        self.problem = reason
        _log.error("%s", reason)

    async def launch(self, tasks: TaskGroup) -> None:
        """The services, one after the other."""
        for runner in self.runners:
            runner.launch(tasks)
            await runner.settled.wait()

    async def drain(self) -> None:
        async with anyio.create_task_group() as draining:
            for runner in self.runners:
                draining.start_soon(runner.drain)

    async def stop(self) -> None:
        """The services, last one first; what the plugin registered is gone after that."""
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
        """Load and start; plugins do not wait for each other. Services run in ``tasks``."""
        # Importing plugins takes long; meanwhile /healthz must answer. Their secrets may hang.
        plugins = await aside(partial(prepare, self._registry, loaded), "plugins")
        for plugin in plugins:
            self._take(plugin, loaded)
        async with anyio.create_task_group() as starting:
            for running in self.running.values():
                starting.start_soon(running.launch, tasks)

    async def restart(
        self, plugin: LoadedPlugin, loaded: LoadedConfig, tasks: TaskGroup, drain_seconds: float
    ) -> None:
        """Stop what runs of a plugin and start it as ``plugin`` and ``loaded`` say."""
        before = self.running.get(plugin.id)
        if before is not None:
            with anyio.move_on_after(drain_seconds):
                await before.drain()
            await before.stop()
        await self._take(plugin, loaded).launch(tasks)

    def _take(self, plugin: LoadedPlugin, loaded: LoadedConfig) -> RunningPlugin:
        """A plugin with its services, which are not started yet."""
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
        """A sentence about the plugins that the configuration does not enable."""
        names = [plugin_id for plugin_id, one in self.running.items() if not one.plugin.enabled]
        return [f"plugins that are off: {', '.join(names)}"] if names else []

    async def drain(self) -> None:
        async with anyio.create_task_group() as draining:
            for running in self.running.values():
                draining.start_soon(running.drain)

    def live(self) -> int:
        """How much is under way, as far as services tell."""
        runners = (runner for running in self.running.values() for runner in running.runners)
        return sum(runner.live() or 0 for runner in runners)

    def undrained(self) -> list[str]:
        """After a drain that was cut short: what is still under way, a few words each."""
        return [
            f"{runner.name} ({live} live)" if (live := runner.live()) else runner.name
            for running in self.running.values()
            for runner in running.runners
            if not runner.drained
        ]

    async def stop(self) -> None:
        for running in reversed(list(self.running.values())):
            await running.stop()
