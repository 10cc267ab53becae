"""Applying a changed configuration while the gateway runs.

An unusable configuration changes nothing: the last good one stays. A usable one is applied plugin
by plugin: services that support it are reconfigured, other plugins are restarted when nothing is
under way. Until then the change waits, and the plugin keeps its old configuration. A plugin with a
failed service is restarted even if nothing has changed.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from voicecall.errors import ConfigError, PluginError, VoicecallError
from voicecall.hosting import Reconfigurable, RpcCall

from .aside import aside
from .config import OPEN_SECTIONS, LoadedConfig
from .jsonfile import file_version
from .parameters import refuse_unknown
from .pluginconfig import plugin_config, plugin_values
from .plugins import LoadedPlugin
from .pluginset import PluginSet, RunningPlugin, prepare

if TYPE_CHECKING:
    from .runtime import Gateway

__all__ = ["POLL_SECONDS", "Reloader"]

POLL_SECONDS = 1.0
AT_START = ("port", "bind", "auth")
"""Keys of ``gateway`` that are read only at the start."""

_log = logging.getLogger("voicecall.gateway.reload")


class _Refused(Exception):
    """A plugin does not accept a changed configuration; the message is a sentence."""


class _Question:
    """A request that waits for the outcome of a reload."""

    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.applied: list[str] = []
        self.error: VoicecallError | None = None

    def answer(self, applied: Sequence[str], error: VoicecallError | None) -> None:
        self.applied, self.error = list(applied), error
        self.answered.set()


class Reloader:
    """``load`` reads the configuration again; ``file`` is watched for changes."""

    def __init__(
        self,
        gateway: Gateway,
        plugins: PluginSet,
        load: Callable[[], LoadedConfig] | None,
        file: Path | None,
    ) -> None:
        self._gateway = gateway
        self._plugins = plugins
        self._load = load
        self._file = file
        # It may have changed since it was read.
        self._seen = gateway.loaded.version if file is not None else None
        self._existed = self._seen is not None
        self._wanted = anyio.Event()
        self._closed = False
        self._scope: anyio.CancelScope | None = None
        self._watching: anyio.Event | None = None
        self._questions: list[_Question] = []
        """For the next read of the file."""
        self._asked: list[_Question] = []
        """For the one that is under way."""
        self._pending: dict[str, LoadedPlugin] = {}
        self._reasons: dict[str, str] = {}
        self._refused: set[str] = set()
        self._unusable: str | None = None
        self._started_with = gateway.loaded

    def waiting(self) -> Sequence[str]:
        """One sentence for each change that is not in force yet."""
        return [self._gateway.host.hide(reason) for reason in self._reasons.values()]

    def unused(self) -> Sequence[str]:
        """:meth:`waiting`, and why the current file is not used, if so."""
        return [*self.waiting(), *([self._unusable] if self._unusable is not None else [])]

    def request(self) -> None:
        """Read the configuration again soon. May be called from a signal handler."""
        self._wanted.set()

    async def rpc(self, params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        """``gateway.reload``: ``{applied: [plugin ids], waiting: [sentences]}``, with ``refused:
        [plugin ids]`` if plugins do not accept the change. Raises the error that makes the
        configuration unusable."""
        refuse_unknown(params, ())
        if self._closed:
            raise _stopping()
        if self._load is None:
            raise VoicecallError("this gateway has no configuration to read again")
        # The watching task does the work, because it ends before the services do.
        question = _Question()
        self._questions.append(question)
        self.request()
        await question.answered.wait()
        if question.error is not None:
            raise question.error
        answer = {"applied": question.applied, "waiting": list(self.waiting())}
        return answer | ({"refused": sorted(self._refused)} if self._refused else {})

    async def watch(self, tasks: TaskGroup) -> None:
        """Watch for changes until :meth:`close`. Services run in ``tasks``."""
        if self._load is None:
            return
        self._watching = anyio.Event()
        try:
            with anyio.CancelScope() as self._scope:
                while not self._closed:
                    with anyio.move_on_after(POLL_SECONDS):
                        await self._wanted.wait()
                    await self._look(self._load, tasks)
        finally:
            self._watching.set()

    async def close(self) -> None:
        """Stop: no change is applied after this."""
        self._closed = True
        if self._scope is not None and self._watching is not None:
            self._scope.cancel()
            await self._watching.wait()
        self._asked += self._questions
        self._answer((), _stopping())

    def _answer(self, applied: Sequence[str], error: VoicecallError | None) -> None:
        asked, self._asked = self._asked, []
        for question in asked:
            question.answer(applied, error)

    async def _look(self, load: Callable[[], LoadedConfig], tasks: TaskGroup) -> None:
        seen = file_version(self._file) if self._file is not None else None
        if not self._wanted.is_set() and seen == self._seen:
            if self._pending:
                await self._apply_all(self._pending, tasks)
            return
        self._wanted = anyio.Event()
        self._seen = seen
        self._existed |= seen is not None
        self._asked, self._questions = self._questions, []
        try:
            applied = await self.reload(load, tasks)
        except VoicecallError as error:
            self._unusable = f"the changed configuration is not used: {error}"
            _log.error("%s", self._unusable)
            self._answer((), error)
        except Exception as error:  # noqa: BLE001 (a stranger's model)
            _log.exception("the changed configuration cannot be read")
            told = VoicecallError(f"internal error ({type(error).__name__}), see the log")
            self._unusable = f"the changed configuration is not used: {told}"
            self._answer((), told)
        else:
            self._unusable = None
            self._answer(applied, None)

    async def reload(self, load: Callable[[], LoadedConfig], tasks: TaskGroup) -> list[str]:
        """Read, check and apply; returns the ids of the plugins for which the new configuration is
        in force. If it raises :exc:`VoicecallError`, nothing has changed."""
        _check_readable(self._file, self._existed)
        # In a thread, because a program that supplies a secret, or a network file, may hang.
        loaded, plugins = await aside(partial(self._read, load), "configuration")
        self._gateway.remark(loaded, before=self._gateway.loaded)
        self._gateway.use(loaded)
        self._reasons = self._at_start(loaded)
        self._refused.clear()
        for text in self._reasons.values():
            _log.warning("%s", text)
        changed = {plugin.id: plugin for plugin in plugins if self._differs(plugin, loaded)}
        return await self._apply_all(changed, tasks)

    def _read(
        self, load: Callable[[], LoadedConfig]
    ) -> tuple[LoadedConfig, Sequence[LoadedPlugin]]:
        """The configuration and its plugins. Runs in a thread; raises if it cannot be used."""
        loaded = load()
        registry = self._gateway.registry
        plugins = prepare(registry, loaded)
        for plugin in plugins:
            before = self._plugins.running.get(plugin.id)
            try:
                if plugin.info is not None:
                    plugin_config(registry, loaded, plugin.id)
            except (ConfigError, PluginError):
                # A plugin whose configuration was wrong before and has not changed must not keep
                # the others from changing.
                if before is None or before.problem is None or self._differs(plugin, loaded):
                    raise
        return loaded, plugins

    def _at_start(self, loaded: LoadedConfig) -> dict[str, str]:
        old, new = self._started_with.gateway, loaded.gateway
        return {
            f"gateway.{key}": f"gateway.{key} has changed: restart the gateway"
            for key in AT_START
            if getattr(old, key) != getattr(new, key)
        }

    def _differs(self, plugin: LoadedPlugin, loaded: LoadedConfig) -> bool:
        running = self._plugins.running.get(plugin.id)
        if running is None or running.plugin.enabled != plugin.enabled:
            return True
        if plugin.info is None or running.plugin.info is None:
            return False
        if any(runner.problem is not None for runner in running.runners):
            return True
        old = running.host.loaded
        registry = self._gateway.registry
        if any(old.section(name) != loaded.section(name) for name in OPEN_SECTIONS):
            return True
        before, after = (plugin_values(registry, one, plugin.info).values for one in (old, loaded))
        return before != after

    # --- applying ---------------------------------------------------------------------------

    async def _apply_all(self, changed: Mapping[str, LoadedPlugin], tasks: TaskGroup) -> list[str]:
        self._pending = {}
        applied = []
        for plugin_id, plugin in changed.items():
            self._refused.discard(plugin_id)
            try:
                reason = await self._apply(plugin, tasks)
            except _Refused as error:
                reason = str(error)
                self._refused.add(plugin_id)
            if reason is None:
                self._reasons.pop(plugin_id, None)
                applied.append(plugin_id)
                _log.info("the configuration of %s is in force", plugin_id)
            elif self._reasons.get(plugin_id) != reason:
                self._reasons[plugin_id] = reason
                _log.warning("%s", reason)
        return applied

    async def _apply(self, plugin: LoadedPlugin, tasks: TaskGroup) -> str | None:
        """Why the change is not in force yet; None if it is. Raises :exc:`_Refused`."""
        loaded = self._gateway.loaded
        running = self._plugins.running.get(plugin.id)
        if running is not None and plugin.enabled and running.plugin.enabled:
            try:
                if await self._reconfigured(running, loaded):
                    return None
            except VoicecallError as error:
                text = f"the changed configuration of {plugin.id} is not used: {error}"
                raise _Refused(text) from None
            except (Exception, SystemExit) as error:  # noqa: BLE001 (a stranger's service)
                _log.exception("%s failed to apply its changed configuration", plugin.id)
                raise _Refused(
                    f"the changed configuration of {plugin.id} is not used:"
                    f" internal error ({type(error).__name__}), see the log"
                ) from None
        reason = self._busy(running) if running is not None else None
        if reason is not None:
            self._pending[plugin.id] = plugin
            return reason
        await self._plugins.restart(plugin, loaded, tasks, loaded.gateway.drain_seconds)
        return None

    async def _reconfigured(self, running: RunningPlugin, loaded: LoadedConfig) -> bool:
        """Whether all services have accepted the change; otherwise the plugin keeps its old
        configuration."""
        services = [
            runner.service
            for runner in running.runners
            if runner.running and isinstance(runner.service, Reconfigurable)
        ]
        if not services or len(services) < len(running.runners) or running.problem is not None:
            return False
        before = running.host.loaded
        running.host.loaded = loaded
        config = running.host.plugin_config(running.plugin.id)
        taken = False
        try:
            for service in services:
                taken = await service.reconfigure(config)
                if not taken:
                    break
        finally:
            if not taken:
                running.host.loaded = before
        return taken

    def _busy(self, running: RunningPlugin) -> str | None:
        """Why a plugin cannot be restarted now; None if it can."""
        under_way = [runner.live() for runner in running.runners]
        plugin_id = running.plugin.id
        if None in under_way:
            return f"the changed configuration of {plugin_id} waits for a restart of the gateway"
        if any(under_way):
            return (
                f"the changed configuration of {plugin_id} waits until nothing is under way there"
            )
        return None


def _stopping() -> VoicecallError:
    return VoicecallError("the gateway is stopping")


def _check_readable(file: Path | None, existed: bool) -> None:
    """Raise :exc:`ConfigError` for a file that has disappeared (a missing default file would count
    as an empty configuration), and for one that cannot be read twice (a pipe would block)."""
    try:
        regular = file is None or stat.S_ISREG(file.stat().st_mode)
    except OSError as error:
        if existed:
            raise ConfigError(
                f"{file}: is gone ({error.strerror}); put it back, or restart the gateway"
            ) from None
        # Reading it raises the error.
        return
    if not regular:
        raise ConfigError(
            f"{file}: is not a regular file, so it is read only at the start; restart the gateway"
        )
