"""Entry point of the phone. Cheap to import: every hook imports what it needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel

    from voicecall.hosting import (
        GatewayHost,
        LegacyRule,
        PluginInfo,
        Service,
        SetupCheck,
        SetupContext,
        SetupProbe,
    )

PLUGIN_ID = "voice-call"
PROVIDER_BLOCKS = {
    "": ProviderKind.TELEPHONY,
    "streaming.providers": ProviderKind.TRANSCRIPTION,
    "realtime.providers": ProviderKind.REALTIME,
    "tts.providers": ProviderKind.TTS,
    "tunnel.providers": ProviderKind.TUNNEL,
}
"""Where the configuration has blocks of providers by id; those of carriers are at its root."""


def _config_model() -> type[BaseModel]:
    from voicecall_calls.config import VoiceCallConfig

    return VoiceCallConfig


def _legacy_rules() -> Sequence[LegacyRule]:
    from voicecall_calls.legacy import legacy_rules

    return legacy_rules()


def _check_sections(config: Any, context: SetupContext) -> Sequence[str]:
    from voicecall_calls.checks import check_sections

    return check_sections(config, context)


@hookimpl
def voicecall_plugin_info() -> PluginInfo:
    from voicecall.hosting import PluginInfo

    return PluginInfo(
        PLUGIN_ID,
        "Phone",
        _config_model,
        _legacy_rules,
        PROVIDER_BLOCKS,
        check_sections=_check_sections,
    )


@hookimpl
def voicecall_services(host: GatewayHost) -> Sequence[Service]:
    from voicecall_calls.service import PhoneService

    return [PhoneService(host)]


@hookimpl
def voicecall_setup_checks(context: SetupContext) -> Sequence[SetupCheck]:
    from voicecall_calls.checks import setup_checks

    return setup_checks(context)


@hookimpl
def voicecall_setup_probes(context: SetupContext) -> Sequence[SetupProbe]:
    from voicecall_calls.probing import PhoneProbe

    return [PhoneProbe(context)]


@hookimpl
def voicecall_commands(app: Any) -> None:
    from voicecall_calls.commands import add_commands

    add_commands(app)


# --- the providers that come with the phone --------------------------------------------------


def _sqlite_model() -> type[BaseModel]:
    from voicecall_calls.store.config import SqliteConfig

    return SqliteConfig


def _postgres_model() -> type[BaseModel]:
    from voicecall_calls.store.config import PostgresConfig

    return PostgresConfig


_GROUP_PAUSE_S = 0.004
"""Pause between groups of commits, so that many calls share one; a single commit never waits."""


def _sqlite(config: Any, context: ProviderContext) -> Any:
    from pathlib import Path

    from voicecall_calls.store import SqliteStore

    return SqliteStore(Path(config.directory), context.seam, pause_s=_GROUP_PAUSE_S)


def _check_postgres(config: Any, models: Collection[str]) -> Sequence[str]:
    """Raises ``PluginError`` if the extra is missing, ``ConfigError`` if the URL is not valid."""
    try:
        import psycopg  # noqa: F401 (asked before our own modules, for a message that helps)
    except ImportError as error:
        from voicecall.errors import PluginError

        raise PluginError(
            f'the store postgres needs its extra: pip install "voicecall[postgres]" ({error})'
        ) from error
    from voicecall_calls.store.server import ServerAddress

    ServerAddress.parse(config.url)
    return ()


def _postgres(config: Any, context: ProviderContext) -> Any:
    _check_postgres(config, ())
    from pathlib import Path

    from voicecall_calls.store.postgres import PostgresStore

    named = config.directory
    directory = Path(named) if named else context.state_dir / "voice-calls"
    return PostgresStore(config.url, directory, context.seam)


def _coordinator(config: Any, context: ProviderContext) -> Any:
    from voicecall_calls.coordinator import MemoryCoordinator

    return MemoryCoordinator(context.seam)


@hookimpl
def voicecall_stores() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.STORE,
            id="sqlite",
            label="SQLite",
            factory=_sqlite,
            config_model=_sqlite_model,
            required=("directory",),
        ),
        ProviderInfo(
            kind=ProviderKind.STORE,
            id="postgres",
            label="PostgreSQL",
            factory=_postgres,
            config_model=_postgres_model,
            secrets={"url": "VOICECALL_DATABASE_URL"},
            required=("url",),
            check=_check_postgres,
        ),
    ]


@hookimpl
def voicecall_coordinators() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.COORDINATOR,
            id="memory",
            label="This process",
            factory=_coordinator,
        )
    ]
