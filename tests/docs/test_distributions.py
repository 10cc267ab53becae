"""What the built distributions hold besides their code."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted([*ROOT.glob("core/pyproject.toml"), *ROOT.glob("*/*/pyproject.toml")])


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


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_each_distribution_is_typed_and_described(manifest: Path) -> None:
    assert manifest.with_name("README.md").read_text(encoding="utf-8").startswith("# ")
    [package] = [path for path in (manifest.parent / "src").iterdir() if path.is_dir()]
    assert (package / "py.typed").exists()
    described = project(manifest)
    assert described["description"]
    assert described["version"] == project(ROOT / "pyproject.toml")["version"]


def test_the_sdist_without_code_holds_none(tmp_path: Path) -> None:
    with tarfile.open(built(ROOT, "sdist", tmp_path)) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names - {".gitignore"} == {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
