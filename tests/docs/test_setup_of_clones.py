"""When ``make setup`` makes or remakes a clone's environment, and when it keeps it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
MADE = "-m venv --clear .venv\n"
MADE_BY = 'exec ./python "$@"'


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder whose name a shell would split, with the files that ``make`` looks at first and a
    Python whose environments have commands that do nothing."""
    clone = tmp_path / "a größer clone"
    (clone / ".ci").mkdir(parents=True)
    for name in ("Makefile", ".ci/editable.py", "constraints.txt"):
        shutil.copy(ROOT / name, clone / name)
    script(clone / "idle", "exit 0")
    script(
        clone / "python",
        'echo "$@" >> made',
        "rm -rf .venv && mkdir -p .venv/bin",
        "cp idle .venv/bin/python && cp idle .venv/bin/uv",
    )
    return clone


def script(path: Path, *lines: str) -> None:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)


def setup(clone: Path, python: str = "./python") -> subprocess.CompletedProcess[str]:
    # Not as a child of the make that runs the tests.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", "setup", f"PYTHON={python}"],
        cwd=clone,
        env=env,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def made(clone: Path) -> str:
    return (clone / "made").read_text()


def test_an_environment_is_made_once_and_filled_again_for_other_versions(clone: Path) -> None:
    assert setup(clone).returncode == 0
    assert "Nothing to be done" in setup(clone).stdout
    changed = clone / "constraints.txt"
    installed = next((clone / ".venv").glob(".installed*")).stat()
    os.utime(changed, (installed.st_atime + 10, installed.st_mtime + 10))
    assert "uv pip install" in setup(clone).stdout
    assert made(clone) == MADE


def test_a_clone_that_was_moved_or_copied_gets_an_environment_of_its_own(clone: Path) -> None:
    assert setup(clone).returncode == 0
    copy = clone.with_name("copy")
    shutil.copytree(clone, copy)
    assert setup(copy).returncode == 0
    assert made(copy) == MADE * 2
    assert "Nothing to be done" in setup(copy).stdout
    assert made(clone) == MADE


def test_an_environment_that_lost_its_python_or_pip_is_made_anew(clone: Path) -> None:
    assert setup(clone).returncode == 0
    (clone / ".venv" / "bin" / "python").unlink()
    assert setup(clone).returncode == 0
    script(clone / ".venv" / "bin" / "python", "echo Traceback >&2", "exit 1")
    again = setup(clone)
    assert again.returncode == 0
    assert "Traceback" not in again.stderr
    assert made(clone) == MADE * 3


def test_an_environment_that_was_not_made_to_its_end_is_made_anew(clone: Path) -> None:
    """As without Debian's ensurepip: the failure comes after Python was linked."""
    script(
        clone / "half",
        'echo "$@" >> made',
        "mkdir -p .venv/bin && ln -s /nowhere/python .venv/bin/python",
        "exit 1",
    )
    assert setup(clone, "./half").returncode == 2
    assert setup(clone).returncode == 0
    assert made(clone) == MADE * 2


@pytest.mark.parametrize("taken", ["python3", "python3.12", "python3.14"])
def test_pythons_with_wheels_for_everything_come_first(
    clone: Path, tmp_path: Path, taken: str
) -> None:
    """PocketSphinx must be compiled for newer ones: they are used only if there is no other."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cksum", "cp", "cut", "mkdir", "rm", "touch"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    for name in ("python3", "python3.14", taken):
        asked = 0 if name == taken != "python3.14" else 1
        script(tools / name, f'test "$1" != -c || exit {asked}', f"echo {name} >> taken", MADE_BY)
    make = str(shutil.which("make"))
    done = subprocess.run([make, "setup"], cwd=clone, env={"PATH": str(tools)}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (clone / "taken").read_text() == f"{taken}\n"
    assert made(clone) == MADE


def test_without_a_python_that_will_do_it_is_asked_for(clone: Path) -> None:
    asked = setup(clone, "")
    assert asked.returncode == 2
    assert "Python 3.11, 3.12, 3.13 or 3.14 is needed; name it: make PYTHON=..." in asked.stdout


def test_a_package_is_found_in_whatever_folder_it_is(clone: Path) -> None:
    """By every command: mypy reads the sources of the packages that are installed."""
    folders = ("plugins", "providers", "stt", "tts", "realtime")
    for folder in folders:
        (clone / folder / "new").mkdir(parents=True)
        (clone / folder / "new" / "pyproject.toml").touch()
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    read = subprocess.run(
        ["make", "-pn", "help"], cwd=clone, env=env, capture_output=True, text=True, check=True
    )
    [found] = re.findall(r"^SOURCES := (.*)$", read.stdout, re.MULTILINE)
    assert found.split() == [f"{folder}/new/src" for folder in folders]
