"""How a provider package describes itself: data plus a factory.

A plugin module has one hook implementation per kind, which returns :class:`ProviderInfo` objects.
The module must be importable without the vendor's heavy libraries: the factory imports them.
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

from .errors import PluginError
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
    "Remark",
]

API_VERSION = 1
"""Version of the contracts in this package. Providers and plugins state the version they were
written for."""


class ProviderKind(StrEnum):
    """A kind of provider. The value is the name of its entry-point group without ``voicecall.``."""

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


class Remark(str):
    """A sentence that ``check`` returns about a mistake with which the provider still works. It is
    shown and logged as a warning, and does not prevent a start."""

    __slots__ = ()


class ProviderFactory(Protocol):
    def __call__(self, kind: ProviderKind, provider_id: str, config: Mapping[str, Any]) -> Any: ...


def _no_others(kind: ProviderKind, provider_id: str, config: Mapping[str, Any]) -> Any:
    raise PluginError(f"cannot make the {kind} provider {provider_id!r}: this context makes none")


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What the host passes to a factory. ``create`` makes another provider, by kind, id and
    configuration; ``state_dir`` is the directory for files that must be kept."""

    state_dir: Path
    seam: Seam = field(default_factory=SystemSeam)
    create: ProviderFactory = _no_others
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("voicecall"))


@dataclass(frozen=True, slots=True)
class LegacyKey:
    """An old configuration path of this provider, and the path that replaces it, both below the
    plugin's configuration (``<carrier>.from`` -> ``fromNumber``)."""

    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderInfo:
    """One provider.

    - ``id``: the provider's id in the configuration, and the name of its entry point; ``aliases``:
      other ids for it; ``label``: its name in messages
    - ``factory(config, context)`` makes the provider; ``config`` is the validated model, or None if
      there is no ``config_model``
    - ``config_model`` returns the pydantic model of the provider's configuration block (a function,
      so that listing providers does not import pydantic)
    - ``api_version``: the :data:`API_VERSION` that the provider was written for
    - ``secrets``: key of that block, as the operator writes it -> environment variable that can
      supply it
    - ``required``: keys without which the provider counts as not configured
    - ``environ``: key of the phone's own configuration (a carrier's ``fromNumber``) -> environment
      variable that supplies it if the operator gives no value
    - ``auto_select_order``: the lowest is tried first; ``demo`` providers are never chosen
      automatically
    - ``capabilities``: a carrier must also state its
      :class:`~voicecall.telephony.TelephonyCapabilities` here, because they are needed before it is
      made; a tunnel may state its :class:`~voicecall.tunnel.TunnelCapabilities`; other kinds are
      not read
    - ``legacy_keys``: keys of older versions and their replacements
    - ``check(config, models)`` returns what would keep the provider from working, one sentence per
      problem, as far as only the provider knows it (such as a key that the model's vendor needs);
      a :class:`Remark` for a problem with which the provider still works
    - ``tools(config)`` returns the names of the tools that an agent backend has, so that mistakes
      in ``tools.allow`` can be reported; a name ends in ``*`` if only its beginning is known

    ``check`` and ``tools`` must not contact anything. They may import what the factory imports, and
    raise a ``VoicecallError`` if that is missing. ``models`` are the models that an agent backend
    may be asked for besides its own; for other kinds it is empty. Both are called for agent
    backends at each start; ``check`` is called for carriers, stores, tunnels, recognisers, voices
    and voice models only by ``voicecall setup``.

    Raises ``TypeError`` for a field of the wrong type.
    """

    kind: ProviderKind
    id: str
    label: str
    factory: Callable[[Any, ProviderContext], Any]
    config_model: Callable[[], type[BaseModel]] | None = None
    aliases: tuple[str, ...] = ()
    # Not API_VERSION: a package that states no version was written for the first one.
    api_version: int = 1
    secrets: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    auto_select_order: int = 100
    demo: bool = False
    capabilities: Any = None
    legacy_keys: tuple[LegacyKey, ...] = ()
    check: Callable[[Any, Collection[str]], Sequence[str]] | None = None
    tools: Callable[[Any], Collection[str]] | None = None

    def __post_init__(self) -> None:
        kind: object = self.kind
        self._expect("kind", isinstance(kind, ProviderKind), "a ProviderKind")
        for name in ("id", "label"):
            self._expect(name, isinstance(getattr(self, name), str), "a str")
        for name in ("api_version", "auto_select_order"):
            self._expect(name, isinstance(getattr(self, name), int), "an int")
        self._expect("demo", isinstance(self.demo, bool), "a bool")
        self._expect("aliases", _is_texts(self.aliases), "a list or tuple of str")
        self._expect("required", _is_texts(self.required), "a list or tuple of str")
        for name in ("secrets", "environ"):
            self._expect(name, _maps_texts(getattr(self, name)), "a mapping of str to str")
        self._expect("factory", callable(self.factory), "a function (config, context)")
        for name, what in (
            ("config_model", "a function that returns the model, such as lambda: Model"),
            ("check", "a function (config, models)"),
            ("tools", "a function (config)"),
        ):
            function = getattr(self, name)
            right = callable(function) and not isinstance(function, type)
            self._expect(name, function is None or right, what)
        legacy: object = self.legacy_keys
        right = isinstance(legacy, list | tuple) and all(isinstance(k, LegacyKey) for k in legacy)
        self._expect("legacy_keys", right, "a list or tuple of LegacyKey")

    def _expect(self, name: str, right: bool, what: str) -> None:
        if not right:
            raise TypeError(f"ProviderInfo {self.id!r}: {name} must be {what}")


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _maps_texts(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all(isinstance(one, str) for item in value.items() for one in item)


class Provider(ABC):  # noqa: B024 (each contract has abstract methods)
    """Base of all providers: a lifespan around the resources they need while in use.

    All methods of a provider, and of the objects it makes, are called in one asyncio event loop and
    must not block it. What they are given (such as a sink for audio) must be used in that loop,
    too: threads of a vendor's library must use ``loop.call_soon_threadsafe``.

    If a contract has ``capabilities``, it is an attribute of the class or the object; type checkers
    refuse a property.
    """

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Entered once, before the gateway reports ready; left after the last call. Override it to
        open and close connections."""
        yield
