"""What the built distributions contain besides code, and what they require."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted([*ROOT.glob("core/pyproject.toml"), *ROOT.glob("*/*/pyproject.toml")])
ALL = [ROOT / "pyproject.toml", *MANIFESTS]


def project(manifest: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(manifest.read_text(encoding="utf-8"))["project"]
    return found


def built(folder: Path, target: str, directory: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(directory)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    [file] = directory.iterdir()
    return file


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_each_distribution_brings_the_text_of_its_licence(manifest: Path) -> None:
    text = manifest.with_name("LICENSE").read_text(encoding="utf-8")
    if project(manifest)["license"] == "Apache-2.0":
        assert text == (ROOT / "LICENSE").read_text(encoding="utf-8")
    else:
        assert "GNU GENERAL PUBLIC LICENSE" in text


@pytest.mark.parametrize("manifest", ALL, ids=lambda path: path.parent.name)
def test_each_distribution_says_where_it_runs(manifest: Path) -> None:
    """Signals, file locks and the event loop need Linux or macOS."""
    where = ["Operating System :: MacOS", "Operating System :: POSIX :: Linux"]
    assert [one for one in project(manifest)["classifiers"] if "System" in one] == where
    assert "win32" not in manifest.read_text(encoding="utf-8")


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_each_distribution_is_typed_and_described(manifest: Path) -> None:
    assert manifest.with_name("README.md").read_text(encoding="utf-8").startswith("# ")
    [package] = [path for path in (manifest.parent / "src").iterdir() if path.is_dir()]
    assert (package / "py.typed").exists()
    described = project(manifest)
    assert described["description"]


@pytest.mark.parametrize("manifest", ALL, ids=lambda path: path.parent.name)
def test_the_text_for_a_package_index_has_no_links_into_the_sources(manifest: Path) -> None:
    readme = project(manifest)["readme"]
    inline = isinstance(readme, dict)
    text = readme["text"] if inline else manifest.with_name(readme).read_text("utf-8")
    assert len(text) > 100
    assert [link for link in re.findall(r"\]\(([^)]*)\)", text) if "://" not in link] == []
    for name in re.findall(r"`((?:docs/)?[\w/-]+\.md)`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_each_wheel_holds_every_file_of_its_package(manifest: Path) -> None:
    """Also files that are not code, such as py.typed, the demo's configuration and the skill."""
    source = manifest.parent / "src"
    there = {
        path.relative_to(source).as_posix()
        for package in source.glob("voicecall*")
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    files = WheelBuilder(str(manifest.parent)).recurse_included_files()
    assert {file.distribution_path for file in files} == there


def test_the_command_belongs_to_the_distribution_that_people_install() -> None:
    """``uv tool install`` and ``pipx install`` do not offer commands of dependencies, and if two
    distributions had the command, removing one would remove it for both."""
    commands = {project(one)["name"]: project(one).get("scripts", {}) for one in ALL}
    offering = {name: scripts for name, scripts in commands.items() if scripts}
    assert offering == {"voicecall": {"voicecall": "voicecall_gateway.cli:main"}}


def test_the_sdist_without_code_holds_none(tmp_path: Path) -> None:
    with tarfile.open(built(ROOT, "sdist", tmp_path)) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names - {".gitignore"} == {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}


def versions(manifest: Path) -> set[str]:
    """The package's own version, and those that it requires of the others (empty for any)."""
    described = project(manifest)
    wanted = list(described["dependencies"])
    for extra in described.get("optional-dependencies", {}).values():
        wanted += extra
    ours = [re.match(r"voicecall-[\w-]+(?:\[.*\])?(.*)", one) for one in wanted]
    return {described["version"], *(one[1].removeprefix("==") for one in ours if one)}


@pytest.mark.parametrize("manifest", ALL, ids=lambda path: path.parent.name)
def test_packages_ask_for_each_other_in_the_version_that_they_have(manifest: Path) -> None:
    """They are released together, and no other combination is tested."""
    assert versions(manifest) == {project(ROOT / "pyproject.toml")["version"]}


def test_a_new_version_is_written_everywhere(tmp_path: Path) -> None:
    copies = [tmp_path / manifest.relative_to(ROOT) for manifest in ALL]
    for manifest, copy in zip(ALL, copies, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(manifest, copy)
    shutil.copy(ROOT / "Makefile", tmp_path)
    # Not as a child of the make that runs the tests.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "version", "NEW=7.0.0rc1"]
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    for manifest, copy in zip(ALL, copies, strict=True):
        assert versions(copy) == {"7.0.0rc1"}
        old = project(ROOT / "pyproject.toml")["version"]
        written = copy.read_text(encoding="utf-8")
        assert written.replace("7.0.0rc1", old) == manifest.read_text(encoding="utf-8")
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {
        tmp_path / "Makefile",
        *copies,
    }


def test_the_readme_names_every_extra() -> None:
    install = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Install\n")[2]
    table = install.partition("\n## ")[0]
    extras = project(ROOT / "pyproject.toml")["optional-dependencies"]
    for text in (table, project(ROOT / "pyproject.toml")["readme"]["text"]):
        assert extras.keys() <= set(re.findall(r"`(?:voicecall\[)?([\w-]+)\]?`", text))
