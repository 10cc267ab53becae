"""The mock exchange without sockets: playback, measuring, recordings, JSON of its control."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall import telephony as tel
from voicecall.seam import SystemSeam
from voicecall_mock.exchange import (
    AnswerMode,
    Behaviour,
    Interrupt,
    Loop,
    Press,
    Say,
    ScriptError,
    Silent,
    Wait,
    WaitForSilence,
    behaviour_from_json,
    script_from_json,
    script_to_json,
)
from voicecall_mock.exchange.actions import ActionError, action_from_json, actions_from_reply
from voicecall_mock.exchange.faults import FaultError, Faults
from voicecall_mock.exchange.meter import Meter, is_loud
from voicecall_mock.exchange.native import digits_s
from voicecall_mock.exchange.options import ExchangeOptions
from voicecall_mock.exchange.playback import Playback
from voicecall_mock.exchange.recording import Recording
from voicecall_mock.exchange.script import caller_from_json
from voicecall_mock.protocol import action_to_json

pytestmark = pytest.mark.unit

LOUD = b"\x10" * 160
HUSH = b"\xff" * 160

# --- playback --------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=400), max_size=12))
def test_everything_fed_is_played_in_order_and_marks_come_at_their_place(
    pieces: list[bytes],
) -> None:
    playback = Playback()
    for index, piece in enumerate(pieces):
        playback.feed(piece, 0.0)
        playback.mark(str(index))
    audio = b"".join(pieces)
    ends = [len(b"".join(pieces[: n + 1])) for n in range(len(pieces))]
    played = b""
    marks = playback.reached()
    while (frame := playback.take()) is not None:
        played += frame
        marks += playback.reached()
        assert marks == [str(n) for n, end in enumerate(ends) if end <= len(played)]
    assert played[: len(audio)] == audio
    assert played[len(audio) :].strip(b"\xff") == b""
    assert marks == [str(n) for n in range(len(pieces))]


def test_clear_empties_the_buffer_and_returns_the_marks() -> None:
    playback = Playback()
    playback.feed(LOUD * 3, 0.0)
    playback.mark("a")
    assert playback.take() == LOUD
    assert playback.clear() == ["a"]
    assert playback.take() is None
    assert playback.reached() == []
    playback.mark("b")
    assert playback.reached() == ["b"]


@pytest.mark.parametrize(("gap", "underruns"), [(0.1, 1), (0.5, 0)])
def test_a_dry_buffer_between_close_messages_is_an_underrun(gap: float, underruns: int) -> None:
    playback = Playback(gap_ms=400)
    playback.feed(LOUD, 1.0)
    playback.take()
    playback.take()
    playback.feed(LOUD, 1.0 + gap)
    assert playback.underruns == underruns


def test_a_full_buffer_drops_and_counts() -> None:
    playback = Playback(limit=200)
    playback.feed(LOUD, 0.0)
    playback.feed(LOUD, 0.0)
    assert (playback.dropped, playback.pending_ms) == (160, 20)


# --- meter and recording ---------------------------------------------------------------------


def feed(meter: Meter, count: int, said: bytes | None, heard: bytes | None) -> None:
    for _ in range(count):
        meter.frame(said, heard)


def test_loudness() -> None:
    assert is_loud(LOUD)
    assert not is_loud(HUSH)
    assert not is_loud(HUSH[:155] + LOUD[:5])


def test_the_stop_time_runs_to_the_last_loud_frame_that_was_played() -> None:
    meter = Meter(settle_ms=200)
    feed(meter, 10, None, LOUD)
    meter.phone_begins()
    feed(meter, 3, HUSH, LOUD)
    feed(meter, 5, LOUD, LOUD)
    assert meter.barge_in_stop_ms == [100]
    feed(meter, 20, LOUD, HUSH)
    assert meter.barge_in_stop_ms == [100]
    feed(meter, 5, None, LOUD)
    assert meter.barge_in_stop_ms == [100]


def test_speech_into_silence_is_no_interruption_and_its_answer_is_timed() -> None:
    meter = Meter()
    feed(meter, 5, None, LOUD)
    feed(meter, 30, None, None)
    meter.phone_begins()
    feed(meter, 5, LOUD, None)
    feed(meter, 12, None, None)
    feed(meter, 5, None, LOUD)
    assert meter.barge_in_stop_ms == []
    assert meter.response_ms == [240]


def test_a_recording_fills_the_time_between_streams() -> None:
    recording = Recording(10)
    recording.resume(5.0)
    recording.add(LOUD, None)
    recording.resume(5.1)
    recording.add(None, LOUD)
    assert recording.said == LOUD + HUSH * 5
    assert recording.heard == HUSH * 5 + LOUD
    assert recording.duration_ms == 120
    assert len(recording.wav()) == 44 + 4 * 160 * 6


def test_a_recording_is_limited() -> None:
    recording = Recording(0.04)
    recording.resume(0.0)
    recording.resume(100.0)
    recording.add(LOUD, LOUD)
    assert recording.duration_ms == 40


# --- JSON ------------------------------------------------------------------------------------


def test_scripts_survive_json() -> None:
    script = (
        WaitForSilence(timeout_ms=5),
        Say("a", b"\x00\xff", "b"),
        Interrupt(3, "c"),
        Press("1"),
        Silent(),
        Wait(7),
        Loop(2),
    )
    assert script_from_json(script_to_json(script)) == script


@pytest.mark.parametrize(
    "bad",
    [
        "say",
        ["say"],
        [{"do": "say"}],
        [{"do": "say", "text": 1}],
        [{"do": "say", "text": "a", "audio": "%"}],
        [{"do": "say", "text": "a", "audio": "é"}],
        [{"do": "say", "text": "a", "loud": True}],
        [{"do": "wait", "ms": -1}],
        [{"do": "wait", "ms": True}],
        [{"do": "loop", "start": 1}],
    ],
)
def test_bad_scripts_are_refused(bad: Any) -> None:
    with pytest.raises(ScriptError):
        script_from_json(bad)


def test_behaviours() -> None:
    assert behaviour_from_json([]).answer is AnswerMode.ANSWER
    busy = behaviour_from_json({"answer": "busy", "afterMs": 3, "patienceS": 2, "script": []})
    assert (busy.answer, busy.after_ms, busy.patience_s, busy.script) == ("busy", 3, 2.0, ())
    endless = [{"patienceS": number} for number in (math.nan, math.inf, -1, 10**400)]
    for bad in ({"answer": "maybe"}, {"mood": 1}, {"patienceS": "long"}, *endless):
        with pytest.raises(ScriptError):
            behaviour_from_json(bad)


def test_a_phone_that_calls_does_not_answer() -> None:
    assert caller_from_json({"script": [], "patienceS": 2}) == Behaviour((), patience_s=2.0)
    for bad in ({"answer": "busy"}, {"afterMs": 3}, {"mood": 1}):
        with pytest.raises(ScriptError):
            caller_from_json(bad)


@pytest.mark.parametrize(
    "action",
    [
        tel.Answer(),
        tel.Answer(tel.StreamRequest("ws://h/m", "t")),
        tel.Reject(),
        tel.Reject("no"),
        tel.Reject(busy=True),
        tel.Speak("u", "text", "voice", tel.Listen("t", 300)),
        tel.Listen("t"),
        tel.StopListening(),
        tel.PlayDigits("0123456789*#wWpP,"),
        tel.AttachStream(tel.StreamRequest("wss://h/m", "t")),
        tel.LimitDuration(30),
        tel.Hangup(),
    ],
)
def test_actions_are_read_as_they_are_written(action: tel.Action) -> None:
    assert action_from_json(action_to_json(action)) == action


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        {"action": "dance"},
        {"action": "speak", "text": "a"},
        {"action": "digits", "digits": "x"},
        {"action": "digits", "digits": "A"},
        {"action": "digits", "digits": ""},
        {"action": "stream", "url": "http://h", "token": "t"},
        {"action": "listen", "token": "t", "endSilenceMs": "1"},
        {"action": "answer", "stream": []},
        {"action": "limit", "seconds": 0},
        {"action": "speak", "utterance": "u", "text": "a", "listen": []},
    ],
)
def test_bad_actions_are_refused(bad: Any) -> None:
    with pytest.raises(ActionError):
        action_from_json(bad)
    with pytest.raises(ActionError):
        actions_from_reply({"actions": [bad]})


def test_faults() -> None:
    faults = Faults()
    faults.replace({"rest": {"status": 503, "paths": ["POST /v1/calls"], "times": 1}})
    assert not faults.rest.take("GET", "/v1/calls")
    assert faults.rest.take("POST", "/v1/calls")
    assert not faults.rest.take("POST", "/v1/calls")
    assert not faults.happens(0, SystemSeam())
    assert faults.happens(1, SystemSeam())
    refused: list[Any] = [[], {"x": 1}, {"rest": {"status": 200}}, {"webhooks": {"lose": -1}}]
    refused.append({"webhooks": {"lose": 10**400}})
    for bad in refused:
        with pytest.raises(FaultError):
            faults.replace(bad)


def test_tones_take_their_time() -> None:
    assert digits_s("w,pW12", ExchangeOptions(digit_ms=100)) == pytest.approx(3.2)


def test_the_emulator_says_where_it_listens_and_stops_on_a_signal() -> None:
    code = "from voicecall_mock.emulator import run; run(0)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("exchange on http://127.0.0.1:")
        child.terminate()
        assert child.stdout.read() == ""
        assert child.wait(10) == 0
