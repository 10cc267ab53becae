"""What every command gets through its context: the registry and the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voicecall.registry import Registry

if TYPE_CHECKING:
    from .client import GatewayClient
    from .config import LoadedConfig

__all__ = ["CommandLine", "ConfigOption", "JsonOption", "command_line"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Configuration file (default: $VOICECALL_CONFIG or ~/.voicecall/config.json5).",
    ),
]


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The object of a ``voicecall`` command's context."""

    registry: Registry
    environ: Mapping[str, str]

    def load_config(self, config: Path | None) -> LoadedConfig:
        """Read and check the configuration. Raises :exc:`voicecall.errors.ConfigError`."""
        from .config import load_config

        return load_config(config, self.environ)

    def connect(self, config: Path | None = None, *, timeout: float = 5.0) -> GatewayClient:
        """A client of the running gateway; use it in a ``with`` statement."""
        from .client import GatewayClient

        return GatewayClient.connect(config, self.environ, timeout)


def command_line(context: typer.Context) -> CommandLine:
    """The :class:`CommandLine` of a running command."""
    found = context.find_root().obj
    if not isinstance(found, CommandLine):
        raise TypeError("this command does not run under the voicecall command line")
    return found
