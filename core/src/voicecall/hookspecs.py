"""The hooks of voicecall, one sentence each. Hooks are synchronous; none runs per call action,
per webhook or per audio frame, except the two observers, which run after the fact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from .events import CallEvent
    from .hosting import GatewayHost, PluginInfo, Service, SetupCheck, SetupContext, SetupProbe
    from .model import CallRecord
    from .providers import ProviderInfo

__all__ = ["PROJECT", "hookimpl", "hookspec"]

PROJECT = "voicecall"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def voicecall_telephony_providers() -> Sequence[ProviderInfo]:  # type: ignore[empty-body]
    """Carriers."""


@hookspec
def voicecall_transcription_providers() -> Sequence[ProviderInfo]:  # type: ignore[empty-body]
    """Speech recognition."""


@hookspec
def voicecall_tts_providers() -> Sequence[ProviderInfo]:  # type: ignore[empty-body]
    """Speech synthesis."""


@hookspec
def voicecall_realtime_providers() -> Sequence[ProviderInfo]:  # type: ignore[empty-body]
    """Full-duplex voice models."""


@hookspec
def voicecall_turn_detectors() -> Sequence[ProviderInfo]:  # type: ignore[empty-body]
    """Voice activity and end-of-turn detection."""


@hookspec
def voicecall_agent_backends() -> Sequence[ProviderInfo]:  # type: ignore[empty-body]
    """Agents."""


@hookspec
def voicecall_tunnels() -> Sequence[ProviderInfo]:  # type: ignore[empty-body]
    """Public URLs for the webhook server."""


@hookspec
def voicecall_stores() -> Sequence[ProviderInfo]:  # type: ignore[empty-body]
    """Call stores."""


@hookspec
def voicecall_coordinators() -> Sequence[ProviderInfo]:  # type: ignore[empty-body]
    """Leases, caps and one-use tokens."""


@hookspec
def voicecall_plugin_info() -> PluginInfo:  # type: ignore[empty-body]
    """Id and configuration model of a gateway plugin."""


@hookspec
def voicecall_services(host: GatewayHost) -> Sequence[Service]:  # type: ignore[empty-body]
    """At start: the services that the gateway runs for this plugin."""


@hookspec
def voicecall_commands(app: Any) -> None:
    """Add commands to the ``voicecall`` command line (a ``typer.Typer``); import lazily."""


@hookspec
def voicecall_setup_checks(context: SetupContext) -> Sequence[SetupCheck]:  # type: ignore[empty-body]
    """Checks for ``voicecall setup``, in the order they are shown, also while the plugin is off."""


@hookspec
def voicecall_setup_probes(context: SetupContext) -> Sequence[SetupProbe]:  # type: ignore[empty-body]
    """Checks for ``voicecall setup --probe``, which may contact vendors and the internet."""


@hookspec
def voicecall_call_event(record: CallRecord, event: CallEvent) -> None:
    """Observe an event after it was committed."""


@hookspec
def voicecall_call_ended(record: CallRecord) -> None:
    """Observe the final record of a call."""
