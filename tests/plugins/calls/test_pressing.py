"""Keys that an agent or a voice model presses, as the menu of a machine asks for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.agent import EndCall, PressKeys
from voicecall.errors import ProviderUnavailable
from voicecall.model import EndDetail, EndReason, MediaPath
from voicecall.realtime import ToolCall
from voicecall_calls.config import PhrasesConfig
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.fakes import NATIVE, STREAMING, ScriptedCarrier
from voicecall_testing.harness import Phone, open_phone

from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

SAY = PhrasesConfig()
PRESS = "voicecall_press_keys"
MENU = "For appointments press two."
both_paths = pytest.mark.parametrize("media", [MediaPath.NATIVE, MediaPath.STREAM])


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def connected(phone: Phone) -> None:
    await phone.dial("Hello.")
    await phone.answer()
    await phone.settle(5)


async def words(phone: Phone, text: str) -> None:
    """The other side says something, on either path."""
    if phone.media is MediaPath.NATIVE:
        await phone.event(ev.SpeechHeard, text=text, turn_token=phone.record.listen_token)
    else:
        phone.hears(text)
    await phone.settle(2)


def pressed(phone: Phone) -> list[str]:
    asked = phone.carrier.performed_of(tel.PlayDigits)
    requested = [one.digits for one in asked if isinstance(one, tel.PlayDigits)]
    return requested + [digits for socket in phone.sockets for digits in socket.digits]


@both_paths
async def test_an_agent_answers_a_menu_with_keys_alone(tmp_path: Path, media: MediaPath) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await connected(phone)
        phone.agent.then(PressKeys("2"), PressKeys("w #"))
        await words(phone, MENU)
        assert pressed(phone) == ["2w#"]
        # There is no apology for an answer without text, and the other side is heard.
        await phone.settle(3)
        assert phone.said == [("bot", "Hello."), ("user", MENU)]
        await words(phone, "Dr. Smith's practice.")
        assert phone.said[-2:] == [("user", "Dr. Smith's practice."), ("bot", "Yes.")]


@both_paths
async def test_keys_follow_the_words_and_the_end_follows_them(
    tmp_path: Path, media: MediaPath
) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await connected(phone)
        phone.agent.then("One moment, please.", PressKeys("9"), EndCall())
        if media is MediaPath.STREAM:
            phone.hears(MENU)
            await phone.settle(0.5)
            assert pressed(phone) == []
        else:
            await words(phone, MENU)
        await phone.settle(5)
        assert pressed(phone) == ["9"]
        assert phone.said[-1] == ("bot", "One moment, please.")
        assert phone.record.end_detail is EndDetail.AGENT


@pytest.mark.parametrize("keeps", [True, False])
async def test_the_carriers_own_recogniser_listens_behind_the_keys(
    tmp_path: Path, keeps: bool
) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, dtmf_keeps_stream=keeps))
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await connected(phone)
        phone.agent.then(PressKeys("2"))
        await words(phone, MENU)
        token = phone.record.listen_token
        assert token is not None
        again = tel.Listen(token, phone.config.silence_timeout_ms)
        assert carrier.performed_of(tel.PlayDigits) == [tel.PlayDigits("2", listen=again)]
        assert carrier.performed_of(tel.Listen) == ([again] if keeps else [])


@both_paths
async def test_a_pause_alone_is_a_silent_answer(tmp_path: Path, media: MediaPath) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        phone.takes_tones = False
        await connected(phone)
        for choice in ("For hours press one.", "For prices press three."):
            phone.agent.then(PressKeys("w"))
            await words(phone, choice)
        phone.agent.then(PressKeys("2"))
        await words(phone, MENU)
        await phone.settle(5)
        assert [speaker for speaker, _ in phone.said] == ["bot", "user", "user", "user"]
        # A media socket does not give way to silence.
        waits = ["w", "w"] if media is MediaPath.NATIVE else []
        assert pressed(phone) == [*waits, "2"]
        assert len(phone.sockets) == (0 if media is MediaPath.NATIVE else 2)
        await words(phone, "Dr. Smith's practice.")
        assert phone.said[-1] == ("bot", "Yes.")


async def test_words_that_are_interrupted_press_no_keys(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await connected(phone)
        phone.agent.then("I would like to talk to somebody about a new contract.", PressKeys("9"))
        phone.hears(MENU)
        await phone.settle(1)
        phone.hears("What did you say?")
        await phone.settle(5)
        assert phone.said[-1] == ("bot", "Yes.")
        assert pressed(phone) == []


async def test_words_into_the_keys_leave_them_to_be_played(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.takes_tones = False
        await connected(phone)
        phone.agent.then(PressKeys("12345"))
        phone.hears(MENU)
        await phone.settle(0.5)
        phone.hears("Or wait for the next agent.")
        await phone.settle(10)
        assert pressed(phone) == ["12345"]
        assert len(phone.sockets) == 2
        assert phone.said[-1] == ("bot", "Yes.")


@pytest.mark.parametrize("keys", ["", "2x", "1" * 101])
async def test_keys_that_do_not_exist_count_as_a_failure(tmp_path: Path, keys: str) -> None:
    async with open_phone(tmp_path) as phone:
        await connected(phone)
        phone.agent.then(PressKeys(keys))
        await words(phone, MENU)
        await phone.settle(2)
        assert pressed(phone) == []
        assert phone.said[-1] == ("bot", SAY.not_understood)
        assert "digits may" in ((await phone.rows())[-1].failed or "")


async def test_an_agent_that_fails_behind_its_keys_presses_none(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await connected(phone)
        phone.agent.then(PressKeys("2"), ProviderUnavailable("gone", provider="agent"))
        await words(phone, MENU)
        await phone.settle(2)
        assert pressed(phone) == []
        assert phone.said[-1] == ("bot", SAY.not_understood)


@pytest.mark.parametrize("refused", ["cannot", "fails"])
async def test_keys_that_the_carrier_does_not_play_leave_no_dead_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, refused: str
) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, dtmf_out=refused == "fails"))
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await connected(phone)
        carrier.fail(tel.PlayDigits, ProviderUnavailable("busy", provider="scripted"))
        phone.agent.then("Just a moment.", PressKeys("2"))
        await words(phone, MENU)
        await phone.settle(5)
        assert "keys were not pressed" in caplog.text
        # Otherwise the line would stay silent, and the carrier would not listen.
        assert phone.said[-1] == ("bot", SAY.not_understood)
        await words(phone, MENU)
        assert phone.said[-1] == ("bot", "Yes.")


async def test_a_call_that_ends_into_the_keys_is_over(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await connected(phone)
        phone.agent.then(PressKeys("W" * 50))
        await words(phone, MENU)
        await phone.hang_up()
        await phone.settle(1)
        assert not phone.engine.lanes
        assert phone.record.end_reason is EndReason.HANGUP_USER


# --- voice models ----------------------------------------------------------------------------


PLAYS = replace(STREAMING, dtmf_out=True)
PLAYS_NONE = replace(STREAMING, dtmf_out=False)


async def test_a_voice_model_presses_keys_behind_its_words(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, capabilities=PLAYS) as phone:
        await phone.dial()
        await phone.answer()
        await phone.settle(0.1)
        model.current.speak("One moment.", 1000)
        model.current.tell(ToolCall("t1", PRESS, {"digits": "1 2#"}))
        await phone.settle(0.5)
        assert phone.socket.digits == []
        await phone.settle(1.5)
        assert phone.socket.digits == ["12#"]
        assert model.current.results == [("t1", {"pressed": "12#"}, False)]
        assert phone.record.live


@pytest.mark.parametrize("arguments", [{}, {"digits": "x"}, {"digits": 7.5}])
async def test_a_voice_model_is_told_of_keys_that_do_not_exist(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, capabilities=PLAYS) as phone:
        await phone.dial()
        await phone.answer()
        await phone.settle(0.1)
        model.current.tell(ToolCall("t1", PRESS, arguments))
        await phone.settle(3)
        ((_, result, _),) = model.current.results
        assert result["error"].startswith("digits may only contain")
        assert phone.socket.digits == []


@pytest.mark.parametrize(
    ("inbound", "capabilities", "offered"),
    [(False, PLAYS, True), (True, PLAYS, False), (False, PLAYS_NONE, False)],
)
async def test_keys_are_offered_to_a_voice_model_that_calls_somebody(
    tmp_path: Path, inbound: bool, capabilities: tel.TelephonyCapabilities, offered: bool
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, capabilities=capabilities) as phone:
        if inbound:
            await phone.call_in()
        else:
            await phone.dial()
            await phone.answer()
        await phone.settle(1)
        names = [tool.name for tool in model.current.options.tools]
        assert (PRESS in names) is offered


async def test_a_voice_model_is_told_why_keys_were_not_pressed(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, capabilities=PLAYS_NONE) as phone:
        await phone.dial()
        await phone.answer()
        await phone.settle(0.1)
        model.current.tell(ToolCall("t1", PRESS, {"digits": "1"}))
        await phone.settle(3)
        ((_, result, _),) = model.current.results
        assert "cannot play keypad tones" in result["error"]
