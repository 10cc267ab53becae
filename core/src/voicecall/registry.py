"""Finding provider packages through entry points, importing only what is used.

One scan of the installed distributions serves all groups. Names come from the entry points; a
package is imported when its provider is loaded. If a package cannot be imported, its error is
recorded and nothing else is affected.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any

from importlib_metadata import EntryPoint, entry_points

from .errors import PluginError
from .hooks import HOOK_OF_KIND, Hooks
from .providers import API_VERSION, ProviderInfo, ProviderKind

__all__ = ["Found", "Registry", "check_version"]

_PREFIX = "voicecall."


class Found:
    """An entry point, not imported: ``id`` is its name, ``source`` its distribution, whose metadata
    is read on first use."""

    __slots__ = ("entry", "group", "id")

    def __init__(self, entry: EntryPoint) -> None:
        self.entry = entry
        self.group: str = entry.group
        self.id: str = entry.name

    @property
    def source(self) -> str:
        dist = self.entry.dist
        return str(dist.metadata["Name"]) if dist is not None else "extra"

    @property
    def version(self) -> str:
        dist = self.entry.dist
        return str(dist.version) if dist is not None else "0"

    def __repr__(self) -> str:
        return f"Found({self.group!r}, {self.id!r})"


class Registry:
    """All installed providers and gateway plugins.

    ``extra`` adds plugin modules that are not installed, as (group, id, module): for tests and for
    programs with their own provider.
    """

    def __init__(
        self,
        *,
        entries: Iterable[EntryPoint] | None = None,
        extra: Iterable[tuple[str, str, object]] = (),
    ) -> None:
        self.hooks = Hooks()
        self.failures: dict[tuple[str, str], str] = {}
        self._found: dict[str, dict[str, list[Found]]] = {}
        self._modules: dict[tuple[str, str], object] = {}
        self._infos: dict[tuple[ProviderKind, str], ProviderInfo] = {}
        scanned = entry_points() if entries is None else entries
        for entry in scanned:
            if entry.group.startswith(_PREFIX):
                found = Found(entry)
                same_id = self._found.setdefault(entry.group, {}).setdefault(entry.name, [])
                # A distribution can be on the path twice (an editable install).
                if all(other.source != found.source for other in same_id):
                    same_id.append(found)
        for group, name, module in extra:
            self._modules[group, name] = module
            entry = EntryPoint(name, getattr(module, "__name__", name), group)
            self._found.setdefault(group, {})[name] = [Found(entry)]

    # --- without importing ------------------------------------------------------------------

    def found(self, group: str) -> Sequence[Found]:
        """All entry points of a group, sorted by name. Nothing is imported."""
        return [
            one for name in sorted(self._found.get(group, {})) for one in self._found[group][name]
        ]

    def ids(self, kind: ProviderKind) -> Sequence[str]:
        return sorted(self._found.get(kind.group, {}))

    # --- loading ----------------------------------------------------------------------------

    def module(self, group: str, name: str) -> Any:
        """Import and register the plugin module of an entry point.

        Raises :exc:`PluginError` if it is not installed, claimed by two packages, not importable,
        or has a wrong hook.
        """
        if (group, name) in self._modules:
            module = self._modules[group, name]
        else:
            module = self._import(group, name)
            self._modules[group, name] = module
        try:
            self.hooks.register(module, f"{group}:{name}")
        except Exception as error:
            raise self._failed(group, name, "has a wrong hook", error) from error
        return module

    def imported(self, group: str, name: str) -> object | None:
        """The plugin module of an entry point if it is already imported, else None."""
        return self._modules.get((group, name))

    def _import(self, group: str, name: str) -> object:
        candidates = self._found.get(group, {}).get(name)
        if not candidates:
            raise PluginError(self._unknown(group, name))
        if len(candidates) > 1:
            sources = " and ".join(sorted(c.source for c in candidates))
            raise PluginError(
                f"{group} {name!r} is claimed by two distributions, {sources}: uninstall one"
            )
        try:
            return candidates[0].entry.load()
        except (Exception, SystemExit) as error:
            raise self._failed(group, name, "cannot be imported", error) from error

    def _failed(self, group: str, name: str, what: str, error: BaseException) -> PluginError:
        """Record the ``error`` of a package; returns the error to raise."""
        text = "; ".join(f"{type(error).__name__}: {error}".splitlines())
        self.failures[group, name] = text
        return PluginError(f"{self._named(group, name)} {what}: {text}")

    def _named(self, group: str, name: str) -> str:
        """An entry point and its distribution, for messages."""
        return f"{group} {name!r} of {self._found[group][name][0].source}"

    def _unknown(self, group: str, name: str) -> str:
        known = sorted(self._found.get(group, {}))
        from .wording import did_you_mean

        hint = did_you_mean(name, known)
        installed = ", ".join(known) or "none"
        others = " and ".join(other for other in sorted(self._found) if name in self._found[other])
        elsewhere = f"; a package has it in the group {others} instead" if others else ""
        return (
            f"no {group} provider {name!r} is installed (installed: {installed}){hint}{elsewhere}"
        )

    def load(self, kind: ProviderKind, provider_id: str) -> ProviderInfo:
        """The provider with this id or alias, which is imported if necessary. Raises
        :exc:`PluginError`."""
        if (kind, provider_id) in self._infos:
            return self._infos[kind, provider_id]
        if provider_id not in self._found.get(kind.group, {}):
            meant = [info for info in self.load_all(kind) if provider_id in info.aliases]
            if len(meant) == 1:
                return meant[0]
            if meant:
                ids = " and ".join(sorted(repr(info.id) for info in meant))
                raise PluginError(
                    f"{kind.group} {provider_id!r} is an alias of {ids}: write the id of the one"
                    " to use"
                )
            raise PluginError(self._unknown(kind.group, provider_id))
        module = self.module(kind.group, provider_id)
        named = self._named(kind.group, provider_id)
        try:
            infos = self.hooks.provider_infos(kind, module)
        except (Exception, SystemExit) as error:
            what = "cannot list its providers"
            raise self._failed(kind.group, provider_id, what, error) from error
        for info in infos:
            if info.id == provider_id and info.kind is kind:
                break
        else:
            raise PluginError(
                f"{named}: its module offers no provider with this id"
                f" ({self._offered(kind, infos)})"
            )
        check_version(named, info.api_version)
        if kind is ProviderKind.TELEPHONY and (lack := _capabilities_lack(info.capabilities)):
            raise PluginError(
                f"{named} does not say what the carrier can do: its ProviderInfo has {lack}"
            )
        self._infos[kind, provider_id] = info
        return info

    @staticmethod
    def _offered(kind: ProviderKind, infos: Sequence[ProviderInfo]) -> str:
        """What a module offers instead, for messages."""
        found = ", ".join(f"{info.kind.value} {info.id!r}" for info in infos)
        if found:
            return f"it offers {found}"
        return f"it has no function {HOOK_OF_KIND[kind]} marked with @hookimpl that returns one"

    def load_all(self, kind: ProviderKind) -> Sequence[ProviderInfo]:
        """All providers of a kind that can be loaded, in order of automatic selection. Errors of
        the others are recorded in :attr:`failures`."""
        infos = []
        for provider_id in self.ids(kind):
            try:
                infos.append(self.load(kind, provider_id))
            except PluginError as error:
                self.failures.setdefault((kind.group, provider_id), str(error))
        return sorted(infos, key=lambda info: (info.auto_select_order, info.id))


def check_version(named: str, version: int) -> None:
    """Raise :exc:`PluginError` if a plugin was written for another version of the contracts."""
    if version != API_VERSION:
        older = "voicecall" if version > API_VERSION else "that package"
        raise PluginError(
            f"{named} is written for API version {version}, but voicecall has {API_VERSION}:"
            f" update {older}"
        )


def _capabilities_lack(capabilities: object) -> str:
    """What is wrong with the capabilities of a carrier; empty if they are right."""
    if capabilities is None:
        return "no capabilities"
    from .audio.formats import AudioFormat
    from .telephony import StreamPoint, TelephonyCapabilities

    if not isinstance(capabilities, TelephonyCapabilities):
        return f"capabilities of type {type(capabilities).__name__}, not TelephonyCapabilities"
    stream: Any = capabilities.stream
    if not (isinstance(stream, Set) and stream <= set(StreamPoint)):
        return "capabilities whose stream is not a set of StreamPoint"
    if StreamPoint.DIAL in stream:
        return (
            "capabilities with StreamPoint.DIAL, which dial requests do not use yet: leave it out"
        )
    if not all(isinstance(codec, AudioFormat) for codec in capabilities.codecs):
        return "capabilities whose codecs are not AudioFormat, such as voicecall.MULAW_8K"
    if stream and not capabilities.codecs:
        return "capabilities with media sockets but without codecs"
    for name in ("longest_speech", "longest_pre_connect_dtmf"):
        longest: Any = getattr(capabilities, name)
        if longest is not None and not (type(longest) is int and longest > 0):
            return f"capabilities whose {name} is neither an int above 0 nor None (no limit)"
    return ""
