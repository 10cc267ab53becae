"""A typed facade over pluggy: the only place that calls hooks."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from . import hookspecs
from .providers import ProviderInfo, ProviderKind

if TYPE_CHECKING:
    from .events import CallEvent
    from .hosting import GatewayHost, PluginInfo, Service, SetupCheck, SetupContext, SetupProbe
    from .model import CallRecord

__all__ = ["HOOK_OF_KIND", "Hooks"]

HOOK_OF_KIND: dict[ProviderKind, str] = {
    ProviderKind.TELEPHONY: "voicecall_telephony_providers",
    ProviderKind.TRANSCRIPTION: "voicecall_transcription_providers",
    ProviderKind.TTS: "voicecall_tts_providers",
    ProviderKind.REALTIME: "voicecall_realtime_providers",
    ProviderKind.TURN: "voicecall_turn_detectors",
    ProviderKind.AGENT: "voicecall_agent_backends",
    ProviderKind.TUNNEL: "voicecall_tunnels",
    ProviderKind.STORE: "voicecall_stores",
    ProviderKind.COORDINATOR: "voicecall_coordinators",
}

_log = logging.getLogger("voicecall.plugins")
_SLOW_S = 0.1
"""An observer that takes longer causes an audible gap on all calls."""
_TOLD_EVERY_S = 60.0


class Hooks:
    """Registers plugin modules and calls their hooks. ``monotonic``: a clock, in seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._told_at: dict[tuple[str, str], float] = {}
        """When the log last said that a hook of a plugin is slow."""
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    def register(self, plugin: object, name: str) -> None:
        """Register a plugin module; repeating this has no effect. Raises
        ``pluggy.PluginValidationError`` for wrong hooks."""
        if self._manager.is_registered(plugin):
            return
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
            self._check_plain(plugin)
        except pluggy.PluginValidationError:
            # If it stayed registered, the check of every later plugin would fail.
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise

    def _check_plain(self, plugin: object) -> None:
        """Raise ``PluginValidationError`` for hooks that would have no effect."""
        callers = self._manager.get_hookcallers(plugin) or []
        for name in vars(self._manager.hook).keys() - {caller.name for caller in callers}:
            if name.startswith("voicecall_") and callable(getattr(plugin, name, None)):
                raise pluggy.PluginValidationError(
                    plugin, f"{name} is not marked with @voicecall.hookimpl"
                )
        for caller in callers:
            for impl in caller.get_hookimpls():
                if impl.plugin is not plugin:
                    continue
                call = impl.function
                if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
                    raise pluggy.PluginValidationError(
                        plugin, f"{caller.name} is async, but hooks are not awaited"
                    )
                if impl.wrapper or impl.hookwrapper:
                    raise pluggy.PluginValidationError(
                        plugin, f"{caller.name} is a wrapper, but hooks cannot be wrappers"
                    )

    def _of(self, hook: str, plugin: object, **arguments: Any) -> list[Any]:
        """Results of one hook from one plugin."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return [
            impl.function(*(arguments[name] for name in impl.argnames))
            for impl in caller.get_hookimpls()
            if impl.plugin is plugin
        ]

    def _listed(
        self, what: str, kind: type, hook: str, plugin: object, **arguments: Any
    ) -> list[Any]:
        """The items that one hook of one plugin returns. Raises ``TypeError``, with ``what`` as the
        name of ``kind``, for anything but sequences of ``kind``."""
        listed: list[Any] = []
        for result in self._of(hook, plugin, **arguments):
            found = list(result) if isinstance(result, Iterable) else None
            if found is None or not all(isinstance(one, kind) for one in found):
                raise TypeError(f"{hook} returns {type(result).__name__}, not a sequence of {what}")
            listed += found
        return listed

    def provider_infos(self, kind: ProviderKind, plugin: object) -> Sequence[ProviderInfo]:
        """The providers of one kind that one plugin offers. Raises what its hook raises, and
        ``TypeError`` if the hook returns anything but a sequence of :class:`ProviderInfo`."""
        return self._listed("ProviderInfo", ProviderInfo, HOOK_OF_KIND[kind], plugin)

    def plugin_info(self, plugin: object) -> PluginInfo | None:
        """A plugin's description of itself; None if it has none. Raises what its hook raises, and
        ``TypeError`` if the hook returns anything but a :class:`PluginInfo`."""
        from .hosting import PluginInfo

        info = next(iter(self._of("voicecall_plugin_info", plugin)), None)
        if info is None or isinstance(info, PluginInfo):
            return info
        raise TypeError(f"voicecall_plugin_info returns {type(info).__name__}, not a PluginInfo")

    def services(self, plugin: object, host: GatewayHost) -> Sequence[Service]:
        """The services of a plugin. Raises what its hook raises, and ``TypeError`` if the hook does
        not return a sequence."""
        return self._listed("Service", object, "voicecall_services", plugin, host=host)

    def setup_checks(self, plugin: object, context: SetupContext) -> Sequence[SetupCheck]:
        """The results of a plugin's setup checks. Raises what its hook raises, and ``TypeError`` if
        the hook returns anything but a sequence of :class:`SetupCheck`."""
        from .hosting import SetupCheck

        hook = "voicecall_setup_checks"
        return self._listed("SetupCheck", SetupCheck, hook, plugin, context=context)

    def setup_probes(self, plugin: object, context: SetupContext) -> Sequence[SetupProbe]:
        """The setup probes of a plugin. Raises what its hook raises, and ``TypeError`` if the hook
        does not return a sequence."""
        return self._listed("SetupProbe", object, "voicecall_setup_probes", plugin, context=context)

    def commands(self, plugin: object, app: Any) -> None:
        self._of("voicecall_commands", plugin, app=app)

    def call_event(
        self, record: CallRecord, event: CallEvent, silent: Collection[object] = ()
    ) -> None:
        """Call the observers of events, except those of the plugins in ``silent``."""
        self._observe("voicecall_call_event", silent, record=record, event=event)

    def call_ended(self, record: CallRecord, silent: Collection[object] = ()) -> None:
        """Call the observers of ended calls, except those of the plugins in ``silent``."""
        self._observe("voicecall_call_ended", silent, record=record)

    def _observe(self, hook: str, silent: Collection[object], **arguments: Any) -> None:
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        for impl in caller.get_hookimpls():
            if any(impl.plugin is one for one in silent):
                continue
            began = self._monotonic()
            try:
                impl.function(*(arguments[name] for name in impl.argnames))
            except (Exception, SystemExit):  # noqa: BLE001 (a stranger's observer)
                # An observer must not disturb the call it observes.
                _log.exception("plugin %s failed in %s", impl.plugin_name, hook)
            if self._monotonic() - began > _SLOW_S:
                self._tell_slow(impl.plugin_name, hook, began)

    def _tell_slow(self, plugin: str, hook: str, began: float) -> None:
        now = self._monotonic()
        if now - self._told_at.get((plugin, hook), -_TOLD_EVERY_S) < _TOLD_EVERY_S:
            return
        self._told_at[plugin, hook] = now
        text = "plugin %s blocked all calls for %.1f s in %s; hooks must not block"
        _log.warning(text, plugin, now - began, hook)
