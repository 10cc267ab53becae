"""What all plugins of a gateway share: RPC methods, tools, events and the providers' context."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voicecall.errors import PluginError
from voicecall.hosting import EventPayload, RpcMethod, ToolSpec
from voicecall.providers import ProviderContext, ProviderKind
from voicecall.registry import Registry
from voicecall.seam import Seam
from voicecall.selection import provider_config

from .auth import scope_name
from .plugins import GROUP

if TYPE_CHECKING:
    from voicecall.events import CallEvent
    from voicecall.model import CallRecord

    from .config import LoadedConfig

__all__ = ["Host", "provider_context"]

Listener = Callable[[str, Mapping[str, Any]], None]

_log = logging.getLogger("voicecall.gateway")


def provider_context(
    *,
    registry: Registry,
    environ: Mapping[str, str],
    state_dir: Path,
    seam: Seam,
    path: str,
) -> ProviderContext:
    """The context for provider factories. Its ``create(kind, id, config)`` loads another
    provider and validates ``config``; errors name ``<path>.<id>``. Raises :exc:`PluginError` and
    :exc:`ConfigError`."""

    def create(kind: ProviderKind, provider_id: str, config: Mapping[str, Any]) -> Any:
        info = registry.load(kind, provider_id)
        values = provider_config(info, config, environ, f"{path}.{provider_id}")
        return info.factory(values, context)

    context = ProviderContext(
        state_dir=state_dir,
        seam=seam,
        create=create,
        logger=logging.getLogger("voicecall.providers"),
    )
    return context


class Host:
    """The one host object of a gateway. ``methods`` holds the registered RPC methods by name (their
    scopes written in full), ``tools`` the tools, ``off`` the ids of plugins that are installed but
    not loaded."""

    def __init__(
        self,
        loaded: LoadedConfig,
        registry: Registry,
        seam: Seam,
        environ: Mapping[str, str],
    ) -> None:
        self.state_dir = loaded.state_dir
        self.seam = seam
        self.registry = registry
        self.environ = environ
        self.methods: dict[str, RpcMethod] = {}
        self.tools: dict[str, ToolSpec] = {}
        self.event_names: set[str] = set()
        self.off: set[str] = set()
        self.loaded = loaded
        self._listeners: list[Listener] = []

    def register_rpc(self, method: RpcMethod) -> None:
        """Add a method. Raises :exc:`PluginError` for a taken name or an unknown scope."""
        if method.name in self.methods:
            raise PluginError(f"the RPC method {method.name!r} is registered twice")
        try:
            self.methods[method.name] = replace(method, scope=scope_name(method.scope))
        except ValueError as error:
            raise PluginError(f"the RPC method {method.name!r}: {error}") from None

    def register_tool(self, tool: ToolSpec) -> None:
        """Add a tool. Raises :exc:`PluginError` for a taken name."""
        if tool.name in self.tools:
            raise PluginError(f"the tool {tool.name!r} is registered twice")
        self.tools[tool.name] = tool

    def find_tool(self, name: str) -> ToolSpec | None:
        """A tool of any running plugin; None if there is none."""
        return self.tools.get(name)

    def withdraw(self, methods: Iterable[str], tools: Iterable[str]) -> None:
        """Remove the methods and tools of a plugin that has stopped."""
        for name in methods:
            self.methods.pop(name, None)
        for name in tools:
            self.tools.pop(name, None)

    def publish(self, event: str, payload: EventPayload) -> None:
        """Call every listener. Never blocks; a listener's error is logged."""
        self.event_names.add(event)
        if not self._listeners:
            return
        if callable(payload):
            payload = payload()
        for listener in tuple(self._listeners):
            try:
                listener(event, payload)
            except Exception:  # noqa: BLE001 (a stranger's listener)
                # A listener must not disturb the publisher.
                _log.exception("a listener failed on the event %s", event)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` for every published event. Returns a function that ends the
        subscription and may be called repeatedly. Raises :exc:`PluginError` for an async
        listener."""
        if inspect.iscoroutinefunction(listener):
            raise PluginError("a listener of events is async, and listeners are not awaited")
        self._listeners.append(listener)

        def undo() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return undo

    def observe_event(self, record: CallRecord, event: CallEvent) -> None:
        self.registry.hooks.call_event(record, event, self._silent())

    def observe_end(self, record: CallRecord) -> None:
        self.registry.hooks.call_ended(record, self._silent())

    def _silent(self) -> Sequence[object]:
        """Plugins that are off but were imported, for their commands."""
        if not self.off:
            return ()
        found = (self.registry.imported(GROUP, plugin_id) for plugin_id in self.off)
        return [plugin for plugin in found if plugin is not None]

    def hide(self, text: str) -> str:
        """``text`` without any credential known by now."""
        return self.loaded.secrets.hide(text)
