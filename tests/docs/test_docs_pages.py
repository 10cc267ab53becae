"""The documentation matches the code: generated pages, links, configuration, commands, RPC."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT, PyCF_ONLY_AST
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import json5
import pytest
import typer

from voicecall import ProviderKind
from voicecall.configuring import validate
from voicecall.registry import Registry
from voicecall.seam import SystemSeam
from voicecall_calls.config import CONFIG_PATH, PLUGIN_ID, VoiceCallConfig
from voicecall_calls.rpc import PARAMETERS, PhoneRpc
from voicecall_calls.store.tables import metadata
from voicecall_calls.wiring import resolve
from voicecall_gateway.cli import build_app
from voicecall_gateway.config import config_from_tree

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "core/*.md", "*/*/README.md")
    for path in ROOT.glob(pattern)
    if ".venv" not in path.parts
)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *languages: str) -> Iterator[str]:
    for match in FENCE.finditer(path.read_text(encoding="utf-8")):
        if match[2] in languages:
            yield match[3]


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as common renderers make them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_say_what_the_code_says() -> None:
    pages = generator().pages()
    assert len(pages) == 5
    for name, text in pages.items():
        written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        assert written == text, f"docs/reference/{name} is out of date: make docs"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{name_of(page)}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)}: {link}"


def test_types_of_keys_tell_bounds_and_units() -> None:
    describe = generator().type_name
    assert describe({"type": "array", "items": {"type": "string"}}, {}, "x") == "list of strings"
    rate = {"type": "number", "exclusiveMinimum": 0, "maximum": 1000}
    assert describe(rate, {}, "callsPerSecond") == "number, more than 0, up to 1000"
    wait = {"anyOf": [{"type": "integer", "minimum": 100, "maximum": 600_000}, {"type": "null"}]}
    assert describe(wait, {}, "timeoutMs") == "whole number of milliseconds, 100 to 600,000"
    drain = {"type": "number", "minimum": 0}
    assert describe(drain, {}, "drainSeconds") == "number of seconds, 0 or more"
    ports = {"type": "integer", "exclusiveMinimum": 0, "maximum": 65535}
    assert describe(ports, {}, "port") == "whole number, 1 to 65535"


def test_every_variable_is_in_the_reference_of_the_configuration() -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    texts = [path.read_text(encoding="utf-8") for path in ROOT.glob("*/*/src/**/*.py")]
    read = {name for text in texts for name in re.findall(r"VOICECALL_[A-Z_]*[A-Z]", text)}
    assert len(read) >= 6
    assert sorted(name for name in read if name not in page) == []


def test_packages_of_others_do_not_change_the_generated_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tutorials install theirs into the environment of the clone."""
    info = tmp_path / "voicecall_foreign-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: voicecall-foreign\nVersion: 1.0\n")
    group = "[voicecall.gateway]\nforeign = voicecall_foreign\n[voicecall.tts]\nforeign = nowhere\n"
    (info / "entry_points.txt").write_text(group)
    lines = (
        "from voicecall import hookimpl",
        "@hookimpl",
        "def voicecall_commands(app):",
        "    app.command('foreign')(lambda: None)",
    )
    (tmp_path / "voicecall_foreign.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    assert "foreign" in Registry().ids(ProviderKind.TTS)
    assert ("foreign",) in commands()
    for name, text in generator().pages().items():
        written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        assert written == text, name


PACKAGES = sorted(
    path.parent for pattern in ("core", "*/*") for path in ROOT.glob(f"{pattern}/src/*/py.typed")
)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_files_that_a_readme_names_are_there(package: Path) -> None:
    text = FENCE.sub("", (package.parents[1] / "README.md").read_text(encoding="utf-8"))
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", text):
        assert (package / name).exists(), name


def test_the_readme_of_core_names_every_module() -> None:
    text = (ROOT / "core" / "README.md").read_text(encoding="utf-8")
    table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = [name for cell in table for name in re.findall(r"`(\w+)`", cell)]
    there = {path.stem for path in (ROOT / "core/src/voicecall").glob("[!_.]*")} - {"py"}
    assert sorted(named) == sorted(there)


def whole_configurations() -> Iterator[Any]:
    """JSON5 blocks that are whole configuration files."""
    for page in PAGES:
        for number, text in enumerate(blocks(page, "json5")):
            if text.lstrip().startswith("{"):
                yield pytest.param(text, id=f"{name_of(page)}-{number}")


def test_the_unit_confines_the_gateway_to_its_state_directory() -> None:
    [unit] = blocks(ROOT / "docs/how-to/run-as-a-service.md", "ini")
    lines = unit.splitlines()
    for line in ("ProtectSystem=strict", "ProtectHome=tmpfs", "PrivateTmp=yes"):
        assert line in lines
    # What it may write to all the same.
    assert "StateDirectory=voicecall" in lines
    assert "Environment=VOICECALL_STATE_DIR=/var/lib/voicecall" in lines
    assert {"NoNewPrivileges=yes", "SystemCallFilter=@system-service"} < {*lines}
    # Node.js, in which MCP servers may be written, maps memory that it writes and runs.
    assert "MemoryDenyWriteExecute" not in unit


@pytest.mark.parametrize("text", list(whole_configurations()))
def test_configurations_are_valid(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The pages say to export this variable.
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-page")
    [tools] = [
        code
        for code in blocks(ROOT / "docs/how-to/agent-of-your-own.md", "python")
        if code.startswith("# bakery.py\n")
    ]
    (tmp_path / "bakery.py").write_text(tools, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    # The MCP server of a page.
    (tmp_path / "calendar-mcp").touch(mode=0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    loaded = config_from_tree(json5.loads(text), environ={}, source="page")
    assert loaded.notes == ()
    config = validate(VoiceCallConfig, loaded.plugin_values(PLUGIN_ID), CONFIG_PATH)
    tts = dict(loaded.section("tts"))
    if tts.get("provider") == "hum":
        # The tutorial's provider is not installed here; its own test checks this block.
        tts = {"provider": "espeak"}
    wiring = resolve(
        config,
        registry=Registry(),
        environ={},
        agents=loaded.section("agents"),
        tts=tts,
    )
    assert wiring.problems == []
    assert wiring.notes == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_on_the_pages_imports_what_is_there(page: Path) -> None:
    for code in blocks(page, "python") if page.name != "hooks.md" else ():
        tree = compile(code, name_of(page), "exec", PyCF_ONLY_AST | PyCF_ALLOW_TOP_LEVEL_AWAIT)
        imports = [one for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)]
        # The tutorial's provider is not installed here.
        ours = [one for one in imports if "voicecall_hum" not in ast.unparse(one)]
        exec(compile(ast.Module([*ours], []), name_of(page), "exec"), {})


def commands() -> dict[tuple[str, ...], Any]:
    """Path -> command of everything on the command line."""
    root: Any = typer.main.get_command(build_app(Registry()))
    found: dict[tuple[str, ...], Any] = {}

    def walk(path: tuple[str, ...], command: Any) -> None:
        found[path] = command
        for name, inner in getattr(command, "commands", {}).items():
            walk((*path, name), inner)

    walk((), root)
    return found


def command_lines() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        if page.name == "commands.md":
            continue
        text = page.read_text(encoding="utf-8")
        inline = re.findall(r"`([^`]+)`", FENCE.sub("", text))
        typed = [line for block in blocks(page, "sh") for line in block.splitlines()]
        for block in blocks(page, "console"):
            typed += [line for line in block.splitlines() if line.startswith("$ ")]
        for line in [*inline, *typed]:
            words = line.replace("\n", " ").removeprefix("$ ").removeprefix(".venv/bin/")
            if words.startswith("voicecall ") and "<" not in words and "..." not in words:
                yield name_of(page), words.removeprefix("voicecall ")


def test_commands_on_the_pages_exist_with_their_options() -> None:
    known = commands()
    lines = list(command_lines())
    assert len(lines) > 20
    for page, line in lines:
        words = shlex.split(line.partition("#")[0])
        path: tuple[str, ...] = ()
        while words and (*path, words[0]) in known:
            path = (*path, words.pop(0))
        assert path or words[:1] == ["--help"], f"{page}: voicecall {line}"
        options = {name for one in known[path].params for name in one.opts}
        for word in words:
            if word.startswith("-"):
                assert word in {*options, "--help"}, f"{page}: voicecall {line}"


def rows(text: str, heading: str) -> dict[str, str]:
    """First column -> second column of the table below a heading."""
    table = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| ([\w ]+) \|", table, re.MULTILINE))


class _Unused:
    def __call__(self) -> Any:
        raise AssertionError("no method is called here")


def test_rpc_methods_are_all_described_with_their_scope() -> None:
    text = (ROOT / "docs" / "reference" / "rpc.md").read_text(encoding="utf-8")
    methods = PhoneRpc(_Unused(), SystemSeam()).methods()
    scopes = {method.name: method.scope.removeprefix("operator.") for method in methods}
    own = {"gateway.status": "read", "gateway.reload": "admin"}
    assert rows(text, "Methods") == {**own, **scopes}


def test_rpc_parameters_are_all_described() -> None:
    text = (ROOT / "docs" / "reference" / "rpc.md").read_text(encoding="utf-8")
    table = text.partition("## Parameters\n")[2].partition("\n## ")[0]
    described = re.findall(r"^\| `([\w.]+)` \| `(\w+)` \|", table, re.MULTILINE)
    assert len(set(described)) == len(described)
    taken = {(method, name) for method, names in PARAMETERS.items() for name in names}
    assert set(described) == taken


def test_rpc_events_are_all_described() -> None:
    text = (ROOT / "docs" / "reference" / "rpc.md").read_text(encoding="utf-8")
    sources = (ROOT / "plugins" / "calls" / "src").rglob("*.py")
    published = {
        name
        for path in sources
        for name in re.findall(
            r"\bpublish\(\s*\"(voicecall\.[\w.]+)\"", path.read_text(encoding="utf-8")
        )
    }
    assert len(published) >= 4
    assert set(rows(text, "Events")) == {"tick", "shutdown", *published}


def test_every_table_of_the_store_is_described() -> None:
    text = (ROOT / "docs/how-to/read-the-store.md").read_text(encoding="utf-8")
    tables = text[text.index("| table |") :]
    cells = re.findall(r"^\| (`.*?) \|", tables, re.MULTILINE)
    described = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert described == metadata.tables.keys() - {"schema_version"}


def backed_up(cwd: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The result of running the script in the backup guide."""
    [script] = blocks(ROOT / "docs/how-to/back-up.md", "sh")
    program = script.removeprefix("python3 - <<'END'\n").removesuffix("END\n")
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True)


@pytest.mark.parametrize("named", [None, "state of 100% # one?"])
def test_a_backup_holds_every_database(tmp_path: Path, named: str | None) -> None:
    state = tmp_path / (named or ".voicecall")
    kept = {"voice-calls/calls.db", "agents/history.db"}
    for name in kept:
        file = state / name
        file.parent.mkdir(parents=True)
        with closing(sqlite3.connect(file)) as database:
            database.execute(f"CREATE TABLE t AS SELECT '{name}' AS name")
            database.commit()
    environ = {"VOICECALL_STATE_DIR": str(state)} if named else {}
    done = backed_up(tmp_path, {"HOME": str(tmp_path), **environ})
    assert (done.returncode, done.stderr) == (0, "")
    assert {*done.stdout.splitlines()} == {str(state / name) for name in kept}
    copies = sorted(tmp_path.glob("*.db"))
    assert [copy.name for copy in copies] == ["calls-backup.db", "history-backup.db"]
    for copy in copies:
        assert copy.stat().st_mode & 0o077 == 0
        with closing(sqlite3.connect(copy)) as database:
            kept -= {name for (name,) in database.execute("SELECT name FROM t")}
    assert kept == set()


def test_a_backup_that_finds_nothing_says_so(tmp_path: Path) -> None:
    done = backed_up(tmp_path, {"HOME": str(tmp_path)})
    assert done.returncode == 1
    assert str(tmp_path / ".voicecall") in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_readme_opens_with_two_commands() -> None:
    first = next(blocks(ROOT / "README.md", "sh"))
    assert re.findall(r"^\S+ \S+", first, re.MULTILINE) == ["make demo", "make test"]
    before = (ROOT / "README.md").read_text(encoding="utf-8").partition("```sh")[0]
    assert len(before.splitlines()) < 15
