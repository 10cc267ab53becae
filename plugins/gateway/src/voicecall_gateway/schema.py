"""The JSON schema (draft 2020-12) of a configuration for the installed packages.

Any string may be a reference to a secret (:mod:`.secretrefs`); the schema says so only for the
credentials that providers declare and for the gateway's token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from voicecall.errors import PluginError
from voicecall.providers import ProviderInfo, ProviderKind
from voicecall.registry import Registry

from .plugins import load_plugin, plugin_ids
from .secretrefs import SecretsSection
from .sections import FOREIGN_KEYS, GatewaySection, PluginEntry, PluginsSection

__all__ = ["configuration_schema"]

SECTION_BLOCKS: Mapping[str, Mapping[str, ProviderKind]] = {
    "tts": {"providers": ProviderKind.TTS},
    "agents": {"backends": ProviderKind.AGENT},
}
"""Where the sections that plugins read contain blocks of providers by id."""

_REFERENCE = {
    "type": "object",
    "description": "A secret from a variable, a file or a program.",
    "properties": {
        "source": {"enum": ["env", "file", "exec"]},
        "provider": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$"},
        "id": {"type": "string"},
    },
    "required": ["source", "id"],
    "additionalProperties": False,
}


def configuration_schema(registry: Registry) -> tuple[dict[str, Any], list[str]]:
    """The schema, and one sentence for each package whose schema cannot be determined."""
    schemas = _Schemas(registry)
    gateway = schemas.of("gateway", GatewaySection)
    gateway["properties"] |= {key: {} for key in sorted(FOREIGN_KEYS["gateway"])}
    auth = schemas.definitions["gateway.AuthSection"]
    auth["properties"] |= {key: {} for key in sorted(FOREIGN_KEYS["gateway.auth"])}
    schemas.allow_reference(auth, "token")
    plugins = schemas.of("plugins", PluginsSection)
    plugins["properties"] |= {key: {} for key in sorted(FOREIGN_KEYS["plugins"])}
    plugins["properties"]["entries"] = {
        "type": "object",
        "properties": {id_: schemas.entry(id_) for id_ in plugin_ids(registry)},
    }
    properties: dict[str, Any] = {
        "gateway": gateway,
        "plugins": plugins,
        "secrets": schemas.of("secrets", SecretsSection),
        "session": {"type": "object"},
    }
    for name, blocks in SECTION_BLOCKS.items():
        section: dict[str, Any] = {"type": "object"}
        schemas.add_blocks(section, blocks)
        properties[name] = section
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "voicecall configuration",
        "type": "object",
        "properties": properties,
        "$defs": schemas.definitions,
    }
    return schema, schemas.problems


class _Schemas:
    """Collects all definitions for the root of the document."""

    def __init__(self, registry: Registry) -> None:
        self.definitions: dict[str, Any] = {"SecretRef": _REFERENCE}
        self.problems: list[str] = []
        self._registry = registry

    def of(self, name: str, model: type[BaseModel]) -> dict[str, Any]:
        """The schema of ``model``; what it refers to becomes definitions below ``name``."""
        schema = model.model_json_schema(
            by_alias=True, ref_template=f"#/$defs/{name}.{{model}}", mode="validation"
        )
        for key, definition in schema.pop("$defs", {}).items():
            self.definitions[f"{name}.{key}"] = definition
        return schema

    def entry(self, plugin_id: str) -> dict[str, Any]:
        """The schema of one value of ``plugins.entries``."""
        schema = self.of(f"entry.{plugin_id}", PluginEntry)
        schema["additionalProperties"] = True
        plugin = load_plugin(self._registry, plugin_id)
        if plugin.info is None:
            self.problems.append(plugin.error or f"the plugin {plugin_id!r} cannot be loaded")
        elif plugin.info.config_model is not None:
            try:
                config = self.of(f"plugin.{plugin_id}", plugin.info.config_model())
            except Exception as error:  # noqa: BLE001 (a stranger's model)
                self.problems.append(f"the plugin {plugin_id!r}: {type(error).__name__}: {error}")
                return schema
            self.add_blocks(config, plugin.info.provider_blocks)
            schema["properties"]["config"] = config
        return schema

    def add_blocks(self, schema: dict[str, Any], blocks: Mapping[str, ProviderKind]) -> None:
        """Add the schemas of installed providers' blocks to ``schema``."""
        for path, kind in blocks.items():
            place = schema
            for part in path.split(".") if path else ():
                place = self._step(place, part)
            known = place.setdefault("properties", {})
            for provider_id in self._registry.ids(kind):
                known.setdefault(provider_id, self._block(kind, provider_id))

    def _step(self, schema: dict[str, Any], key: str) -> dict[str, Any]:
        """The schema of an object's ``key``, created if there is none."""
        place: dict[str, Any] = schema.setdefault("properties", {}).setdefault(
            key, {"type": "object"}
        )
        reference = place.get("$ref", "")
        found: dict[str, Any] = self.definitions.get(reference.removeprefix("#/$defs/"), place)
        return found

    def _block(self, kind: ProviderKind, provider_id: str) -> dict[str, Any]:
        name = f"{kind.value}.{provider_id}"
        if name not in self.definitions:
            try:
                self.definitions[name] = self._provider(
                    name, self._registry.load(kind, provider_id)
                )
            except PluginError as error:
                self.problems.append(str(error))
                self.definitions[name] = {"type": "object"}
            except Exception as error:  # noqa: BLE001 (a stranger's package)
                self.problems.append(f"{name}: {type(error).__name__}: {error}")
                self.definitions[name] = {"type": "object"}
        return {"$ref": f"#/$defs/{name}"}

    def _provider(self, name: str, info: ProviderInfo) -> dict[str, Any]:
        if info.config_model is None:
            return {"type": "object", "title": info.label, "maxProperties": 0}
        schema = self.of(name, info.config_model())
        # Not required in the file: what the environment can supply, and an agent's model, which
        # may be in `agents.defaults`.
        elsewhere = {*info.secrets, *(["model"] if info.kind is ProviderKind.AGENT else [])}
        schema["required"] = [key for key in schema.get("required", ()) if key not in elsewhere]
        for key in info.secrets:
            self.allow_reference(schema, key)
        return schema

    def allow_reference(self, schema: dict[str, Any], key: str) -> None:
        """Allow a property to be a reference to a secret."""
        properties = schema.get("properties", {})
        if key in properties:
            properties[key] = {"anyOf": [properties[key], {"$ref": "#/$defs/SecretRef"}]}
