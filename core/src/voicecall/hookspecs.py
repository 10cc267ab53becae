"""The hooks of voicecall, one sentence each.

Hooks are synchronous. None runs per action, webhook or audio frame of a call, except the two
observers, which run after the fact.
"""

# The bodies are the plugins' own.
# mypy: disable-error-code="empty-body"

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
def voicecall_telephony_providers() -> Sequence[ProviderInfo]:
    """Carriers."""


@hookspec
def voicecall_transcription_providers() -> Sequence[ProviderInfo]:
    """Speech recognition."""


@hookspec
def voicecall_tts_providers() -> Sequence[ProviderInfo]:
    """Speech synthesis."""


@hookspec
def voicecall_realtime_providers() -> Sequence[ProviderInfo]:
    """Full-duplex voice models."""


@hookspec
def voicecall_turn_detectors() -> Sequence[ProviderInfo]:
    """Voice activity and end-of-turn detection."""


@hookspec
def voicecall_agent_backends() -> Sequence[ProviderInfo]:
    """Agents."""


@hookspec
def voicecall_tunnels() -> Sequence[ProviderInfo]:
    """Tunnels: public URLs for the webhook server."""


@hookspec
def voicecall_stores() -> Sequence[ProviderInfo]:
    """Call stores."""


@hookspec
def voicecall_coordinators() -> Sequence[ProviderInfo]:
    """Leases, rates and one-use tokens."""


@hookspec
def voicecall_plugin_info() -> PluginInfo:
    """Id and configuration model of a gateway plugin."""


@hookspec
def voicecall_services(host: GatewayHost) -> Sequence[Service]:
    """Services that the gateway runs for this plugin; called at start."""


@hookspec
def voicecall_commands(app: Any) -> None:
    """Add commands to the ``voicecall`` command line (a ``typer.Typer``); import lazily."""


@hookspec
def voicecall_setup_checks(context: SetupContext) -> Sequence[SetupCheck]:
    """Checks for ``voicecall setup``, in display order; called even if the plugin is off."""


@hookspec
def voicecall_setup_probes(context: SetupContext) -> Sequence[SetupProbe]:
    """Checks for ``voicecall setup --probe``, which may contact vendors and the internet."""


@hookspec
def voicecall_call_event(record: CallRecord, event: CallEvent) -> None:
    """Observe an event of a call, after it was committed."""


@hookspec
def voicecall_call_ended(record: CallRecord) -> None:
    """Observe the final record of an ended call."""
