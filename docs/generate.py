"""Generate the pages of docs/reference that describe the code.

    python docs/generate.py           write them
    python docs/generate.py --check   exit with 1 if one of them is out of date

A configuration key is described by its field (``Field(description=...)``) or in
docs/descriptions.toml, which also has the paragraphs that are not in the code.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from importlib_metadata import entry_points

from voicecall import errors, hookspecs
from voicecall.hooks import HOOK_OF_KIND
from voicecall.providers import ProviderInfo, ProviderKind
from voicecall.registry import Registry
from voicecall_calls.config import VoiceCallConfig
from voicecall_gateway.cli import build_app
from voicecall_gateway.secretrefs import EnvProvider, ExecProvider, FileProvider, SecretsSection
from voicecall_gateway.sections import GatewaySection, PluginsSection

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PHONE = "plugins.entries.voice-call.config"
NOTE = "<!-- Written by docs/generate.py: change the code or docs/descriptions.toml instead. -->\n"
WIDTH = 96

Schema = Mapping[str, Any]


# --- configuration ---------------------------------------------------------------------------


def describe(path: str, schema: Schema, words: Mapping[str, str]) -> str:
    """What a key means, on one line; ``?`` and the path if it is described nowhere."""
    text = words.get(path) or schema.get("description") or f"?{path}"
    return " ".join(str(text).split()).replace("|", "\\|")


UNITS = {
    "Ms": "milliseconds",
    "Sec": "seconds",
    "Seconds": "seconds",
    "days": "days",
    "Days": "days",
    "Bytes": "bytes",
    "Chars": "characters",
}
"""Units of numbers, by the suffixes of their keys."""


def type_name(schema: Schema, definitions: Schema, key: str = "") -> str:
    """A JSON schema in a few words; a number has the unit that its key ends with."""
    schema = _resolved(schema, definitions)
    if "anyOf" in schema:
        parts = [type_name(one, definitions, key) for one in schema["anyOf"]]
        return " or ".join(part for part in parts if part != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any")
    if kind in ("integer", "number"):
        number = "whole number" if kind == "integer" else "number"
        units = [unit for end, unit in UNITS.items() if key.endswith(end)]
        return _number(schema, f"{number} of {units[0]}" if units else number)
    if kind == "array":
        item = type_name(schema.get("items", {}), definitions)
        return f"list of {'strings' if item == 'string' else item}"
    return {"boolean": "true or false"}.get(kind, str(kind))


def _number(schema: Schema, word: str) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    if above is not None and schema["type"] == "integer":
        low, above = above + 1, None
    high = schema.get("maximum")
    most = "" if high is None else f"{high:,}" if high >= 100_000 else f"{high:g}"
    if above is not None:
        return f"{word}, more than {above:g}" + (most and f", up to {most}")
    if low is not None and most:
        return f"{word}, {low:g} to {most}"
    return word if low is None else f"{word}, {low:g} or more"


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    if "$ref" in schema:
        found: Schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
        return {**found, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def default_text(schema: Schema) -> str:
    if "default" not in schema:
        return "-"
    value = schema["default"]
    if value in (None, ""):
        return "-"
    if isinstance(value, list) and not all(isinstance(one, str) for one in value):
        return "built in"
    if isinstance(value, list | dict):
        return f"`{json.dumps(value, ensure_ascii=False)}`"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def tables(
    title: str,
    path: str,
    schema: Schema,
    words: Mapping[str, str],
    *,
    level: int = 2,
    definitions: Schema | None = None,
) -> Iterator[str]:
    """A heading and a table for an object, then the same for each object in it."""
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    inner = []
    rows = []
    required = schema.get("required", ())
    for key, raw in sorted(schema.get("properties", {}).items()):
        value = _resolved(raw, definitions)
        if value.get("properties"):
            inner.append((key, value))
            continue
        default = "required" if key in required else default_text(value)
        meaning = describe(f"{path}.{key}", raw, words)
        kind = type_name(value, definitions, key)
        rows.append(f"| `{key}` | {kind} | {default} | {meaning} |\n")
        below = _resolved(_element(value), definitions)
        if below.get("properties"):
            suffix = "[]" if value.get("type") == "array" else ".<key>"
            inner.append((f"{key}{suffix}", below))
    text = prose(schema.get("description", ""))
    if text.strip("`.") == title:
        text = ""
    if text or rows:
        yield f"\n{'#' * level} `{title}`\n"
    if text:
        yield f"\n{text}\n"
    if rows:
        yield "\n| key | type | default | meaning |\n|---|---|---|---|\n"
        yield from rows
    for key, value in inner:
        yield from tables(
            f"{title}.{key}",
            f"{path}.{key}",
            value,
            words,
            level=min(level + 1, 4),
            definitions=definitions,
        )


def _element(schema: Schema) -> Schema:
    named = next(iter(schema.get("patternProperties", {}).values()), None)
    found = schema.get("items") or schema.get("additionalProperties") or named
    return found if isinstance(found, dict) else {}


def prose(text: str) -> str:
    """A docstring as Markdown."""
    return re.sub(r":\w+:`~?", "`", inspect.cleandoc(text).replace("``", "`"))


def configuration(registry: Registry, words: Mapping[str, str]) -> str:
    parts = [words["pages.configuration"]]
    for name, model in (("gateway", GatewaySection), ("plugins", PluginsSection)):
        parts += tables(name, name, model.model_json_schema(), words)
    secrets = SecretsSection.model_json_schema()
    del secrets["properties"]["providers"]
    parts += ["\n", words["pages.secrets"], *tables("secrets", "secrets", secrets, words)]
    for name, provider in (("env", EnvProvider), ("file", FileProvider), ("exec", ExecProvider)):
        title = f"secrets.providers.<name> ({name})"
        parts += tables(title, f"secrets.{name}", provider.model_json_schema(), words, level=3)
    phone = VoiceCallConfig.model_json_schema()
    # Filled from the blocks of carriers, which are at the same level as the other keys.
    del phone["properties"]["carriers"]
    parts += ["\n", words["pages.agents"], "\n", words["pages.sections"]]
    parts += tables(PHONE, "phone", phone, words)
    parts.append("\n## Blocks of providers\n")
    for info, where in _configured(registry):
        assert info.config_model is not None
        parts += tables(
            where, f"{info.kind}.{info.id}", info.config_model().model_json_schema(), words, level=3
        )
        of_phone = {f"{PHONE}.{key}": variable for key, variable in info.environ.items()}
        for key, variable in {**info.secrets, **of_phone}.items():
            parts.append(f"\n`{key}` may also come from the environment: `{variable}`.\n")
    return "".join(parts)


def _configured(registry: Registry) -> Iterator[tuple[ProviderInfo, str]]:
    """Our own providers that can be configured, with the places of their blocks."""
    places: dict[ProviderKind, str] = {
        ProviderKind.TELEPHONY: f"{PHONE}.{{}}",
        ProviderKind.TRANSCRIPTION: f"{PHONE}.streaming.providers.{{}}",
        ProviderKind.TTS: "tts.providers.{}",
        ProviderKind.REALTIME: f"{PHONE}.realtime.providers.{{}}",
        ProviderKind.AGENT: "agents.backends.{}",
        ProviderKind.STORE: f"{PHONE}.store ({{}})",
    }
    for kind, place in places.items():
        for found in registry.found(kind.group):
            info = registry.load(kind, found.id)
            if info.config_model is not None:
                yield info, place.format(info.id)


# --- commands --------------------------------------------------------------------------------


def commands(registry: Registry, words: Mapping[str, str]) -> str:
    root: Any = typer.main.get_command(build_app(registry))
    parts = [words["pages.commands"]]
    parts += _command_pages(root, "voicecall", None)
    return "".join(parts)


def _command_pages(command: Any, name: str, parent: Any) -> Iterator[str]:
    context = command.context_class(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH
    )
    with context:
        text = command.get_help(context)
    yield f"\n## {context.command_path}\n\n```text\n"
    yield "".join(f"{line.rstrip()}\n" for line in text.strip().splitlines())
    yield "```\n"
    for key in sorted(getattr(command, "commands", {})):
        yield from _command_pages(command.commands[key], key, context)


# --- hooks and errors ------------------------------------------------------------------------


def hooks(registry: Registry, words: Mapping[str, str]) -> str:
    parts = [words["pages.hooks"]]
    for kind, name in HOOK_OF_KIND.items():
        doc = inspect.getdoc(getattr(hookspecs, name))
        parts.append(f"| `{kind.group}` | `{name}` | {doc} |\n")
    parts.append("| `voicecall.gateway` | all others | Gateway plugins. |\n")
    run = "`run(port=, host=, auth_token=, tts=)`"
    parts.append(f"| `voicecall.emulator` | none: a callable {run} | `voicecall emulate <id>`. |\n")
    parts += ["\n", words["pages.emulators"]]
    parts.append(
        "\n## All hooks\n\n`ProviderInfo` is in `voicecall`, `CallRecord` in `voicecall.model`,"
        " `CallEvent` in\n`voicecall.events`, all other types are in `voicecall.hosting`.\n"
    )
    for name, function in vars(hookspecs).items():
        if name.startswith("voicecall_"):
            signature = str(inspect.signature(function)).replace("'", "")
            parts.append(f"\n```python\ndef {name}{signature}\n```\n\n")
            parts.append(f"{prose(inspect.getdoc(function) or '')}\n")
    return "".join(parts)


def error_tree(registry: Registry, words: Mapping[str, str]) -> str:
    head, _, drawn = (inspect.getdoc(errors) or "").partition("::\n")
    parts = ["# Errors\n\n", prose(head), "\n\n```text\n", inspect.cleandoc(drawn), "\n```\n"]
    for name in errors.__all__:
        one = getattr(errors, name)
        parts.append(f"\n## {name}\n\n{prose(inspect.getdoc(one) or '')}\n")
        if "__init__" in vars(one):
            signature = str(inspect.signature(one)).replace("'", "").removesuffix(" -> None")
            parts.append(f"\n```text\n{name}{signature}\n```\n")
    return "".join(parts)


# --- modules ---------------------------------------------------------------------------------


def modules(registry: Registry, words: Mapping[str, str]) -> str:
    """The modules are not imported: some need packages that a default install lacks."""
    parts = [words["pages.modules"]]
    for folder in packages().values():
        [package] = (path.parent for path in folder.glob("src/*/__init__.py"))
        parts.append(f"\n## `{package.name}` (`{folder.relative_to(ROOT).as_posix()}/`)\n\n")
        told = {_dotted(path, package): _told(path) for path in sorted(package.rglob("*.py"))}
        parts.append(f"{told.pop('')}\n\n| module | what it is for |\n|---|---|\n")
        parts += (f"| `{name}` | {text} |\n" for name, text in sorted(told.items()))
    return "".join(parts)


def _dotted(path: Path, package: Path) -> str:
    """The module's name within its package; empty for the package itself."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _told(path: Path) -> str:
    """The first paragraph of a module's docstring. Raises ValueError if there is none."""
    told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not told:
        raise ValueError(f"{path.relative_to(ROOT)} has no docstring that says what it is for")
    return " ".join(prose(told).partition("\n\n")[0].split()).replace("|", "\\|")


# --- writing ---------------------------------------------------------------------------------


def packages() -> dict[str, Path]:
    """The directories of our distributions, by name."""
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
    manifests = [
        path
        for member in workspace["workspace"]["members"]
        for path in sorted(ROOT.glob(f"{member}/pyproject.toml"))
    ]
    return {
        tomllib.loads(path.read_text(encoding="utf-8"))["project"]["name"]: path.parent
        for path in manifests
    }


def own_registry() -> Registry:
    """A registry of our own packages only: others may be installed, such as the tutorial's."""
    ours = packages()
    return Registry(entries=[one for one in entry_points() if one.dist and one.dist.name in ours])


PAGES: Mapping[str, Callable[[Registry, Mapping[str, str]], str]] = {
    "configuration.md": configuration,
    "commands.md": commands,
    "hooks.md": hooks,
    "errors.md": error_tree,
    "modules.md": modules,
}


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            yield from flat(value, path)
        else:
            yield path, str(value)


class _Used(dict[str, str]):
    """Remembers which descriptions were used."""

    def __init__(self, words: Mapping[str, str]) -> None:
        super().__init__(words)
        self.used: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.used.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> str:
        self.used.add(key)
        return super().__getitem__(key)


def pages() -> dict[str, str]:
    """The text of each generated page, by name. Raises ValueError for keys without a description
    and for descriptions without a key."""
    text = (DOCS / "descriptions.toml").read_text(encoding="utf-8")
    words = _Used(dict(flat(tomllib.loads(text))))
    registry = own_registry()
    made = {name: f"{NOTE}\n{make(registry, words).strip()}\n" for name, make in PAGES.items()}
    missing = re.findall(r"\| \?(\S+) \|", made["configuration.md"])
    if missing:
        raise ValueError(f"docs/descriptions.toml does not describe {', '.join(missing)}")
    stale = sorted(set(words) - words.used)
    if stale:
        raise ValueError(
            f"docs/descriptions.toml describes keys that do not exist: {', '.join(stale)}"
        )
    return made


def main(arguments: list[str]) -> int:
    differing = []
    for name, text in pages().items():
        file = DOCS / "reference" / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            differing.append(name)
            if "--check" not in arguments:
                file.write_text(text, encoding="utf-8")
    verb = "out of date, run make docs" if "--check" in arguments else "written"
    for name in differing:
        sys.stdout.write(f"docs/reference/{name}: {verb}\n")
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
