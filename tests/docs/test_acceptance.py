"""The tables of docs/design/acceptance.md: tests that exist, or a reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "design" / "acceptance.md"
TEST_ID = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)+)`")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its two header lines."""
    text = PAGE.read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def collected(session: pytest.Session, files: list[str]) -> set[str]:
    """Ids of all tests in ``files``, without their parameters."""
    found: set[str] = set()
    nodes: list[pytest.Item | pytest.Collector] = [
        pytest.Module.from_parent(session, path=ROOT / file) for file in files
    ]
    while nodes:
        node = nodes.pop()
        if isinstance(node, pytest.Collector):
            nodes += node.collect()
        else:
            found.add(node.nodeid.split("[", 1)[0])
    return found


def test_every_line_is_shown_by_tests_that_exist(request: pytest.FixtureRequest) -> None:
    shown = rows("Shown")
    assert len(shown) > 80
    named: set[str] = set()
    for where, behaviour, tests in shown:
        ids = TEST_ID.findall(tests)
        assert ids, f"{where}: {behaviour}: no test"
        assert TEST_ID.sub("", tests).strip() == "", f"{behaviour}: {tests}"
        named.update(ids)
    files = sorted({test.split("::", 1)[0] for test in named})
    assert sorted(named - collected(request.session, files)) == []


def test_every_line_that_is_not_shown_has_its_reason() -> None:
    left_out = rows("Not shown")
    assert len(left_out) > 5
    for line, reason in left_out:
        assert len(line) > 10
        assert len(reason) > 10, line
