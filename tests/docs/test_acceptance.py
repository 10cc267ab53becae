"""The acceptance list names tests that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "design" / "acceptance.md"
TEST_ID = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)+)`")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its two head lines."""
    text = PAGE.read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def collected(files: list[str]) -> set[str]:
    """Ids of all tests in ``files``, without their parameters."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        # Options of this run must not change what that one prints.
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.split("[", 1)[0] for line in done.stdout.splitlines() if "::" in line}


def test_every_line_is_shown_by_tests_that_exist() -> None:
    shown = rows("Shown")
    assert len(shown) > 80
    named: set[str] = set()
    for where, behaviour, tests in shown:
        ids = TEST_ID.findall(tests)
        assert ids, f"{where}: {behaviour}: no test"
        assert TEST_ID.sub("", tests).strip() == "", f"{behaviour}: {tests}"
        named.update(ids)
    files = sorted({test.split("::", 1)[0] for test in named})
    assert sorted(named - collected(files)) == []


def test_every_line_that_is_not_shown_has_its_reason() -> None:
    left_out = rows("Not shown")
    assert len(left_out) > 5
    for line, reason in left_out:
        assert len(line) > 10
        assert len(reason) > 10, line
