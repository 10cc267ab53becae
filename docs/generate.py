"""Writes the pages of docs/reference that follow from the code.

    python docs/generate.py           write them
    python docs/generate.py --check   exit 1 when one is not as the code says

Descriptions of configuration keys stand at the key itself (``Field(description=...)``) or in
docs/descriptions.toml.
"""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from voicecall import errors, hookspecs
from voicecall.hooks import HOOK_OF_KIND
from voicecall.providers import ProviderInfo, ProviderKind
from voicecall.registry import Registry
from voicecall_calls.config import VoiceCallConfig
from voicecall_gateway.cli import build_app
from voicecall_gateway.secretrefs import EnvProvider, ExecProvider, FileProvider, SecretsSection
from voicecall_gateway.sections import GatewaySection, PluginsSection

DOCS = Path(__file__).parent
PHONE = "plugins.entries.voice-call.config"
NOTE = "<!-- Written by docs/generate.py: change the code or docs/descriptions.toml instead. -->\n"
WIDTH = 96

Schema = Mapping[str, Any]


# --- configuration ---------------------------------------------------------------------------

CONFIGURATION = """# Configuration

One JSON5 file (or TOML with the same tree): `--config`, else `VOICECALL_CONFIG`, else
`~/.voicecall/config.json5`. State (database, logs, token) goes to `VOICECALL_STATE_DIR`, else
`~/.voicecall`. `${NAME}` in a text is replaced by the environment variable; `$${NAME}` stands for
itself. An unknown key is an error that suggests the nearest known one, except in the sections that
programs share ([below](#tts-and-session)); top-level sections of other programs are ignored with a
note. `voicecall config check` reads the file and reports what is wrong.

Times are milliseconds unless the key says otherwise. A default of `-` means: not set.
"""

AGENTS = """## `agents`

| key | type | default | meaning |
|---|---|---|---|
| `defaults.backend` | text | first configured one | agent backend of every agent |
| `list[].id` | text | `main` | name of an agent |
| `list[].default` | true or false | false | answers unless `agentId` names one; else the first |
| `list[].backend` | text | `defaults.backend` | this agent's backend |
| `defaults.model`, `list[].model` | text | - | model, where the backend can choose |
| `defaults.model.primary`, `.fallbacks` | text; list | - | the same; what takes over in turn |
| `defaults.tools.allow`, `list[].tools.allow` | list of text | all | what the agent may use |
| `defaults.workspace`, `list[].workspace` | text | - | files for `realtime.agentContext` |
| `list[].identity.name` | text | - | how the agent is called, where no instructions say it |
| `list[].identity` | object | {} | `emoji`, `vibe`, `theme`, `creature`, for `agentContext` |
| `backends.<id>` | object | {} | configuration of a backend, below |
"""

SECTIONS = f"""## `tts` and `session`

`tts` takes the keys of [the phone's own `tts`](#{PHONE.replace(".", "")}tts),
whose values take precedence. `session.scope` counts for `sessionScope: "main"`: with `global` all
agents share one history.

`agents`, `tts` and `session` may have keys of other programs, which are ignored. In the first two,
one that looks like a slip is named by `voicecall config check` and in the log.
"""

SECRETS = """## Secrets

A credential may be a text, a text with `${NAME}` in it, or a reference:
`{source: "env", provider: "default", id: "NAME"}`. `source` is `env`, `file` or `exec`; `provider`
is a name in `secrets.providers` (if absent, the one in `secrets.defaults`).
"""


def describe(path: str, schema: Schema, words: Mapping[str, str]) -> str:
    """What a key means, on one line; ``?`` and the path where nobody says it."""
    text = words.get(path) or schema.get("description") or f"?{path}"
    return " ".join(str(text).split()).replace("|", "\\|")


def type_name(schema: Schema, definitions: Schema) -> str:
    """A JSON schema in a few words."""
    schema = _resolved(schema, definitions)
    if "anyOf" in schema:
        parts = [type_name(one, definitions) for one in schema["anyOf"]]
        return " or ".join(part for part in parts if part != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any")
    if kind in ("integer", "number"):
        return _number(schema, "whole number" if kind == "integer" else "number")
    if kind == "array":
        return f"list of {type_name(schema.get('items', {}), definitions)}"
    return {"string": "text", "boolean": "true or false"}.get(kind, str(kind))


def _number(schema: Schema, word: str) -> str:
    low = schema.get("minimum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + 1
    high = schema.get("maximum")
    if low is not None and high is not None:
        return f"{word}, {low:g} to {high:g}"
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
    if isinstance(value, list | dict):
        return "`[]`" if value == [] else "`{}`" if value == {} else "see below"
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
    yield f"\n{'#' * level} `{title}`\n\n"
    text = prose(schema.get("description", ""))
    if text.strip("`.") != title:
        yield f"{text}\n\n"
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
        rows.append(f"| `{key}` | {type_name(value, definitions)} | {default} | {meaning} |\n")
        below = _resolved(_element(value), definitions)
        if below.get("properties"):
            suffix = "[]" if value.get("type") == "array" else ".<key>"
            inner.append((f"{key}{suffix}", below))
    if rows:
        yield "| key | type | default | meaning |\n|---|---|---|---|\n"
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
    return inspect.cleandoc(text).replace("``", "`").replace(":exc:", "")


def configuration(registry: Registry, words: Mapping[str, str]) -> str:
    parts = [CONFIGURATION]
    for name, model in (("gateway", GatewaySection), ("plugins", PluginsSection)):
        parts += tables(name, name, model.model_json_schema(), words)
    secrets = SecretsSection.model_json_schema()
    del secrets["properties"]["providers"]
    parts += ["\n", SECRETS, *tables("secrets", "secrets", secrets, words, level=3)]
    for name, provider in (("env", EnvProvider), ("file", FileProvider), ("exec", ExecProvider)):
        title = f"secrets.providers.<name> ({name})"
        parts += tables(title, f"secrets.{name}", provider.model_json_schema(), words, level=3)
    phone = VoiceCallConfig.model_json_schema()
    # Filled from the blocks of carriers, which stand beside the other keys.
    del phone["properties"]["carriers"]
    parts += ["\n", AGENTS, "\n", SECTIONS]
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
    """Our own providers that take configuration, with the place of their block."""
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
            if not found.source.startswith("voicecall-"):
                continue
            info = registry.load(kind, found.id)
            if info.config_model is not None:
                yield info, place.format(info.id)


# --- commands --------------------------------------------------------------------------------

EXIT_STATUS = """
| exit status | when |
|---|---|
| 0 | done; `call` and `start`: the call is recorded, whatever becomes of it (`smoke` waits) |
| 1 | refused, failed, or a report that finds something wrong (`setup`, `config check`, `doctor`, \
`gateway status`, `providers list --check`) |
| 2 | an invalid command line, or a command group without a command |
| 130 | interrupted by Ctrl-C; `gateway run` drains and exits with 0, or with 1 after a second \
one; `emulate` exits with 0 |
| 129, 143 | a command that serves its call was stopped by SIGHUP or SIGTERM |

A refusal is one sentence on stderr, and nothing on stdout, also with `--json`; reports are printed
as usual. `status` of an unknown call exits with 0.

The commands of all installed plugins are listed, since `--help` does not read the configuration;
those of a plugin that is denied refuse to act.
"""


def commands(registry: Registry, words: Mapping[str, str]) -> str:
    root: Any = typer.main.get_command(build_app(registry))
    parts = ["# Commands\n\n`voicecall <command> --help` prints the same.\n", EXIT_STATUS]
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

HOOKS = """# Hooks

A plugin is a module with functions marked `@voicecall.hookimpl`, named in an entry-point group.
Hooks are synchronous, and an `async` one is refused; anything that lives longer is an object that a
hook returns. Each plugin is asked alone, so hooks cannot be wrappers.

## Entry-point groups

The entry's name is the id used in the configuration, its value the module.

| group | hook | for |
|---|---|---|
"""

EMULATOR = """
`run` of an emulator serves until SIGINT or SIGTERM, and prints what a configuration needs. `port` 0
means any free one, `auth_token` and `tts` may be None. It raises `OSError` if it cannot listen
there, and one of [our errors](errors.md) for everything else that the user can change.
"""


def hooks(registry: Registry, words: Mapping[str, str]) -> str:
    parts = [HOOKS]
    for kind, name in HOOK_OF_KIND.items():
        doc = inspect.getdoc(getattr(hookspecs, name))
        parts.append(f"| `{kind.group}` | `{name}` | {doc} |\n")
    parts.append("| `voicecall.gateway` | all others | Gateway plugins. |\n")
    run = "`run(port=, host=, auth_token=, tts=)`"
    parts.append(f"| `voicecall.emulator` | none: a callable {run} | `voicecall emulate <id>`. |\n")
    parts.append(EMULATOR)
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


# --- writing ---------------------------------------------------------------------------------

PAGES: Mapping[str, Callable[[Registry, Mapping[str, str]], str]] = {
    "configuration.md": configuration,
    "commands.md": commands,
    "hooks.md": hooks,
    "errors.md": error_tree,
}


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            yield from flat(value, path)
        else:
            yield path, str(value)


class _Used(dict[str, str]):
    """Remembers which descriptions were asked for."""

    def __init__(self, words: Mapping[str, str]) -> None:
        super().__init__(words)
        self.used: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.used.add(key)
        return super().get(key, default)


def pages() -> dict[str, str]:
    """Name -> text of each generated page. Raises ValueError for keys that are not described and
    for descriptions without a key."""
    text = (DOCS / "descriptions.toml").read_text(encoding="utf-8")
    words = _Used(dict(flat(tomllib.loads(text))))
    registry = Registry()
    made = {name: f"{NOTE}\n{make(registry, words).strip()}\n" for name, make in PAGES.items()}
    missing = re.findall(r"\| \?(\S+) \|", made["configuration.md"])
    if missing:
        raise ValueError(f"docs/descriptions.toml does not describe {', '.join(missing)}")
    stale = sorted(set(words) - words.used)
    if stale:
        raise ValueError(f"docs/descriptions.toml describes what is not there: {', '.join(stale)}")
    return made


def main(arguments: list[str]) -> int:
    differing = []
    for name, text in pages().items():
        file = DOCS / "reference" / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            differing.append(name)
            if "--check" not in arguments:
                file.write_text(text, encoding="utf-8")
    verb = "not as the code says, run make docs" if "--check" in arguments else "written"
    for name in differing:
        sys.stdout.write(f"docs/reference/{name}: {verb}\n")
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
