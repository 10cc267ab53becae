"""What a provider package tells about itself: data plus a factory.

A plugin module holds one hook implementation that returns :class:`ProviderInfo` objects. The
module must be importable without the vendor's heavy libraries: the factory imports them.
"""

from __future__ import annotations

import logging
from abc import ABC
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .seam import Seam, SystemSeam

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = [
    "API_VERSION",
    "LegacyKey",
    "Provider",
    "ProviderContext",
    "ProviderFactory",
    "ProviderInfo",
    "ProviderKind",
]

API_VERSION = 1
"""Version of the contracts in this package. A provider states the one it was written for."""


class ProviderKind(StrEnum):
    """The value is the name of the entry-point group, after ``voicecall.``."""

    TELEPHONY = "telephony"
    TRANSCRIPTION = "transcription"
    TTS = "tts"
    REALTIME = "realtime"
    TURN = "turn"
    AGENT = "agent"
    TUNNEL = "tunnel"
    STORE = "store"
    COORDINATOR = "coordinator"

    @property
    def group(self) -> str:
        """Name of the entry-point group."""
        return f"voicecall.{self.value}"


class ProviderFactory(Protocol):
    def __call__(self, kind: ProviderKind, provider_id: str, config: Mapping[str, Any]) -> Any: ...


def _no_others(kind: ProviderKind, provider_id: str, config: Mapping[str, Any]) -> Any:
    from .errors import PluginError

    raise PluginError(f"no {kind} provider {provider_id!r} can be made here")


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What the host hands to a factory. ``create`` makes another provider, by kind and id."""

    state_dir: Path
    seam: Seam = field(default_factory=SystemSeam)
    create: ProviderFactory = _no_others
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("voicecall"))


@dataclass(frozen=True, slots=True)
class LegacyKey:
    """An old configuration path of this provider and the path that replaces it, both below the
    plugin's configuration (``<carrier>.from`` -> ``fromNumber``)."""

    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderInfo:
    """One provider.

    ``config_model`` returns the pydantic model of the provider's configuration block (a function,
    so that listing providers needs no pydantic). ``secrets`` maps keys of that block, as the
    operator writes them, to the environment variables that may supply them; ``required`` names
    the keys without which the provider is not configured. ``auto_select_order``: lower is tried
    first; ``demo`` providers are never chosen automatically.

    ``capabilities`` are those of a carrier (:class:`~voicecall.telephony.TelephonyCapabilities`),
    which must state them here too: they are asked before the factory is. A tunnel may state its
    :class:`~voicecall.tunnel.TunnelCapabilities`; no other kind is asked.

    ``environ`` maps keys of the phone's own configuration to environment variables that supply
    them where the operator gives none (a carrier's ``fromNumber``).

    ``check(config, models)`` tells what would keep the provider from working, one sentence each:
    for what only the provider knows, such as the key that a model's vendor wants. ``models`` are
    those that it may be asked for besides its own (of an agent; others get none). It contacts
    nothing; it may import what the factory imports. Raises a ``VoicecallError`` where that is not
    there. An agent's backend is asked at each start; a carrier, a tunnel and whatever hears and
    speaks by ``voicecall setup`` alone.

    Raises ``TypeError`` for a field of another form.
    """

    kind: ProviderKind
    id: str
    label: str
    factory: Callable[[Any, ProviderContext], Any]
    config_model: Callable[[], type[BaseModel]] | None = None
    aliases: tuple[str, ...] = ()
    # Not API_VERSION: a package that does not state its version was written for the first, however
    # far the host has gone since.
    api_version: int = 1
    secrets: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    auto_select_order: int = 100
    demo: bool = False
    capabilities: Any = None
    legacy_keys: tuple[LegacyKey, ...] = ()
    check: Callable[[Any, Collection[str]], Sequence[str]] | None = None

    def __post_init__(self) -> None:
        self._expect("aliases", _is_texts(self.aliases), "a sequence of texts")
        self._expect("required", _is_texts(self.required), "a sequence of texts")
        for name in ("secrets", "environ"):
            mapping = getattr(self, name)
            self._expect(name, isinstance(mapping, Mapping), "a mapping of keys to variables")
        self._expect("factory", callable(self.factory), "a function of configuration and context")
        for name, what in (
            ("config_model", "a function that returns the model, such as lambda: Model"),
            ("check", "a function of configuration and models"),
        ):
            function = getattr(self, name)
            right = callable(function) and not isinstance(function, type)
            self._expect(name, function is None or right, what)

    def _expect(self, name: str, right: bool, what: str) -> None:
        if not right:
            raise TypeError(f"ProviderInfo {self.id!r}: {name} must be {what}")


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


class Provider(ABC):  # noqa: B024 (each contract has abstract methods)
    """Base of all provider objects: a lifespan around whatever they need while in use.

    Where a contract has ``capabilities``, they are an attribute, of the class or of the object; a
    type checker takes no property in their place.
    """

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Entered before the gateway reports ready, left after the last call."""
        yield
