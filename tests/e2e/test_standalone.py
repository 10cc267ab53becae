"""Commands without a running gateway: the command is the gateway until its call is over."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.ports import reserve_port
from tests.teller import TELLER

from .lab.process import Home, Process, port_is_free

pytestmark = pytest.mark.e2e

PHONE = "+15555550123"
NOTICE = "no gateway is running; this command serves the call itself until it is over"
LIVE = ("speaking", "listening")
TALK = ("call", "--to", PHONE, "--message", "Hello.", "--json")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    configure(home)
    return home


def configure(home: Home, port: int = 0) -> None:
    phone = {"serve": {"port": port}, "outbound": {"notifyHangupDelaySec": 0}}
    home.configure(
        {
            "gateway": {"drainSeconds": 0.2},
            "plugins": {"entries": {"voice-call": {"config": phone}}},
        }
    )


@contextmanager
def serving(home: Home, *command: str) -> Iterator[tuple[Process, dict[str, Any]]]:
    """A command that goes on after it has printed its document."""
    process = home.popen(*command)
    try:
        assert process.stdout is not None
        lines: list[str] = []
        while lines[-1:] != ["}\n"]:
            line = process.stdout.readline()
            assert line, process.communicate()
            lines.append(line)
        yield process, json.loads("".join(lines))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_call_is_served_until_it_is_over(tmp_path: Path) -> None:
    home = Home(tmp_path, cold=True)
    configure(home)
    placed = home.run(*TALK, "--mode", "notify")
    assert (placed.status, placed.err.strip()) == (0, NOTICE)
    call_id = placed.document["callId"]
    stored = home.json("status", "--call-id", call_id)
    assert (stored["found"], stored["call"]["endDetail"]) == (True, "notified")
    assert home.json("status") == {"found": True, "calls": []}

    # The next gateway knows the call of this one, but it is over.
    late = home.run("continue", "--call-id", call_id, "--message", "Hello?", "--json")
    assert (late.status, late.out) == (1, "")
    assert "not active" in late.err
    assert "Traceback" not in late.err

    smoke = home.run("smoke", "--to", PHONE, "--yes", "--message", "Hi.", "--json")
    assert (smoke.status, smoke.document["liveCall"]) == (0, True)
    second = home.json("status", "--call-id", smoke.document["callId"])["call"]
    assert (second["state"], second["endDetail"]) == ("hangup-bot", "notified")


def test_other_commands_use_the_one_that_serves(home: Home) -> None:
    with serving(home, *TALK) as (process, printed):
        call_id = printed["callId"]
        home.wait_until(call_id, *LIVE)
        assert home.json("status", "--call-id", call_id)["found"] is True
        ours = ("--call-id", call_id)
        asked = home.json("continue", *ours, "--message", "How are you?")
        assert asked["success"] is True
        assert asked["transcript"]
        assert process.poll() is None
        assert home.json("end", *ours) == {"success": True}
        rest, err = process.communicate(timeout=30)
    assert (process.returncode, rest, err.strip()) == (0, "", NOTICE)
    assert home.json("status", *ours)["call"]["endDetail"] == "requested"


def test_a_credential_of_the_environment_is_masked_in_its_log(home: Home) -> None:
    info = home.packages / "teller-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: teller\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[voicecall.gateway]\nteller = teller_plugin\n")
    (home.packages / "teller_plugin.py").write_text(TELLER)
    home.variables["ACME_API_KEY"] = "an-acme-key-of-the-test"
    assert home.run(*TALK, "--mode", "notify").status == 0
    log = (home.state_dir / "logs" / "voicecall.log").read_text()
    assert "refused is ***" in log
    assert "an-acme-key-of-the-test" not in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_it(home: Home, number: signal.Signals) -> None:
    with serving(home, *TALK) as (process, printed):
        home.wait_until(printed["callId"], *LIVE)
        process.send_signal(number)
        rest, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert rest == ""
    assert err.splitlines() == [
        NOTICE,
        "the call has up to 0.2 s to end; interrupt again to stop at once",
    ]
    assert port_is_free(int(home.url.rsplit(":", 1)[1]))
    assert home.json("status", "--call-id", printed["callId"])["found"] is True


def test_a_signal_at_its_begin_stops_it(home: Home) -> None:
    token, later = home.state_dir / "gateway-token", home.state_dir / "later"
    os.mkfifo(token)
    os.mkfifo(later)
    process = home.popen(*TALK)
    try:
        # The command's client asks for the token first, then the gateway that it becomes.
        with handed_over(token, process):
            later.replace(token)
        with handed_over(token, process):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        rest, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, rest) == (130, "")
    assert "Traceback" not in err


@contextmanager
def handed_over(token: Path, reader: Process) -> Iterator[None]:
    """``reader`` has asked for the token, and gets it when this context is left."""
    deadline = time.monotonic() + 60
    while True:
        try:
            pipe = os.open(token, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:
            assert reader.poll() is None, reader.communicate()
            assert time.monotonic() < deadline, "nobody asks for the token"
            time.sleep(0.01)
    with open(pipe, "w") as stream:
        yield
        stream.write("a token of the test\n")


def test_nobody_becomes_the_gateway_where_one_refuses(home: Home) -> None:
    with home.gateway():
        token = home.state_dir / "gateway-token"
        right = token.read_text()
        token.write_text("wrong")
        refused = home.run(*TALK).one_sentence()
        assert "token" in refused
        token.write_text(right)
        assert home.json("status") == {"found": True, "calls": []}
    assert not list((home.state_dir / "voice-calls").glob("*.jsonl*"))


def test_nobody_becomes_a_gateway_that_is_elsewhere(home: Home) -> None:
    home.variables["VOICECALL_GATEWAY_URL"] = f"ws://127.0.0.1:{reserve_port()}"
    commands = (TALK, ("status", "--json"), ("pairing", "list"), ("latency",))
    for output in home.run_all(*commands):
        assert "has no voicecall gateway running" in output.one_sentence()
    assert not (home.state_dir / "voice-calls").exists()


def test_a_port_that_is_taken_is_named(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configure(home, port=port)
        refused = home.run(*TALK)
    assert (refused.status, refused.out) == (1, "")
    notice, sentence = refused.err.splitlines()
    assert not (home.state_dir / "voice-calls" / "calls.jsonl").exists()
    assert notice == NOTICE
    assert str(port) in sentence


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (("call", "--to", "abc", "--message", "Hello."), "E.164"),
        (("call", "--to", PHONE, "--message", "Hi.", "--mode", "x"), "mode must be"),
        (("dtmf", "--call-id", "none", "--digits", "x;"), "digits"),
        (("end", "--call-id", "none"), "call not found"),
    ],
)
def test_what_is_refused_is_told_without_the_notice(
    home: Home, command: tuple[str, ...], word: str
) -> None:
    assert word in home.run(*command).one_sentence()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--to", "abc"), "E.164"),
        (("--to", PHONE, "--mode", "shout"), "notify or conversation"),
        (("--to", PHONE, "--message", " "), "--message is empty"),
        (("--yes", "--json"), "name the number with --to"),
    ],
)
def test_smoke_refuses_in_a_dry_run_what_it_would_refuse_to_call(
    home: Home, options: tuple[str, ...], word: str
) -> None:
    assert word in home.run("smoke", *options).one_sentence()


def test_smoke_refuses_in_a_dry_run_a_number_that_may_not_be_called(home: Home) -> None:
    only = {"outbound": {"allowTo": ["+1666*"]}, "serve": {"port": 0}}
    home.configure({"plugins": {"entries": {"voice-call": {"config": only}}}})
    assert "outbound.allowTo" in home.run("smoke", "--to", PHONE).one_sentence()
    assert "wouldCall" in home.run("smoke", "--to", "+16660001111", "--json").document


def test_smoke_fails_where_its_call_does(tmp_path: Path) -> None:
    home = Home(tmp_path)
    nobody = {"mock": {"apiBaseUrl": f"http://127.0.0.1:{reserve_port()}"}, "serve": {"port": 0}}
    home.configure({"plugins": {"entries": {"voice-call": {"config": nobody}}}})
    smoke = home.run("smoke", "--to", PHONE, "--yes")
    assert smoke.status == 1
    assert smoke.err.startswith("mock: cannot reach the exchange")
    call = home.run("call", "--to", PHONE, "--message", "Hello.")
    assert (call.status, call.err) == (1, smoke.err)
    told = home.run("logs", "--lines", "50").text
    assert "not placed: mock:" in told
    nowhere = home.run("smoke", "--yes")
    assert nowhere.status == 1
    assert "name the number with --to" in nowhere.err


def test_what_is_only_read_is_not_waited_for(home: Home) -> None:
    for command in (("latency",), ("pairing", "list")):
        read = home.run(*command)
        assert (read.status, read.err) == (0, "")


def test_what_the_store_knows_starts_no_phone(home: Home) -> None:
    with serving(home, *TALK) as (process, printed):
        home.wait_until(printed["callId"], *LIVE)
        process.kill()
    # What is not complete is needed for calls only.
    phone = {"provider": "twilio", "serve": {"port": 0}}
    home.configure({"plugins": {"entries": {"voice-call": {"config": phone}}}})
    assert "turnLatency" in home.json("latency")
    assert home.json("pairing", "list") == {"callers": []}
    approved = home.json("pairing", "approve", PHONE)
    assert approved["caller"]["status"] == "approved"
    assert "inboundPolicy is disabled" in approved["but"]
    [caller] = home.json("pairing", "list")["callers"]
    assert (caller["number"], caller["status"]) == (PHONE, "approved")
    assert home.text("pairing", "revoke", PHONE).strip() == f"{PHONE} may not call in any more"
    assert "neither approved" in home.run("pairing", "revoke", "+15550109999").one_sentence()
    # The call still waits for the gateway.
    assert [call["callId"] for call in home.json("status")["calls"]] == [printed["callId"]]


def test_an_empty_id_is_no_call(home: Home) -> None:
    for blank in ("", " "):
        assert "--call-id is empty" in home.run("status", "--call-id", blank).one_sentence()


def test_a_phone_that_is_off_is_told(home: Home) -> None:
    home.configure({"plugins": {"entries": {"voice-call": {"enabled": False}}}})
    for command in (("latency",), ("pairing", "list"), TALK):
        said = home.run(*command).one_sentence()
        assert "the phone is off: set plugins.entries.voice-call.enabled to true" in said


def test_words_that_are_no_text_are_refused(home: Home) -> None:
    refused = home.run("call", "--to", PHONE, "--message", "h\udcffi")
    assert refused.one_sentence() == "message must be Unicode text (in a terminal: UTF-8)"


def test_a_caller_of_the_demo_has_something_to_say(tmp_path: Path) -> None:
    demo = ("demo", "--say", "Hello.", "--say")
    empty, no_text = Home(tmp_path).run_all((*demo, " "), (*demo, "h\udcffi"))
    assert empty.one_sentence() == "--say is empty; leave it out for the built-in story"
    assert no_text.one_sentence() == "--say must be Unicode text (in a terminal: UTF-8)"


def test_a_recording_that_cannot_be_written_is_told_before_the_demo(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "no" / "call.wav")
    said = Home(tmp_path).run("demo", "--output", nowhere).one_sentence()
    assert "cannot be written" in said
