"""One plugin's view of the gateway (:class:`voicecall.hosting.GatewayHost`): its own state of the
configuration, and a list of what it registered, so that it can be stopped and started anew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voicecall.hosting import EventPayload, RpcMethod, ToolSpec
from voicecall.providers import ProviderContext
from voicecall.registry import Registry
from voicecall.seam import Seam

from .host import Host, Listener
from .pluginconfig import plugin_config

if TYPE_CHECKING:
    from voicecall.events import CallEvent
    from voicecall.model import CallRecord

    from .config import LoadedConfig

__all__ = ["PluginHost"]


class PluginHost:
    """``loaded`` is the configuration that is in force for this plugin."""

    def __init__(self, host: Host, loaded: LoadedConfig) -> None:
        self.state_dir: Path = host.state_dir
        self.seam: Seam = host.seam
        self.registry: Registry = host.registry
        self.environ: Mapping[str, str] = host.environ
        self.loaded = loaded
        self._host = host
        self._methods: list[str] = []
        self._tools: list[str] = []
        self._undo: list[Callable[[], None]] = []

    def plugin_config(self, plugin_id: str) -> Any:
        """Raises :exc:`voicecall.errors.ConfigError` and
        :exc:`voicecall.errors.PluginError`."""
        return plugin_config(self.registry, self.loaded, plugin_id)

    def section(self, name: str) -> Mapping[str, Any]:
        return self.loaded.section(name)

    def register_rpc(self, method: RpcMethod) -> None:
        self._host.register_rpc(method)
        self._methods.append(method.name)

    def register_tool(self, tool: ToolSpec) -> None:
        self._host.register_tool(tool)
        self._tools.append(tool.name)

    def find_tool(self, name: str) -> ToolSpec | None:
        return self._host.find_tool(name)

    def publish(self, event: str, payload: EventPayload) -> None:
        self._host.publish(event, payload)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        undo = self._host.subscribe(listener)
        self._undo.append(undo)
        return undo

    def observe_event(self, record: CallRecord, event: CallEvent) -> None:
        self._host.observe_event(record, event)

    def observe_end(self, record: CallRecord) -> None:
        self._host.observe_end(record)

    def hide(self, text: str) -> str:
        """The plugin may still use the configuration before the last."""
        return self._host.hide(self.loaded.secrets.hide(text))

    def logger(self, name: str) -> logging.Logger:
        return self._host.logger(name)

    def provider_context(self, path: str) -> ProviderContext:
        return self._host.provider_context(path)

    def withdraw(self) -> None:
        """Take back everything that was registered through this host."""
        self._host.withdraw(self._methods, self._tools)
        for undo in self._undo:
            undo()
        self._methods, self._tools, self._undo = [], [], []
