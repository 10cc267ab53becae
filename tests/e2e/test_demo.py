"""``voicecall demo`` as users start it, with the local speech engines, and what can go wrong."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
import wave
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import anyio
import numpy as np
import pytest

import voicecall_calls.demo.run
from voicecall.errors import VoicecallError
from voicecall.registry import Registry
from voicecall_calls.demo.exchange import DemoExchange, exchange_process
from voicecall_calls.demo.run import run_demo, save

from .lab.process import START_PATIENCE_S, Home, port_is_free

pytestmark = pytest.mark.e2e

BUILT_IN = 4
"""Sentences of the built-in story."""


def test_the_built_in_story_is_understood_and_recorded(tmp_path: Path) -> None:
    document = Home(tmp_path, cold=True).json("demo")
    assert document["understood"] == document["expected"] == BUILT_IN
    inbound, outbound = document["inbound"], document["outbound"]
    assert isinstance(inbound, dict)
    assert isinstance(outbound, dict)
    assert (inbound["state"], inbound["endDetail"]) == ("hangup-bot", "agent")
    assert (outbound["state"], outbound["endDetail"]) == ("hangup-bot", "notified")
    assert isinstance(document["bargeInStopMs"], list)
    assert len(document["bargeInStopMs"]) == 1
    with wave.open(str(tmp_path / "demo-call.wav")) as recording:
        assert recording.getnchannels() == 2
        assert recording.getframerate() == 8000
        both = np.frombuffer(recording.readframes(recording.getnframes()), "<i2").astype(float)
    for side in (both[::2], both[1::2]):
        # A second of sound at the least, that is louder than line noise.
        assert np.count_nonzero(np.abs(side) > 500) > 8000


def test_words_outside_of_the_grammar_are_not_caught(tmp_path: Path) -> None:
    recording = tmp_path / "fox.wav"
    text = Home(tmp_path).text("demo", "--say", "the quick brown fox", "--output", str(recording))
    assert "I did not catch that" in text
    # Otherwise users would not know what to say instead.
    told = " ".join(text.split())
    assert "the recogniser of the demo knows only: i would like to make an appointment;" in told
    assert recording.stat().st_size > 44


def test_a_reader_that_has_gone_ends_it_without_a_word(tmp_path: Path) -> None:
    process = Home(tmp_path).popen("demo")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("A phone, ")
    process.stdout.close()
    with process.stderr as stream:
        told = stream.read()
    assert (process.wait(START_PATIENCE_S), told) == (1, "")


_EXCHANGE = """
import anyio
from voicecall_calls.demo.exchange import exchange_process

async def main():
    async with exchange_process("mock", "espeak:en-us+f2", "a-token") as exchange:
        print(exchange.base_url, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def test_its_exchange_goes_with_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _EXCHANGE], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = urlsplit(process.stdout.readline().strip()).port
        assert port is not None
        assert not port_is_free(port)
        process.kill()
    deadline = time.monotonic() + START_PATIENCE_S
    while not port_is_free(port):
        assert time.monotonic() < deadline, "the exchange stays"
        time.sleep(0.02)


def test_its_token_is_no_argument_that_others_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    open_process = anyio.open_process

    def noting(command: list[str], **options: Any) -> Any:
        started.extend(command)
        return open_process(command, **options)

    async def run() -> None:
        async with exchange_process("mock", "espeak:en-us+f2", "a-secret-token") as exchange:
            with pytest.raises(VoicecallError, match="the exchange has no call mk-1"):
                await exchange.stats("mk-1")
            stranger = DemoExchange(exchange.base_url, "another-token")
            with pytest.raises(VoicecallError, match="wrong bearer token"):
                await stranger.stats("mk-1")

    monkeypatch.setattr(anyio, "open_process", noting)
    anyio.run(run)
    assert "emulate" in started
    assert not [argument for argument in started if "a-secret-token" in argument]


def test_without_its_speech_it_names_the_extra(tmp_path: Path) -> None:
    recording = tmp_path / "none.wav"
    with pytest.raises(VoicecallError, match=r"pip install 'voicecall\[demo\]'"):
        run_demo(Registry(entries=[]), sentences=None, output=str(recording), as_json=True)
    assert not recording.exists()


def test_a_demo_that_fails_leaves_recordings_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> NoReturn:
        raise VoicecallError("the exchange did not start")

    monkeypatch.setattr(voicecall_calls.demo.run, "exchange_process", broken)
    recording = tmp_path / "call.wav"
    for before in ([], [b"an older call"]):
        for data in before:
            recording.write_bytes(data)
        with pytest.raises(VoicecallError, match="the exchange did not start"):
            run_demo(Registry(), sentences=None, output=str(recording), as_json=True)
        assert [file.read_bytes() for file in tmp_path.iterdir()] == before


def test_half_a_recording_is_not_kept(tmp_path: Path) -> None:
    recording = tmp_path / "call.wav"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(VoicecallError, match=r"call\.wav cannot be written: File too"):
            save(recording, b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not recording.exists()
    with pytest.raises(VoicecallError, match="/dev/full cannot be written: No space left"):
        save(Path("/dev/full"), b"x")
    assert Path("/dev/full").exists()


@pytest.mark.soak
def test_the_built_in_story_is_understood_twenty_times_of_twenty(tmp_path: Path) -> None:
    understood = []
    for number in range(20):
        home = Home(tmp_path / str(number))
        home.root.mkdir()
        understood.append(home.json("demo")["understood"])
    assert understood == [BUILT_IN] * 20
