"""Tokens, scopes and origins; masking, rotation and failures of the log; the outbox."""

from __future__ import annotations

import json
import logging
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecall.errors import ConfigError
from voicecall.seam import SystemSeam
from voicecall_gateway.auth import (
    ADMIN,
    READ,
    SCOPES,
    WRITE,
    existing_token,
    expand_scopes,
    gateway_token,
    origin_allowed,
    scope_name,
    token_matches,
)
from voicecall_gateway.logs import (
    _PATTERNS,
    Mask,
    configure_logging,
    credentials_in,
    credentials_of,
    log_file,
)
from voicecall_gateway.outbox import Outbox
from voicecall_gateway.sections import GatewaySection

pytestmark = pytest.mark.unit


def test_a_token_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    section = GatewaySection()
    assert existing_token(section, {}, tmp_path) is None
    token = gateway_token(section, {}, tmp_path, SystemSeam())
    assert token is not None
    assert len(token) >= 20
    file = tmp_path / "gateway-token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["gateway-token"]
    assert gateway_token(section, {}, tmp_path, SystemSeam()) == token


def test_the_configured_token_comes_first(tmp_path: Path) -> None:
    (tmp_path / "gateway-token").write_text("from-file\n")
    environ = {"VOICECALL_GATEWAY_TOKEN": " from-env "}
    configured = GatewaySection.model_validate({"auth": {"token": "from-config"}})
    assert existing_token(configured, environ, tmp_path) == "from-config"
    assert existing_token(GatewaySection(), environ, tmp_path) == "from-env"
    assert existing_token(GatewaySection(), {}, tmp_path) == "from-file"
    # As with a variable: neither HTTP nor other sources include the blanks.
    blanks = GatewaySection.model_validate({"auth": {"token": " from-config\n"}})
    assert existing_token(blanks, environ, tmp_path) == "from-config"
    off = GatewaySection.model_validate({"auth": {"mode": "none"}})
    assert gateway_token(off, environ, tmp_path, SystemSeam()) is None


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gateway-token").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        gateway_token(GatewaySection(), {}, tmp_path, SystemSeam())


def test_a_token_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "gateway-token"
    file.write_bytes(b"abc\xff")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 3\); delete the file, or set"):
        existing_token(GatewaySection(), {}, tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigError) as caught:
        existing_token(GatewaySection(), {}, tmp_path)
    assert str(caught.value) == (
        f"{file}: the gateway's token cannot be read: Is a directory; make it readable for this"
        " user, or set VOICECALL_GATEWAY_TOKEN"
    )


def test_a_state_directory_that_is_none_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    message = "file is not a directory; name another with VOICECALL_STATE_DIR"
    with pytest.raises(ConfigError, match=message):
        existing_token(GatewaySection(), {}, file)
    with pytest.raises(ConfigError, match=message):
        gateway_token(GatewaySection(), {}, file, SystemSeam())


def test_token_comparison() -> None:
    assert token_matches("täken", "täken")
    assert token_matches("token", " token\n")
    assert not token_matches("token", "token2")
    assert not token_matches("token", None)


@given(st.lists(st.sampled_from([*SCOPES, "operator.pairing", "x"])))
def test_a_scope_includes_the_smaller_ones(requested: list[str]) -> None:
    scopes = expand_scopes(requested)
    assert scopes <= set(SCOPES)
    assert set(requested) & set(SCOPES) <= scopes
    assert (ADMIN in scopes) == (ADMIN in requested)
    if WRITE in scopes:
        assert READ in scopes


def test_scope_names() -> None:
    assert scope_name("read") == scope_name("operator.read") == READ
    with pytest.raises(ValueError, match="unknown scope 'root'"):
        scope_name("root")


@pytest.mark.parametrize(
    ("origin", "host", "bind", "allowed"),
    [
        (None, "127.0.0.1:1", "127.0.0.1", True),
        ("http://localhost:3000", "127.0.0.1:1", "127.0.0.1", True),
        ("http://[::1]:3000", "127.0.0.1:1", "127.0.0.1", True),
        ("http://evil.example", "127.0.0.1:1", "127.0.0.1", False),
        ("http://evil.example:1", "evil.example:1", "127.0.0.1", False),
        ("https://pbx.example", "pbx.example:1", "0.0.0.0", True),
        ("https://evil.example", "pbx.example:1", "0.0.0.0", False),
        ("null", "127.0.0.1:1", "127.0.0.1", False),
        ("http://[", "127.0.0.1:1", "0.0.0.0", False),
        ("", "", "0.0.0.0", False),
    ],
)
def test_origins(origin: str | None, host: str, bind: str, allowed: bool) -> None:
    assert origin_allowed(origin, host, bind) is allowed


# --- logs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ('{"apiKey": "k-123456"}', "k-123456"),
        ("auth_token=secret1234&x=1", "secret1234"),
        ("https://user:hunter22@example.com/", "hunter22"),
        ("calling +14155550123 now", "4155550123"),
        ("the value is registered-value", "registered-value"),
    ],
)
def test_masking(text: str, hidden: str) -> None:
    assert hidden not in Mask(["registered-value"])(text)


def test_a_credential_is_masked_without_the_blanks_around_it() -> None:
    headers = {"X-Api-Key": "sk-123456789\n", "Authorization": " Token abcdef123 "}
    mask = Mask(credentials_in({"mcpServers": {"crm": {"headers": headers}}}))
    assert mask("Illegal header value b'sk-123456789\\n'") == "Illegal header value b'***\\n'"
    assert mask("Illegal header value b'Token abcdef123'") == "Illegal header value b'***'"


@given(
    st.lists(
        st.sampled_from(
            [
                "Bearer ",
                "basic ",
                "bas\u0131c ",
                "api_key",
                "ApiKey",
                "auth-token",
                "access_token",
                "password",
                "secret",
                "token",
                "to\u212aen",
                "\u017fecret",
                "=",
                ": ",
                '"',
                "://",
                "u:p@",
                "+",
                "4155550123",
                "abcdef123456",
                " ",
                "é",
            ]
        ),
        max_size=12,
    ).map("".join)
)
def test_no_pattern_is_missed_by_the_quick_look(text: str) -> None:
    masked = text
    for pattern, replacement in _PATTERNS:
        masked = pattern.sub(replacement, masked)
    assert Mask()(text) == masked


def test_ordinary_text_is_not_masked() -> None:
    text = "call 12345 ended after 20 s on http://127.0.0.1:18790/rpc"
    assert Mask()(text) == text


def test_credentials_are_found_by_their_keys() -> None:
    tree = {
        "gateway": {"auth": {"token": "one"}},
        "providers": [{"apiKey": "two", "model": "m"}, {"authToken": "three"}],
        "twilio": {"accountSid": "AC1", "webhooksSharedKey": "four"},
        "server": {"env": {"GITHUB_TOKEN": "five"}, "botToken": "six"},
        "maxTokens": "5",
    }
    assert credentials_in(tree) == ["one", "two", "three", "four", "five", "six"]


def test_credentials_of_the_environment_are_found_by_how_their_names_end() -> None:
    environ = {
        "TWILIO_AUTH_TOKEN": " one ",
        "OPENAI_API_KEY": "two",
        "AWS_SECRET_ACCESS_KEY": "three",
        "CLIENT_SECRET": "four",
        "PGPASSWORD": "five",
        "EMPTY_KEY": " ",
        "PASSWORD_STORE_DIR": "/home/somebody/.store",
        "KEYBOARD": "qwerty",
    }
    assert credentials_of(environ) == ["one", "two", "three", "four", "five"]


@contextmanager
def logging_below(directory: Path) -> Iterator[Path]:
    """The log file, while everything is logged."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    configure_logging(directory, Mask(["my-secret"]))
    try:
        yield log_file(directory)
    finally:
        for handler in [h for h in root.handlers if h not in before]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
        logging.getLogger("voicecall").setLevel(logging.NOTSET)


def test_the_log_file_holds_masked_json_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with logging_below(tmp_path / "s") as log:
        try:
            raise ValueError("with my-secret in it")
        except ValueError:
            logging.getLogger("voicecall.x").exception(
                "failed for %s",
                "+14155550123",
                extra={"phase": "dialed", "n": 1, "of": {"a": ["my-secret", Path("my-secret")]}},
            )
    line = json.loads(log.read_text())
    assert line["message"] == "failed for +***"
    assert (line["level"], line["phase"], line["n"]) == ("error", "dialed", 1)
    assert line["of"] == {"a": ["***", "***"]}
    assert "ValueError" in line["error"]
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "failed for +***" in shown
    assert "my-secret" not in log.read_text() + shown
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.parent.stat().st_mode) == 0o700


def test_what_strangers_sent_is_one_line_that_steers_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("voicecall.x")
    with logging_below(tmp_path / "s"):
        log.warning("said: %s", "no\n12:00:00 info voicecall.x: all is well\x1b[2J\x9b2Jé\u2028")
        try:
            raise ValueError("two\r\nlines")
        except ValueError:
            log.exception("it failed")
    first, second = capsys.readouterr().err.split("\n")[:-1]
    assert first.endswith(
        "warning voicecall.x: said: no 12:00:00 info voicecall.x: all is well\ufffd[2J\ufffd2Jé "
    )
    assert second.endswith("error voicecall.x: it failed (ValueError: two  lines)")


def test_a_line_tells_what_failed_in_a_group_of_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = ExceptionGroup("inner", [OSError("the disk is full"), KeyError("x")])
    with logging_below(tmp_path / "s"):
        try:
            raise ExceptionGroup("unhandled errors", [inner, OSError("the disk is full")])
        except ExceptionGroup:
            logging.getLogger("voicecall.x").exception("it failed")
    line = capsys.readouterr().err.rstrip("\n")
    assert line.endswith("voicecall.x: it failed (OSError: the disk is full; KeyError: 'x')")


def test_each_line_of_the_log_has_the_time_of_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The third is in the next second, and then the clock is set back.
    times = (1_800_000_059.0625, 1_800_000_059.9995, 1_800_000_060.0, 1_800_000_059.5)
    told = {"name": "voicecall.x", "levelname": "INFO", "levelno": logging.INFO, "msg": "here"}
    with logging_below(tmp_path / "s") as log:
        for at in times:
            told |= {"created": at, "msecs": float(int(at % 1 * 1000))}
            logging.getLogger("voicecall.x").handle(logging.makeLogRecord(told))
    assert [json.loads(line)["time"] for line in log.read_text().splitlines()] == [
        datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds") for at in times
    ]
    assert capsys.readouterr().err.splitlines() == [
        f"{datetime.fromtimestamp(at, UTC).astimezone():%H:%M:%S} info voicecall.x: here"
        for at in times
    ]


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_log_that_was_moved_away_or_deleted_is_begun_anew(tmp_path: Path) -> None:
    told = {"name": "voicecall.x", "levelname": "INFO", "levelno": logging.INFO}

    def tell(second: int, text: str) -> None:
        made = {**told, "created": float(second), "msg": text}
        logging.getLogger("voicecall.x").handle(logging.makeLogRecord(made))

    def lines(file: Path) -> list[str]:
        return [json.loads(line)["message"] for line in file.read_text().splitlines()]

    with logging_below(tmp_path / "s") as log:
        moved = log.with_name("elsewhere")
        tell(1, "a")
        log.rename(moved)
        tell(1, "b")
        tell(2, "c")
        assert (lines(moved), lines(log)) == (["a", "b"], ["c"])
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        log.unlink()
        tell(3, "d")
        tell(3, "e")
        assert lines(log) == ["d", "e"]
        # As a rotation by copying does; the length counts from there.
        log.write_bytes(b"")
        tell(4, "f")
        assert lines(log) == ["f"]
    assert sorted(file.name for file in log.parent.iterdir()) == ["elsewhere", log.name]


def test_half_a_line_that_a_crash_has_left_stands_by_itself(tmp_path: Path) -> None:
    log = log_file(tmp_path)
    log.parent.mkdir()
    log.write_text('{"time": "2026-1')
    with logging_below(tmp_path) as same:
        logging.getLogger("voicecall.x").warning("one")
    assert same == log
    half, whole = log.read_text().splitlines()
    assert (half, json.loads(whole)["message"]) == ('{"time": "2026-1', "one")
    with logging_below(tmp_path):
        logging.getLogger("voicecall.x").warning("two")
    assert len(log.read_text().splitlines()) == 3


def test_a_log_that_cannot_be_written_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("voicecall.x")
    with logging_below(tmp_path / "s") as log:
        for _ in range(2):
            logger.warning("a call from %s", "+14155550123")
            with no_room_beyond(log.stat().st_size):
                for _ in range(3):
                    logger.warning("a call from %s", "+14155550123")
        logger.warning("the last one")
    shown = capsys.readouterr().err.splitlines()
    lost = f"{log}: log lines are lost"
    assert [line for line in shown if str(log) in line] == [f"{lost} (File too large)"] * 2
    assert len(shown) == 2 * 4 + 1 + 2
    assert not any("+1415" in line for line in (*shown, *log.read_text().splitlines()))
    assert json.loads(log.read_text().splitlines()[-1])["message"] == "the last one"


def test_a_log_that_cannot_be_rotated_grows_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("voicecall.x")
    with logging_below(tmp_path / "s") as log:
        log.with_name(log.name + ".4").touch()
        log.with_name(log.name + ".5").mkdir()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, RotatingFileHandler):
                handler.maxBytes = 200
        for number in range(10):
            logger.warning("line %d", number)
    told = [json.loads(line)["message"] for line in log.read_text().splitlines()]
    assert told == [f"line {number}" for number in range(10)]
    shown = capsys.readouterr().err.splitlines()
    assert len([line for line in shown if "cannot be rotated and keeps growing" in line]) == 1


def test_a_rotation_on_a_full_disk_costs_no_line_that_comes_behind_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("voicecall.x")
    with logging_below(tmp_path / "s") as log:
        logger.warning("one")
        with no_room_beyond(log.stat().st_size):
            logger.warning("dropped")
            for handler in logging.getLogger().handlers:
                if isinstance(handler, RotatingFileHandler):
                    handler.maxBytes = 1
            logger.warning("late")
        logger.warning("two")
        logger.warning("three")
    told = [json.loads(line)["message"] for line in log.read_text().splitlines()]
    assert told == ["one", "late", "two", "three"]
    assert "cannot be rotated and keeps growing (File too large)" in capsys.readouterr().err


# --- outbox -----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_of_events_the_oldest_gives_way_and_answers_stay() -> None:
    outbox = Outbox(2)
    outbox.put_event("e1")
    outbox.put_answer("a1")
    outbox.put_event("e2")
    outbox.put_event("e3")
    outbox.put_answer("a2")
    outbox.close()
    assert [await outbox.get() for _ in range(5)] == [
        (False, "a1"),
        (True, "e2"),
        (True, "e3"),
        (False, "a2"),
        None,
    ]
