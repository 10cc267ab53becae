"""What the gateway and its plugins see of each other.

A gateway plugin is a module with hook implementations (:mod:`voicecall.hookspecs`). Hooks are
synchronous and run at the edges (discovery, start, command line, setup); whatever has to live
longer is a :class:`Service` that a hook returns.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from .providers import ProviderContext, ProviderKind
from .seam import Seam

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .registry import Registry

__all__ = [
    "EventPayload",
    "GatewayHost",
    "LegacyRule",
    "Liveness",
    "PluginInfo",
    "Reconfigurable",
    "RpcCall",
    "RpcMethod",
    "Service",
    "SetupCheck",
    "SetupContext",
    "SetupProbe",
    "ToolCall",
    "ToolSpec",
]

EventPayload: TypeAlias = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""What a published event says, or a function that makes it where somebody listens."""


@dataclass(frozen=True, slots=True)
class LegacyRule:
    """An old configuration key and what stands for it today, both below the plugin's
    configuration.

    ``{name}`` in ``old`` stands for any text within one key (``streaming.{vendor}ApiKey``) and is
    filled in in ``new``; it never takes one of ``reserved``. ``new=None``: the key steers nothing
    any more and is dropped. ``values`` maps old values to new ones; where it is given, other
    values are left alone. ``convert`` changes a value; it raises ValueError for one that cannot
    be kept. ``objects``: only values that are objects count. A value that already stands under
    ``new`` wins.
    """

    old: str
    new: str | None = None
    values: Mapping[Any, Any] | None = None
    convert: Callable[[Any], Any] | None = None
    reserved: frozenset[str] = frozenset()
    objects: bool = False


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A gateway plugin: ``id`` is its key under ``plugins.entries``; ``config_model`` returns the
    pydantic model of its configuration.

    ``legacy_rules`` returns keys of older versions. ``provider_blocks`` tells where the
    configuration holds blocks of providers by id: a path (``streaming.providers``; empty for the
    root) and the kind.
    """

    id: str
    label: str
    config_model: Callable[[], type[BaseModel]] | None = None
    legacy_rules: Callable[[], Sequence[LegacyRule]] | None = None
    provider_blocks: Mapping[str, ProviderKind] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RpcCall:
    """Who called: the connection's id and its scopes."""

    connection: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class RpcMethod:
    """``handler(params, call)`` returns the payload. It raises
    :exc:`voicecall.errors.CallError` for bad requests (``INVALID_REQUEST``) and any other
    :exc:`voicecall.errors.VoicecallError` for what is not available (``UNAVAILABLE``)."""

    name: str
    scope: str
    handler: Callable[[Mapping[str, Any], RpcCall], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Who used a tool: their scopes, and what came with the request."""

    scopes: frozenset[str]
    session_key: str | None = None
    agent_id: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool of agents. ``parameters`` is the JSON schema of its arguments (an object).
    ``handler(arguments, call)`` returns what can be written as JSON; it raises like the handler
    of an :class:`RpcMethod`."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    handler: Callable[[Mapping[str, Any], ToolCall], Awaitable[Any]]


class Service(Protocol):
    """Something that runs as long as the gateway."""

    @property
    def name(self) -> str: ...

    def run(self) -> AbstractAsyncContextManager[None]:
        """Entered at start: returns when ready, raises a ``VoicecallError`` when it cannot
        start, and is then entered again after a while. Left at stop: everything is closed by
        then."""
        ...

    async def drain(self) -> None:
        """Take nothing new and wait for what is under way. Cancelled after the drain time."""
        ...

    def problems(self) -> Sequence[str]:
        """Why the gateway is not ready, one sentence each; empty when all is well."""
        ...


@runtime_checkable
class Reconfigurable(Protocol):
    """A :class:`Service` that can take a changed configuration while it runs."""

    async def reconfigure(self, config: Any) -> bool:
        """``config`` is the plugin's new validated configuration; sections and everything else
        are asked of the host, which has the new ones by now. True: in force. False: the service
        has to be started anew. Raises a ``VoicecallError`` for what cannot be used; the service
        then goes on as it was."""
        ...


@runtime_checkable
class Liveness(Protocol):
    """A :class:`Service` that tells what would be lost if it were started anew. One that does
    not tell is never started anew for a changed configuration."""

    def live(self) -> int:
        """How many calls (or the like) are under way."""
        ...


@dataclass(frozen=True, slots=True)
class SetupCheck:
    """One line of ``voicecall setup``."""

    id: str
    ok: bool
    message: str


class SetupProbe(Protocol):
    """Checks of ``voicecall setup --probe``: they may contact vendors and the internet."""

    async def run(self) -> Sequence[SetupCheck]:
        """Make the checks. Changes nothing anywhere, and places no call."""
        ...


@dataclass(frozen=True, slots=True)
class SetupContext:
    """For setup checks: the configuration as loaded, without a running gateway. ``section``
    gives a top-level object of the file (``agents``, ``tts``), ``plugin_config`` the validated
    configuration of a plugin entry (raises ``ConfigError``)."""

    registry: Registry
    plugin_config: Callable[[str], Any]
    section: Callable[[str], Mapping[str, Any]]
    enabled: Callable[[str], bool]
    environ: Mapping[str, str]
    state_dir: Path


class GatewayHost(Protocol):
    """What a plugin gets from the gateway at start."""

    state_dir: Path
    seam: Seam
    registry: Registry
    environ: Mapping[str, str]

    def plugin_config(self, plugin_id: str) -> Any:
        """The validated configuration of a plugin entry."""
        ...

    def section(self, name: str) -> Mapping[str, Any]:
        """A top-level object of the configuration, ``{}`` where it is absent."""
        ...

    def register_rpc(self, method: RpcMethod) -> None: ...

    def register_tool(self, tool: ToolSpec) -> None: ...

    def find_tool(self, name: str) -> ToolSpec | None:
        """A tool of any plugin that runs now."""
        ...

    def publish(self, event: str, payload: EventPayload) -> None:
        """Send an event to subscribers of ``/rpc`` and to :meth:`subscribe`. Never blocks."""
        ...

    def subscribe(self, listener: Callable[[str, Mapping[str, Any]], None]) -> Callable[[], None]:
        """Call ``listener(event, payload)`` for every published event; returns the undo."""
        ...

    def observe_event(self, record: Any, event: Any) -> None:
        """Tell observers of an accepted call event. Their errors are logged, nothing more."""
        ...

    def observe_end(self, record: Any) -> None: ...

    def logger(self, name: str) -> logging.Logger: ...

    def provider_context(self, path: str) -> ProviderContext:
        """What provider factories are given; ``path`` is where their blocks stand in the
        configuration, for messages."""
        ...
