"""What ``make setup`` says of an environment that it cannot use."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PYTHON = ".venv/bin/python"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder of a name that shells split, with what ``make`` looks at first."""
    clone = tmp_path / "a größer clone"
    (clone / ".ci").mkdir(parents=True)
    (clone / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", ".ci/editable.py", "constraints.txt"):
        shutil.copy(ROOT / name, clone / name)
    return clone


def script(path: Path, *lines: str) -> None:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Not as a part of the make that runs the tests.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=clone,
        env=env,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_a_clone_that_was_copied_does_not_run_the_code_of_the_original(clone: Path) -> None:
    script(clone / PYTHON, "exit 0")
    stamp = clone / ".venv" / ".installed"
    stamp.write_text(f"{clone}\n")
    assert make(clone, "setup").returncode == 0
    moved = clone.rename(clone.with_name("moved"))
    refused = make(moved, "setup")
    assert refused.returncode == 2
    assert f".venv was made in {clone}: remove it, and run make again\n" in refused.stdout
    # Clones whose folder was not written down yet go on.
    (moved / ".venv" / ".installed").write_text("")
    assert make(moved, "setup").returncode == 0


def test_an_environment_of_another_python_or_without_pip_is_named(clone: Path) -> None:
    script(clone / PYTHON, "echo Traceback >&2", "exit 1")
    refused = make(clone, "setup")
    assert refused.returncode == 2
    assert ".venv has no pip, or another Python than 3.11 to 3.13: remove it" in refused.stdout
    assert "Traceback" not in refused.stderr


def test_an_environment_that_could_not_be_made_is_made_anew(clone: Path) -> None:
    """As where Debian's ensurepip is missing: Python is linked before that is noticed."""
    (clone / PYTHON).symlink_to("/nowhere/python")
    making = clone / "making"
    script(making, 'echo "$@" >> made', f"rm -f {PYTHON}", f"echo > {PYTHON}", "exit 1")
    for _ in range(2):
        assert make(clone, "setup", "PYTHON=./making").returncode == 2
        assert not (clone / PYTHON).exists()
    assert (clone / "made").read_text() == "-m venv --clear .venv\n" * 2
