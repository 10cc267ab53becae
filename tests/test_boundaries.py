"""Rules for sources and tests: imports, vendor names, dependencies, length, categories."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]
NEUTRAL = ("core/src", "plugins/gateway/src", "plugins/calls/src")
VENDORS = re.compile(
    r"twilio|telnyx|plivo|openai|deepgram|elevenlabs|gemini|google|mistral|\bxai\b|pocketsphinx"
    r"|espeak",
    re.IGNORECASE,
)
ALLOWED = {
    # An example in the docstring of LegacyKey.
    ("core/src/voicecall/providers.py", "twilio"),
}

CATEGORIES = {"unit", "contract", "integration", "e2e", "bench", "soak", "live"}


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_imports_point_one_way() -> None:
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_core_gateway_and_calls_name_no_vendor() -> None:
    found = {
        (name, match.group().lower())
        for name, text in sources(*NEUTRAL)
        for match in VENDORS.finditer(text)
    }
    assert found <= ALLOWED


def test_the_search_for_vendors_reads_all_three_packages() -> None:
    names = [name for name, _ in sources(*NEUTRAL)]
    for folder in NEUTRAL:
        assert any(name.startswith(folder) for name in names)
    assert VENDORS.search("import Twilio")


VENDORED = ("providers", "stt", "tts", "realtime")
"""Folders of packages that no other package of ours imports. A folder may be empty."""
MEMBERS = ["core", "plugins/*", *(f"{folder}/*" for folder in VENDORED)]
PACKAGES = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for pattern in MEMBERS
    for path in ROOT.glob(f"{pattern}/pyproject.toml")
)


def project(package: str) -> dict[str, Any]:
    file = ROOT / package / "pyproject.toml"
    found: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    return found


HELD = {
    source.name: package
    for package in PACKAGES
    for source in (ROOT / package / "src").glob("voicecall*")
}
"""Package folder by import name."""
OURS = {name: [project(package)["name"]] for name, package in HELD.items()}
"""Distributions by import name; the metadata of editable installs does not list their modules."""
COME_WITH_OTHERS = {"pydantic-core": "pydantic", "fastmcp-slim": "pydantic-ai-slim"}
"""Distributions that we import but leave to another one to require, in the version it needs."""
IMPORTED_BY_OTHERS = {"httptools": "uvicorn.protocols.http.httptools_impl"}
"""Distributions that we declare without importing them, by the module of another distribution that
needs them as an optional dependency."""


def test_every_tool_reads_every_package() -> None:
    """Whatever its folder, including folders that have no package yet."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tools["uv"]["workspace"]["members"] == MEMBERS
    assert tools["uv"]["sources"].keys() == {name for names in OURS.values() for name in names}
    assert tools["ruff"]["src"] == [*(f"{member}/src" for member in MEMBERS), "tests"]
    paths = tools["mypy"]["mypy_path"].split(":")
    assert sorted(paths) == [f"{package}/src" for package in PACKAGES]
    assert sorted(tools["importlinter"]["root_packages"]) == sorted(HELD)


def test_every_package_of_a_vendor_is_kept_apart() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contracts = {one["name"]: one for one in tools["importlinter"]["contracts"]}
    vendored = {name for name, package in HELD.items() if package.split("/")[0] in VENDORED}
    assert len(vendored) > 3
    assert set(contracts["core knows nobody"]["forbidden_modules"]) == HELD.keys() - {"voicecall"}
    inwards = contracts["providers and agents import core only"]
    assert vendored <= set(inwards["source_modules"])
    assert vendored <= set(contracts["providers do not know each other"]["modules"])
    neutral = contracts["gateway and calls name no provider, and the gateway not its plugins"]
    assert vendored <= set(neutral["forbidden_modules"])


def test_modules_stay_short_enough_to_be_read() -> None:
    folders = [f"{package}/src" for package in PACKAGES]
    long = [name for name, text in sources(*folders, "docs", ".ci") if text.count("\n") > 400]
    assert long == []


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Top-level names of all modules that are imported from other packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def plain(requirement: str) -> str:
    """The normalised name in ``requirement``."""
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_declares_what_it_imports_and_nothing_else(package: str) -> None:
    described = project(package)
    wanted = [described["name"], *described["dependencies"]]
    for extra in described.get("optional-dependencies", {}).values():
        wanted += extra
    declared = {plain(requirement) for requirement in wanted}
    texts = [text for _, text in sources(f"{package}/src")]
    imported = {m for text in texts for m in imports_of(ast.parse(text))}
    providers = {**packages_distributions(), **OURS}
    missing = {}
    used = {described["name"]}
    for module in imported - set(sys.stdlib_module_names):
        names = {plain(name) for name in providers.get(module, ())}
        names |= {COME_WITH_OTHERS[name] for name in names & set(COME_WITH_OTHERS)}
        used |= names
        if not names & declared:
            missing[module] = names
    assert missing == {}
    code = "".join(texts)
    used |= {name for name, module in IMPORTED_BY_OTHERS.items() if f"from {module} " in code}
    assert declared - used == set()


def marks_of(tree: ast.Module) -> set[str]:
    """Names ``pytest.mark.<name>`` assigned to a module's ``pytestmark``."""
    return {
        node.attr
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in statement.targets)
        for node in ast.walk(statement.value)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "mark"
    }


def test_every_test_module_has_a_category() -> None:
    modules = [(n, t) for n, t in sources("tests") if n.rsplit("/", 1)[1].startswith("test_")]
    assert len(modules) > 10
    without = [name for name, text in modules if not marks_of(ast.parse(text)) & CATEGORIES]
    assert without == []


def test_test_modules_have_names_of_their_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


NEEDS = {"live", "postgres"}
"""Marks for what a machine must have. Only tests with one of them may be skipped."""

SKIPPING_FIXTURES = {"tests/plugins/calls/conftest.py": ("postgres", "database_url")}
"""Files with fixtures that skip if something is not installed: the mark that modules need which use
them, and a word by which these modules are recognised."""


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    wanted = re.compile(r"pytest\.(?:mark\.)?(?:skip|skipif|xfail|importorskip)\b")
    here = Path(__file__).relative_to(ROOT).as_posix()
    found = [
        name
        for name, text in sources("tests")
        if name not in (here, *SKIPPING_FIXTURES)
        and wanted.search(text)
        and not marks_of(ast.parse(text)) & NEEDS
    ]
    assert found == []


@pytest.mark.parametrize("file", SKIPPING_FIXTURES)
def test_fixtures_that_skip_are_used_by_marked_modules_only(file: str) -> None:
    mark, word = SKIPPING_FIXTURES[file]
    assert mark in NEEDS
    users = [
        (name, marks_of(ast.parse(text)))
        for name, text in sources(Path(file).parent.as_posix())
        if Path(name).name.startswith("test_") and re.search(rf"\b({word}|{mark}_server)\b", text)
    ]
    assert users
    assert [name for name, marks in users if mark not in marks] == []
