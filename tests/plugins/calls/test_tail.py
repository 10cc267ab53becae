"""Following a journal that grows, is rotated, cut, or written in pieces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall_calls.following import follow, last_lines

pytestmark = pytest.mark.unit


class Followed:
    """The lines of a file, where one step of ``steps`` is done each time nothing is new."""

    class Over(Exception):
        """No step is left."""

    def __init__(self, path: Path, count: int, *steps: Callable[[], object]) -> None:
        self._steps: Iterator[Callable[[], object]] = iter(steps)
        self.lines: list[str] = []
        try:
            for line in follow(path, count, self._wait):
                self.lines.append(line)
        except Followed.Over:
            return
        raise AssertionError("following a file ends by itself")

    def _wait(self) -> None:
        step = next(self._steps, None)
        if step is None:
            raise Followed.Over
        step()


def append(path: Path, data: bytes) -> Callable[[], None]:
    def step() -> None:
        with path.open("ab") as stream:
            stream.write(data)

    return step


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


def test_the_last_lines_are_complete_and_not_blank(path: Path) -> None:
    assert last_lines(path, 5) == []
    path.write_bytes(b"one\n\ntwo\r\n \nthree\nhal")
    assert last_lines(path, 25) == ["one", "two", "three"]
    assert last_lines(path, 2) == ["two", "three"]
    assert last_lines(path, 0) == []


def test_new_lines_follow_the_last_ones(path: Path) -> None:
    path.write_bytes(b"one\ntwo\nthree\n")
    more = append(path, b"four\n"), append(path, b"five\n\nsix\n")
    assert Followed(path, 1, *more).lines == ["three", "four", "five", "six"]
    assert Followed(path, 0).lines == []


def test_half_a_line_waits_for_its_end(path: Path) -> None:
    path.write_bytes(b"one\nbe")
    euro = "€".encode()
    steps = append(path, b"gun\n" + euro[:1]), append(path, euro[1:]), append(path, b"\n")
    assert Followed(path, 9, *steps).lines == ["one", "begun", "€"]


def test_a_file_that_comes_later_is_read_from_its_begin(path: Path) -> None:
    assert Followed(path, 0, append(path, b"one\ntwo\n")).lines == ["one", "two"]


def test_nothing_is_lost_when_the_journal_is_rotated(path: Path) -> None:
    path.write_bytes(b"one\n")

    def rotate() -> None:
        append(path, b"two\n")()
        os.replace(path, path.with_name("calls.jsonl.1"))
        append(path, b"three\n")()

    def vanish() -> None:
        os.replace(path, path.with_name("calls.jsonl.1"))

    steps = rotate, append(path, b"four\n"), vanish, append(path, b"five\n")
    assert Followed(path, 9, *steps).lines == ["one", "two", "three", "four", "five"]


def test_a_file_that_was_cut_is_read_anew(path: Path) -> None:
    path.write_bytes(b"one\ntwo\n")
    steps = (lambda: path.write_bytes(b"3\n")), append(path, b"four\n")
    assert Followed(path, 1, *steps).lines == ["two", "3", "four"]


@settings(max_examples=30)
@given(
    lines=st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), max_size=8),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_however_it_is_written_each_line_comes_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("cut") / "calls.jsonl"
    data = "".join(f"{line}\n" for line in lines).encode()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(places)]
    path.write_bytes(pieces[0])
    assert Followed(path, 100, *(append(path, piece) for piece in pieces[1:])).lines == lines
