"""One plugin's view of the gateway (:class:`voicecall.hosting.GatewayHost`): its configuration, and
a list of what it registered, so that it can be restarted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voicecall.hosting import RpcMethod, ToolSpec
from voicecall.providers import ProviderContext
from voicecall.registry import Registry
from voicecall.seam import Seam

from .host import Host, Listener, provider_context
from .pluginconfig import plugin_config

if TYPE_CHECKING:
    from .config import LoadedConfig

__all__ = ["PluginHost"]


class PluginHost:
    """The host object of one plugin. ``loaded`` is the configuration in force for this plugin."""

    def __init__(self, host: Host, loaded: LoadedConfig) -> None:
        self.state_dir: Path = host.state_dir
        self.seam: Seam = host.seam
        self.registry: Registry = host.registry
        self.environ: Mapping[str, str] = host.environ
        self.loaded = loaded
        self.find_tool = host.find_tool
        self.publish = host.publish
        self.observe_event = host.observe_event
        self.observe_end = host.observe_end
        self._host = host
        self._methods: list[str] = []
        self._tools: list[str] = []
        self._undo: list[Callable[[], None]] = []

    def plugin_config(self, plugin_id: str) -> Any:
        """The validated configuration of a plugin entry, or the plain mapping if the plugin has no
        model. Raises :exc:`voicecall.errors.ConfigError` and, for a plugin that cannot be loaded,
        :exc:`voicecall.errors.PluginError`."""
        return plugin_config(self.registry, self.loaded, plugin_id)

    def section(self, name: str) -> Mapping[str, Any]:
        """A top-level object of the configuration; ``{}`` if it is absent."""
        return self.loaded.section(name)

    def register_rpc(self, method: RpcMethod) -> None:
        self._host.register_rpc(method)
        self._methods.append(method.name)

    def register_tool(self, tool: ToolSpec) -> None:
        self._host.register_tool(tool)
        self._tools.append(tool.name)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        undo = self._host.subscribe(listener)
        self._undo.append(undo)
        return undo

    def hide(self, text: str) -> str:
        """``text`` without any known credential, of the gateway's current configuration or of the
        older one that this plugin may still use."""
        return self._host.hide(self.loaded.secrets.hide(text))

    def logger(self, name: str) -> logging.Logger:
        """A logger below ``voicecall``."""
        if name == "voicecall" or name.startswith("voicecall."):
            return logging.getLogger(name)
        return logging.getLogger(f"voicecall.{name}")

    def provider_context(self, path: str) -> ProviderContext:
        """A context for provider factories; see :func:`.host.provider_context`."""
        return provider_context(
            registry=self.registry,
            environ=self.environ,
            state_dir=self.state_dir,
            seam=self.seam,
            path=path,
        )

    def withdraw(self) -> None:
        """Remove everything that was registered through this host."""
        self._host.withdraw(self._methods, self._tools)
        for undo in self._undo:
            undo()
        self._methods, self._tools, self._undo = [], [], []
