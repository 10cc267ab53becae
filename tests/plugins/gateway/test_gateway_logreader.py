"""Reading logs and journals: the last lines, following through rotations, formatted lines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from voicecall.registry import Registry
from voicecall_gateway.cli import run
from voicecall_gateway.logreader import follow, last_lines, parse_line, pretty

pytestmark = pytest.mark.integration


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs" / "voicecall.log"


def rotate(log: Path) -> None:
    for number in range(4, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.rename(log.with_name(f"{log.name}.{number + 1}"))
    log.rename(log.with_name(f"{log.name}.1"))


def append(log: Path, text: str | bytes) -> None:
    with log.open("ab") as stream:
        stream.write(text if isinstance(text, bytes) else text.encode())


class Enough(Exception):
    pass


def followed(log: Path, count: int, *steps: Callable[[], None]) -> list[str]:
    """The lines that are read while ``steps`` happen, one at each pause."""
    lines: list[str] = []
    left = list(steps)

    def wait() -> None:
        if not left:
            raise Enough
        left.pop(0)()

    with pytest.raises(Enough):
        lines.extend(_collected(lines, log, count, wait))
    return lines


def _collected(lines: list[str], log: Path, count: int, wait: Callable[[], None]) -> list[str]:
    for line in follow(log, count, wait):
        lines.append(line)  # noqa: PERF402 (what came before the end counts too)
    return []


def test_the_last_lines_reach_into_older_files(log: Path) -> None:
    append(log, "1\n2\n")
    rotate(log)
    append(log, "3\n4\nhalf")
    assert last_lines(log, 3) == ["2", "3", "4"]
    assert last_lines(log, 99) == ["1", "2", "3", "4"]
    assert last_lines(log, 0) == []


def test_the_last_lines_are_complete_and_not_blank(log: Path) -> None:
    assert last_lines(log, 5) == []
    append(log, "one\n\ntwo\r\n \nthree\nhal")
    assert last_lines(log, 25) == ["one", "two", "three"]
    assert last_lines(log, 2) == ["two", "three"]


def test_a_file_that_comes_later_is_read_from_its_begin(log: Path) -> None:
    append(log, "1\n2\n")
    rotate(log)
    assert followed(log, 1, lambda: append(log, "3\n4\n")) == ["2", "3", "4"]
    assert followed(log, 0) == []


def test_half_a_character_waits_for_its_end(log: Path) -> None:
    append(log, "one\nbe")
    euro = "€".encode()
    steps = [b"gun\n" + euro[:1], euro[1:], b"\n"]
    assert followed(log, 9, *(partial(append, log, step) for step in steps)) == [
        "one",
        "begun",
        "€",
    ]


@settings(max_examples=30)
@given(
    lines=st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), max_size=8),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_however_it_is_written_each_line_comes_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], cuts: list[int]
) -> None:
    log = tmp_path_factory.mktemp("cut") / "voicecall.log"
    data = "".join(f"{line}\n" for line in lines).encode()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    first, *more = (data[a:b] for a, b in pairwise(places))
    append(log, first)
    assert followed(log, 100, *(partial(append, log, piece) for piece in more)) == lines


@settings(max_examples=100)
@given(st.lists(st.lists(st.sampled_from(["line", "half", "rotate"]), max_size=8), max_size=6))
def test_however_it_is_rotated_each_line_comes_once(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[str]]
) -> None:
    log = tmp_path_factory.mktemp("rotated") / "voicecall.log"
    append(log, "first\n")
    expected = ["first", ""]

    def act(what: str) -> None:
        if what != "rotate":
            text = f"{len(expected)}-{what} "
            expected[-1] += text
            append(log, text if what == "half" else f"{text}\n")
        elif log.exists():
            rotate(log)
        if what == "line" or (what == "rotate" and expected[-1]):
            expected.append("")

    def turn(actions: list[str]) -> None:
        # If there are more rotations at once than files are kept, the first lines are lost.
        kept = 4
        for what in actions:
            kept -= what == "rotate"
            if kept >= 0 or what != "rotate":
                act(what)

    lines = followed(log, 100, *(partial(turn, actions) for actions in [*rounds, ["line"]]))
    assert [*lines, ""] == expected
    assert last_lines(log, 3) == lines[-3:]


def test_half_a_line_that_a_crash_has_left_in_a_rotated_file_is_shown(log: Path) -> None:
    append(log, "1\nha")
    rotate(log)
    append(log, "2\n")
    assert last_lines(log, 9) == ["1", "ha", "2"]

    def once() -> None:
        append(log, "lf")
        rotate(log)
        append(log, "3\n")

    assert followed(log, 9, once) == ["1", "ha", "2", "lf", "3"]


def test_a_file_that_grows_quickly_is_read_in_order(log: Path) -> None:
    numbers = iter(range(10_000))
    append(log, "first\n")

    def grow() -> None:
        for _ in range(4):
            append(log, "".join(f"{next(numbers)}\n" for _ in range(250)))
            rotate(log)
        append(log, "".join(f"{next(numbers)}\n" for _ in range(1000)))

    lines = followed(log, 0, grow, grow, grow, grow, grow)
    assert lines == [str(number) for number in range(10_000)]


def test_following_a_log_that_is_deleted(log: Path) -> None:
    append(log, "1\n")

    def deleted() -> None:
        append(log, "2\n")
        log.unlink()

    assert followed(log, 5, deleted, lambda: append(log, "3\n")) == list("123")
    assert followed(log, 5, log.unlink) == ["3"]


def test_following(log: Path) -> None:
    append(log, "1\n2\nha")
    lines = followed(
        log,
        1,
        lambda: append(log, "lf\n"),
        lambda: None,
        lambda: append(log, "4\n5"),
        lambda: append(log, "\n"),
    )
    assert lines == ["2", "half", "4", "5"]


def test_following_through_rotations(log: Path) -> None:
    append(log, "1\n")

    def once() -> None:
        append(log, "2\n")
        rotate(log)
        append(log, "3\n")

    def twice() -> None:
        for text in ("4\n", "5\n"):
            append(log, text)
            rotate(log)
        append(log, "6\n")

    def between() -> None:
        append(log, "7\n")
        rotate(log)

    lines = followed(log, 5, once, twice, between, lambda: append(log, "8\n"))
    assert lines == list("12345678")


def test_lines_that_come_while_the_first_are_printed_are_followed(log: Path) -> None:
    def wait() -> None:
        raise Enough

    append(log, "1\n2\n3\n")
    lines = follow(log, 2, wait)
    assert next(lines) == "2"
    append(log, "4\n")
    rotate(log)
    append(log, "5\n")
    assert [next(lines) for _ in range(3)] == list("345")
    with pytest.raises(Enough):
        next(lines)


def test_following_where_files_are_replaced_or_missing(log: Path) -> None:
    def replaced() -> None:
        # Moved away by somebody else.
        log.rename(log.with_name("elsewhere"))
        append(log, "b\n")

    assert followed(log, 5, lambda: append(log, "a\n"), replaced) == ["a", "b"]


def test_following_a_log_that_is_moved_away_from_its_older_parts(log: Path) -> None:
    append(log, "1\n")
    rotate(log)
    os.utime(log.with_name(f"{log.name}.1"), (1_000, 1_000))
    append(log, "2\n")

    def moved() -> None:
        append(log, "3\n")
        log.rename(log.with_name("elsewhere"))

    def begun_anew() -> None:
        append(log, "4\n")
        # The clock was set back meanwhile.
        os.utime(log, (500, 500))

    assert followed(log, 2, moved, begun_anew, lambda: append(log, "5\n")) == list("12345")


def test_following_a_log_that_is_cut(log: Path) -> None:
    append(log, "1\n2\nhalf")

    def cut() -> None:
        log.write_text("3\n")

    assert followed(log, 5, cut, lambda: append(log, "4\n")) == list("1234")


def test_lines_for_people() -> None:
    line = {
        "time": "2026-11-21T10:00:00.000+00:00",
        "level": "warning",
        "logger": "voicecall.calls",
        "message": "odd \x1b[31mthing",
        "callId": "c1",
        "count": 2,
        "error": "Traceback\n  KeyError",
    }
    text = pretty(json.dumps(line))
    assert text[19:] == (
        " warning voicecall.calls: odd \ufffd[31mthing callId=c1 count=2\n    Traceback"
        "\n      KeyError"
    )
    assert pretty("not json") == "not json"
    assert parse_line("[1]") == {"message": "[1]"}


RECORDS = st.dictionaries(
    st.sampled_from(["message", "error", "logger", "level", "callId"]) | st.text(max_size=5),
    st.integers() | st.text(st.characters(max_codepoint=0xFF), max_size=20),
)


@given(st.text(max_size=40) | RECORDS.map(json.dumps))
@example(json.dumps({"message": "\x1b[2J", "error": "\x1b", "logger": "\x1b", "callId": "\x1b"}))
def test_any_line_can_be_shown(line: str) -> None:
    assert "\x1b" not in pretty(line)


def test_the_command(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"HOME": str(tmp_path), "VOICECALL_STATE_DIR": str(tmp_path)}

    def logs(*arguments: str) -> tuple[int, str, str]:
        code = run(["logs", *arguments], Registry(entries=[]), environ)
        output = capsys.readouterr()
        return code, output.out, output.err

    code, out, err = logs()
    assert (code, out) == (1, "")
    assert f"{log}: there is no log yet" in err
    append(log, '{"message": "one"}\n{"message": "two", "level": "info"}\n')
    assert logs("--lines", "1") == (0, "info two\n", "")
    document = json.loads(logs("--json")[1])
    assert document == {
        "file": str(log),
        "lines": [{"message": "one"}, {"message": "two", "level": "info"}],
    }
    assert logs("--lines", "-1")[0] == 2


def test_the_command_follows_until_it_is_stopped(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, '{"message": "one"}\n')
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > 1:
            raise KeyboardInterrupt
        append(log, '{"message": "two"}\n')

    monkeypatch.setattr("voicecall_gateway.commands.logs.time.sleep", sleep)
    environ = {"VOICECALL_STATE_DIR": str(tmp_path), "HOME": os.devnull}
    run(["logs", "--follow", "--json"], Registry(entries=[]), environ)
    assert capsys.readouterr().out == '{"message": "one"}\n{"message": "two"}\n'


def test_the_command_says_that_it_waits_for_a_log(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        if log.exists():
            raise KeyboardInterrupt
        append(log, '{"message": "one"}\n')

    monkeypatch.setattr("voicecall_gateway.commands.logs.time.sleep", sleep)
    environ = {"VOICECALL_STATE_DIR": str(tmp_path), "HOME": os.devnull}
    run(["logs", "--follow"], Registry(entries=[]), environ)
    output = capsys.readouterr()
    assert output.err == f"{log} does not exist yet: waiting for it\n"
    assert output.out == "one\n"
