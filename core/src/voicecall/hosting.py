"""The interface between the gateway and its plugins.

A gateway plugin is a module with hook implementations (:mod:`voicecall.hookspecs`). Hooks are
synchronous and run only briefly (at discovery, start, command line, setup); anything that runs
longer is a :class:`Service` returned by a hook.
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
"""The payload of a published event, or a function that returns it, called only if there are
listeners."""


@dataclass(frozen=True, slots=True)
class LegacyRule:
    """An old configuration key and the key that replaces it, both as paths below the plugin's
    configuration.

    - ``old``: ``{name}`` in it matches any text within one key (``streaming.{vendor}ApiKey``),
      except those in ``reserved``; the match replaces ``{name}`` in ``new``
    - ``new``: a value that already exists there takes precedence. None: the key no longer has an
      effect and is dropped. ``{=path}`` in it is replaced by the configuration's value at ``path``:
      a string, or the only key of an object; otherwise the rule does not apply
    - ``values``: old value -> new value; if given, other values are left alone
    - ``convert``: converts a value; raises ``ValueError`` for one that cannot be kept
    - ``objects``: the rule applies only to values that are objects
    """

    old: str
    new: str | None = None
    values: Mapping[Any, Any] | None = None
    convert: Callable[[Any], Any] | None = None
    reserved: frozenset[str] = frozenset()
    objects: bool = False


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A gateway plugin.

    - ``id``: its key under ``plugins.entries``
    - ``config_model``: returns the pydantic model of its configuration
    - ``legacy_rules``: returns the rules for keys of older versions
    - ``provider_blocks``: where the configuration has blocks of providers by id: path
      (``streaming.providers``; empty for the root) -> kind
    - ``check_sections``: gets the plugin's configuration, and raises
      :exc:`voicecall.errors.ConfigError` for mistakes that the model cannot find: in a shared
      section of the file (``agents``, ``tts``), or in what it says about a provider. It may return
      sentences about what the plugin will ignore, do without or still needs
    - ``api_version``: the :data:`voicecall.API_VERSION` that the plugin was written for; 1 by
      default
    """

    id: str
    label: str
    config_model: Callable[[], type[BaseModel]] | None = None
    legacy_rules: Callable[[], Sequence[LegacyRule]] | None = None
    provider_blocks: Mapping[str, ProviderKind] = field(default_factory=dict)
    check_sections: Callable[[Any, SetupContext], Sequence[str] | None] | None = None
    # Not API_VERSION, as in ProviderInfo.
    api_version: int = 1


@dataclass(frozen=True, slots=True)
class RpcCall:
    """Who called a method: the connection's id and its scopes."""

    connection: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class RpcMethod:
    """A method of ``/rpc``. ``scope`` is the scope that the client needs, such as
    ``operator.read``.

    ``handler(params, call)`` returns the payload. It raises :exc:`voicecall.errors.CallError` for a
    bad request (``INVALID_REQUEST``), and any other :exc:`voicecall.errors.VoicecallError` if
    something is not available (``UNAVAILABLE``)."""

    name: str
    scope: str
    handler: Callable[[Mapping[str, Any], RpcCall], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Who called a tool: their scopes (none for a caller), and what came with the request."""

    scopes: frozenset[str]
    session_key: str | None = None
    agent_id: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool for agents and voice models. ``parameters`` is the JSON schema of its arguments, which
    are an object. ``handler(arguments, call)`` returns JSON-ready data, and raises the same errors
    as the handler of an :class:`RpcMethod`."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    handler: Callable[[Mapping[str, Any], ToolCall], Awaitable[Any]]


class Service(Protocol):
    """Something that runs as long as the gateway."""

    @property
    def name(self) -> str:
        """Its name in the log and in the reasons of ``/readyz``."""
        ...

    def run(self) -> AbstractAsyncContextManager[None]:
        """The running service. Entering starts it: this returns when the service is ready, or
        raises a ``VoicecallError`` if it cannot start; the gateway then tries again after a while.
        Leaving stops it, and returns when everything is closed."""
        ...

    async def drain(self) -> None:
        """Accept nothing new and wait for what is under way; called before the service is stopped,
        and cancelled after the drain time."""
        ...

    def problems(self) -> Sequence[str]:
        """Why the gateway is not ready, one sentence per reason; empty if it is."""
        ...


@runtime_checkable
class Reconfigurable(Protocol):
    """A :class:`Service` that can apply a changed configuration while it runs."""

    async def reconfigure(self, config: Any) -> bool:
        """Apply ``config``, the plugin's new validated configuration; the host already returns the
        new sections. Returns True if the change is in effect, False if the service must be
        restarted for it. Raises a ``VoicecallError`` if the configuration cannot be used; the
        service then keeps its previous configuration."""
        ...


@runtime_checkable
class Liveness(Protocol):
    """A :class:`Service` that reports how much a restart would interrupt. A service without this is
    never restarted for a changed configuration."""

    def live(self) -> int:
        """The number of calls (or the like) under way."""
        ...


@dataclass(frozen=True, slots=True)
class SetupCheck:
    """One line of ``voicecall setup``."""

    id: str
    ok: bool
    message: str


class SetupProbe(Protocol):
    """Checks for ``voicecall setup --probe``: they may contact vendors and the internet."""

    async def run(self) -> Sequence[SetupCheck]:
        """Run the checks. They must not change anything or place a call."""
        ...


@dataclass(frozen=True, slots=True)
class SetupContext:
    """The loaded configuration, for setup checks without a running gateway. ``section`` returns a
    top-level object of the file (``agents``, ``tts``), ``plugin_config`` a plugin's validated
    configuration (or raises ``ConfigError``), ``enabled`` whether a plugin is on."""

    registry: Registry
    plugin_config: Callable[[str], Any]
    section: Callable[[str], Mapping[str, Any]]
    enabled: Callable[[str], bool]
    environ: Mapping[str, str]
    state_dir: Path


class GatewayHost(Protocol):
    """What a plugin gets from the gateway at start. To be used in the gateway's event loop only,
    not from other threads."""

    state_dir: Path
    seam: Seam
    registry: Registry
    environ: Mapping[str, str]

    def plugin_config(self, plugin_id: str) -> Any:
        """The validated configuration of a plugin entry; for a plugin without a model, the mapping
        as written. Raises :exc:`voicecall.errors.ConfigError`."""
        ...

    def section(self, name: str) -> Mapping[str, Any]:
        """A top-level object of the configuration; ``{}`` if it is absent."""
        ...

    def register_rpc(self, method: RpcMethod) -> None:
        """Offer a method on ``/rpc`` while the plugin runs. Raises
        :exc:`voicecall.errors.PluginError` if the name is taken or the scope unknown."""
        ...

    def register_tool(self, tool: ToolSpec) -> None:
        """Offer a tool while the plugin runs. Raises :exc:`voicecall.errors.PluginError` if the
        name is taken."""
        ...

    def find_tool(self, name: str) -> ToolSpec | None:
        """The tool with this name, of any running plugin; None if there is none."""
        ...

    def publish(self, event: str, payload: EventPayload) -> None:
        """Send an event to subscribers of ``/rpc`` and to :meth:`subscribe`. Never blocks."""
        ...

    def subscribe(self, listener: Callable[[str, Mapping[str, Any]], None]) -> Callable[[], None]:
        """Call ``listener(event, payload)``, a plain function, for every published event. Returns a
        function that ends the subscription."""
        ...

    def observe_event(self, record: Any, event: Any) -> None:
        """Call the observers of call events. Their errors are only logged."""
        ...

    def observe_end(self, record: Any) -> None:
        """Call the observers of ended calls. Their errors are only logged."""
        ...

    def hide(self, text: str) -> str:
        """``text`` with credentials from the configuration and the environment replaced by ``***``:
        a vendor's error may quote one. Not needed for the log and for errors that handlers
        raise."""
        ...

    def logger(self, name: str) -> logging.Logger:
        """The logger ``voicecall.<name>``, which writes to the gateway's log."""
        ...

    def provider_context(self, path: str) -> ProviderContext:
        """The context for provider factories. ``path`` is where the configuration has their blocks,
        for messages."""
        ...
