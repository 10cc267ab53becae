"""How long commands wait for the gateway, to which gateway they talk, and what status prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from voicecall.machine import CallPolicy
from voicecall.registry import Registry
from voicecall.tones import check_digits, tones_ms
from voicecall_calls.commands import calls, requests
from voicecall_calls.commands.calls import keys_timeout_s, speak_timeout_s
from voicecall_gateway.cli import run
from voicecall_gateway.client import GatewayUnreachable
from voicecall_gateway.commandline import CommandLine

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("digits", ["1", "ww123456#", "W" * 100])
def test_a_command_waits_until_its_keys_are_pressed(digits: str) -> None:
    swap_ms = CallPolicy().stream_start_ms
    assert keys_timeout_s(check_digits(digits)) * 1000 > tones_ms(digits) + swap_ms


@pytest.mark.parametrize("length", [1, 4096, 20_000])
def test_a_command_waits_until_its_words_are_spoken(length: int) -> None:
    ten_characters_a_second = length / 10
    assert speak_timeout_s("x" * length) > 60 + ten_characters_a_second


class Asked:
    """A gateway that accepts a question."""

    def call(self, method: str, params: Any, *, timeout: float) -> dict[str, Any]:
        assert method == "voicecall.continue.start"
        return {"operationId": "o-1", "status": "pending", "pollTimeoutMs": 1000}


def test_a_question_whose_gateway_is_gone_is_asked_of_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = [Asked()]

    @contextmanager
    def connect(*_: object) -> Iterator[Asked]:
        if not there:
            raise GatewayUnreachable("nobody is there")
        yield there.pop()

    def become(*_: object) -> NoReturn:
        raise AssertionError("another gateway is started")

    monkeypatch.setattr(CommandLine, "connect", connect)
    monkeypatch.setattr(requests, "_become_gateway", become)
    monkeypatch.setattr(calls, "_POLL_S", 0)
    arguments = ["continue", "--call-id", "c-1", "--message", "Your name?"]
    assert run(arguments, Registry(), {"HOME": str(tmp_path)}) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        "the gateway has stopped, and the question is lost; ask again once one runs (`voicecall"
        " gateway run`)\n"
    )


def test_status_tells_what_was_refused_and_who_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = {"calls": {"capacity": 1, "policy": 20}, "mediaSockets": {"1008": 3}}
    down = {"kind": "tts", "provider": "a", "at": 0, "reason": "ProviderTimeout", "inARow": 2}
    back = {"kind": "realtime", "provider": "b", "at": 0, "reason": "SessionLost", "inARow": 0}
    failures = [{**down, "callId": "c-1"}, {**back, "callId": "c-1"}]
    payload = {"found": True, "calls": [], "refused": counted, "failures": failures}
    monkeypatch.setattr(calls, "request", lambda *_: payload)

    def shown(*options: str) -> str:
        assert run(["status", *options], Registry(), {"HOME": str(tmp_path)}) == 0
        return capsys.readouterr().out

    assert shown().splitlines() == [
        "no live calls",
        "refused calls: capacity 1, policy 20",
        "refused media sockets: 1008 3",
        "failed at 1970-01-01T00:00:00+00:00: tts a: ProviderTimeout, 2 in a row",
        "failed at 1970-01-01T00:00:00+00:00: realtime b: SessionLost, it has worked since",
    ]
    assert json.loads(shown("--json")) == payload


def test_status_tells_the_times_of_a_call_as_people_write_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = {"callId": "c-1", "state": "active", "startedAt": 0, "answeredAt": 90_061_000}
    monkeypatch.setattr(calls, "request", lambda *_: {"found": True, "call": call})
    arguments = ["status", "--call-id", "c-1"]
    assert run(arguments, Registry(), {"HOME": str(tmp_path)}) == 0
    assert capsys.readouterr().out.splitlines() == [
        "callId: c-1",
        "state: active",
        "startedAt: 1970-01-01T00:00:00+00:00",
        "answeredAt: 1970-01-02T01:01:01+00:00",
    ]


def test_status_of_an_unknown_call_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["status", "--call-id", "c-1"]
    assert run(arguments, Registry(), {"HOME": str(tmp_path)}) == 1
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "call not found: c-1\n")
    assert run([*arguments, "--json"], Registry(), {"HOME": str(tmp_path)}) == 1
    output = capsys.readouterr()
    assert (json.loads(output.out), output.err) == ({"found": False}, "")


@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize("option", ["--to", "--message", "--mode", "--dtmf", "--agent"])
@pytest.mark.parametrize("command", ["call", "start"])
def test_a_call_with_an_empty_option_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    option: str,
    blank: str,
) -> None:
    def asked(*_: object, **__: object) -> NoReturn:
        raise AssertionError("somebody is called")

    monkeypatch.setattr(calls, "request", asked)
    arguments = [command, "--to", "+15550001111", "--message", "Hello.", option, blank]
    assert run(arguments, Registry(), {"HOME": str(tmp_path)}) == 1
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", f"{option} is empty; give it a value\n")
