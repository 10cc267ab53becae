"""Which agent answers calls: the ``agents`` section, which has its own format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from voicecall.errors import ConfigError
from voicecall.providers import ProviderInfo, ProviderKind
from voicecall.registry import Registry
from voicecall.selection import Selected, Selection, select
from voicecall.wording import did_you_mean
from voicecall_calls.agentprofile import IDENTITY_KEYS, AgentProfile
from voicecall_calls.config import CONFIG_PATH
from voicecall_calls.sections import misspelt

__all__ = ["AgentDirectory"]

_SECTION_KEYS = ("backends", "defaults", "list")
_DEFAULTS_KEYS = ("backend", "model", "tools", "workspace")
_MODEL_KEYS = ("fallbacks", "primary")
_AGENT_KEYS = (*_DEFAULTS_KEYS, "default", "id", "identity")


class AgentDirectory:
    """``agents.defaults``, ``agents.list[]`` (``id``, ``default``, ``backend``, ``model``,
    ``tools``, ``workspace``, ``identity``) and ``agents.backends`` (the configuration of each
    backend, by id). Raises ``ConfigError`` if one of these keys has the wrong type."""

    def __init__(self, section: Mapping[str, Any]) -> None:
        self._section = section
        self._entries = _entries(section.get("list"))
        self._defaults = _object(section.get("defaults"), "agents.defaults")
        _check_texts(self._defaults, "agents.defaults")
        backends = _object(section.get("backends"), "agents.backends")
        self.blocks: Mapping[str, Mapping[str, Any]] = {
            key: _object(block, f"agents.backends.{key}") for key, block in backends.items()
        }

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the agents in ``agents.list``."""
        return list(self._entries)

    def agent_id(self, configured: str | None, path: str = f"{CONFIG_PATH}.agentId") -> str:
        """The agent ``configured`` at ``path``, else the default agent. Raises ``ConfigError`` for
        an agent that is missing from a non-empty ``agents.list``."""
        if configured is None:
            marked = (key for key, entry in self._entries.items() if entry.get("default"))
            return next(marked, None) or next(iter(self._entries), "main")
        agent_id = configured.strip().lower()
        if self._entries and agent_id not in self._entries:
            known = ", ".join(sorted(self._entries))
            raise ConfigError(
                f"no agent {agent_id[:80]!r} in agents.list (there are: {known[:200]})", path=path
            )
        return agent_id

    def backend(self, agent_id: str) -> str | None:
        """Id of the agent's backend; None if the configuration names none."""
        return self._text(agent_id, "backend")

    def select(self, agent_id: str, registry: Registry, environ: Mapping[str, str]) -> Selected:
        """The agent's backend, as :func:`voicecall.selection.select` finds it."""
        named = self.backend(agent_id)

        def chosen(blocks: Mapping[str, Mapping[str, Any]]) -> Selected:
            path, named_at = "agents.backends", self._named_at(agent_id, "backend")
            return select(
                registry, ProviderKind.AGENT, named, blocks, environ, path, named_at=named_at
            )

        selected = chosen(self.blocks)
        if named is None or selected.outcome is not Selection.PROVIDER_NOT_CONFIGURED:
            return selected
        info = registry.load(ProviderKind.AGENT, named)
        return chosen({**self.blocks, info.id: self.block(info)})

    def _named_at(self, agent_id: str, key: str) -> str:
        """The full key that holds the agent's ``key``."""
        if _text_in(self._entries.get(agent_id, {}), key) is None:
            return f"agents.defaults.{key}"
        return f"agents.list.{list(self._entries).index(agent_id)}.{key}"

    def block(self, info: ProviderInfo) -> Mapping[str, Any]:
        """The configuration of a backend. If it requires a model and names none, it gets the one
        in ``agents.defaults``."""
        block = self.blocks.get(info.id, {})
        return {**block, "model": model} if (model := self._lent(info)) else block

    def located(self, info: ProviderInfo, text: str) -> str:
        """``text`` about the configuration of a backend, with the key that the file has for its
        model."""
        if self._lent(info) is None:
            return text
        primary = ".primary" if isinstance(self._defaults["model"], Mapping) else ""
        key = f"agents.defaults.model{primary}"
        return text.replace(f"agents.backends.{info.id}.model:", f"{key}:")

    def _lent(self, info: ProviderInfo) -> str | None:
        """The model that a backend gets from ``agents.defaults``, if it does."""
        wanted = "model" in info.required and self.blocks.get(info.id, {}).get("model") is None
        return _text_in(self._defaults, "model") if wanted else None

    def model(self, agent_id: str) -> str | None:
        """The agent's model; None if the configuration names none."""
        return self._text(agent_id, "model")

    def fallback_models(self, agent_id: str) -> tuple[str, ...]:
        """The models that take over when the agent's own fails."""
        for source in self._sources(agent_id):
            model = source.get("model")
            if isinstance(model, Mapping) and model.get("fallbacks") is not None:
                return tuple(model["fallbacks"])
        return ()

    def allowed_tools(self, agent_id: str) -> tuple[str, ...] | None:
        """Names of the tools that the agent may use; None: all tools of its backend."""
        for source in self._sources(agent_id):
            allowed = (source.get("tools") or {}).get("allow")
            if allowed is not None:
                return tuple(allowed)
        return None

    def unmatched(self, backends: Mapping[str, Selected]) -> Iterator[str]:
        """A sentence for each name in ``tools.allow`` that matches no tool of the agents to which
        the list applies. ``backends`` is by agent id; a list is skipped if the tools of one of its
        backends are not known."""
        known: dict[str, set[str] | None] = {}
        allowed: dict[str, tuple[str, ...]] = {}
        for agent_id in self.ids or [self.agent_id(None)]:
            names = self.allowed_tools(agent_id)
            if names is None:
                continue
            own = (self._entries.get(agent_id, {}).get("tools") or {}).get("allow") is not None
            place = f"agents.list.{self.ids.index(agent_id)}" if own else "agents.defaults"
            allowed[place] = names
            tools, others = _tools(backends.get(agent_id)), known.get(place, set())
            known[place] = None if tools is None or others is None else others | tools
        for place, names in allowed.items():
            if (tools := known[place]) is not None:
                for index, name in enumerate(names):
                    if not any(_may_match(name.strip(), tool) for tool in tools):
                        meant = did_you_mean(name, tools, 0.75)
                        yield f"{place}.tools.allow.{index}: no tool is called {name!r}{meant}"

    def notes(self) -> Iterator[str]:
        """Notes on keys of the section that have no effect."""
        yield from misspelt("agents", self._section, _SECTION_KEYS)
        listed = {f"agents.list.{n}": one for n, one in enumerate(self._entries.values())}
        for path, entry in {"agents.defaults": self._defaults, **listed}.items():
            keys = _AGENT_KEYS if path in listed else _DEFAULTS_KEYS
            yield from misspelt(path, entry, keys)
            if isinstance(entry.get("model"), Mapping):
                yield from misspelt(f"{path}.model", entry["model"], _MODEL_KEYS)
            yield from misspelt(f"{path}.identity", entry.get("identity") or {}, IDENTITY_KEYS)
        places = {"agents.defaults": self._defaults}
        places |= {f"agent {key!r} in agents.list": one for key, one in self._entries.items()}
        for place, source in places.items():
            if others := sorted(set(source.get("tools") or {}) - {"allow"}):
                yield f"{place}: tools.allow alone has an effect, not {', '.join(others)[:200]}"

    def profile(self, agent_id: str) -> AgentProfile:
        """The agent's identity and workspace."""
        workspace = self._text(agent_id, "workspace")
        identity = self._entries.get(agent_id, {}).get("identity") or {}
        texts = ((key, (identity.get(key) or "").strip()) for key in IDENTITY_KEYS)
        known = {key: text for key, text in texts if text}
        return AgentProfile(known, Path(workspace) if workspace is not None else None)

    def workspaces(self) -> Mapping[str, Path]:
        """The workspaces of all agents, by full key."""
        found = {}
        for agent_id in self.ids or [self.agent_id(None)]:
            if (workspace := self.profile(agent_id).workspace) is not None:
                found[self._named_at(agent_id, "workspace")] = workspace
        return found

    def _text(self, agent_id: str, key: str) -> str | None:
        found = (_text_in(source, key) for source in self._sources(agent_id))
        return next((text for text in found if text is not None), None)

    def _sources(self, agent_id: str) -> Sequence[Mapping[str, Any]]:
        """Where a key of the agent may be set; the first one counts."""
        return self._entries.get(agent_id, {}), self._defaults


def _tools(selected: Selected | None) -> set[str] | None:
    """Names of the tools that a backend has; None if they are not known."""
    if selected is None or selected.info is None or selected.info.tools is None:
        return None
    try:
        return set(map(str, selected.info.tools(selected.config)))
    except (Exception, SystemExit):  # noqa: BLE001 (a stranger's function; its check says more)
        return None


def _may_match(pattern: str, tool: str) -> bool:
    if not tool.endswith("*"):
        return fnmatchcase(tool, pattern)
    begin = tool.removesuffix("*")
    fixed = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    return fixed.startswith(begin) or (fixed != pattern and begin.startswith(fixed))


def _text_in(source: Mapping[str, Any], key: str) -> str | None:
    value = source.get(key)
    if isinstance(value, Mapping):
        value = value.get("primary")
    return value.strip() or None if isinstance(value, str) else None


def _entries(value: Any) -> Mapping[str, Mapping[str, Any]]:
    if value is not None and not isinstance(value, list):
        raise ConfigError("must be a list, [ ... ]", path="agents.list")
    found: dict[str, Mapping[str, Any]] = {}
    for index, item in enumerate(value or ()):
        path = f"agents.list.{index}"
        entry = _object(item, path)
        name = entry.get("id")
        if not isinstance(name, str) or not name.strip():
            raise ConfigError("must be the name of the agent", path=f"{path}.id")
        _check_texts(entry, path)
        agent_id = name.strip().lower()
        if agent_id in found:
            # Only one of them would have an effect.
            raise ConfigError(f"the agent {agent_id[:80]!r} is listed twice", path=f"{path}.id")
        found[agent_id] = entry
    return found


def _check_texts(entry: Mapping[str, Any], path: str) -> None:
    backend, model = entry.get("backend"), entry.get("model")
    if not isinstance(entry.get("workspace"), str | None):
        raise ConfigError("must be the path of a directory", path=f"{path}.workspace")
    for key, value in _object(entry.get("identity"), f"{path}.identity").items():
        if key in IDENTITY_KEYS and not isinstance(value, str | None):
            raise ConfigError("must be a string", path=f"{path}.identity.{key}")
    if not isinstance(backend, str | None):
        raise ConfigError("must be the id of a backend", path=f"{path}.backend")
    _check_names(_object(entry.get("tools"), f"{path}.tools").get("allow"), f"{path}.tools.allow")
    path = f"{path}.model"
    if isinstance(model, Mapping):
        _check_names(model.get("fallbacks"), f"{path}.fallbacks")
        path, model = f"{path}.primary", model.get("primary")
    if not isinstance(model, str | None):
        raise ConfigError("must be the name of a model", path=path)


def _check_names(value: Any, path: str) -> None:
    if value is not None and not isinstance(value, list):
        raise ConfigError("must be a list of names, [ ... ]", path=path)
    for index, name in enumerate(value or ()):
        if not (isinstance(name, str) and name.strip()):
            raise ConfigError("must be a name", path=f"{path}.{index}")


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError("must be an object, { ... }", path=path)
    return value
