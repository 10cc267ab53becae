"""What the status reports of recognisers, voices, voice models and agents that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from voicecall.errors import AuthenticationFailed, ProviderError, ProviderUnavailable
from voicecall.providers import ProviderKind
from voicecall.realtime import SessionLost, ToolCall
from voicecall_calls.troubles import Troubles
from voicecall_testing.clock import VirtualSeam, virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.harness import CALLER, Phone, open_phone

from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

SECRET = "key-of-the-operator"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def failures(phone: Phone) -> Sequence[Mapping[str, Any]]:
    status = await phone.operations.status(None)
    assert SECRET not in repr(status)
    assert CALLER not in repr(status)
    told: Sequence[Mapping[str, Any]] = status.get("failures", ())
    return told


async def test_each_provider_has_its_last_failure_and_the_newest_is_first() -> None:
    seam = VirtualSeam()
    troubles = Troubles(seam)
    voice, ears = troubles.of(ProviderKind.TTS, "a"), troubles.of(ProviderKind.TRANSCRIPTION, "a")
    assert troubles.report() == {}
    began = seam.now_ms()
    voice.failed("c-1", "ProviderTimeout")
    seam.set_wall_clock(5)
    ears.failed("c-2", "SessionLost")
    ears.failed("c-3", "ProviderUnavailable")
    troubles.of(ProviderKind.TTS, "a").worked()
    assert troubles.report()["failures"] == [
        {
            "kind": "transcription",
            "provider": "a",
            "at": began + 5,
            "reason": "ProviderUnavailable",
            "callId": "c-3",
            "inARow": 2,
        },
        {
            "kind": "tts",
            "provider": "a",
            "at": began,
            "reason": "ProviderTimeout",
            "callId": "c-1",
            "inARow": 0,
        },
    ]


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (ProviderUnavailable(f"down for {CALLER}", provider="scripted"), 4),
        (AuthenticationFailed(f"not with {SECRET}", provider="scripted"), 1),
    ],
)
async def test_a_recogniser_that_is_down_is_told(
    tmp_path: Path, error: ProviderError, tries: int
) -> None:
    async with open_phone(tmp_path) as phone:
        assert await failures(phone) == ()
        phone.stt.open_errors.extend([error] * tries)
        began = phone.now()
        await phone.call_in()
        await phone.settle(30)
        (failure,) = await failures(phone)
        assert (failure["kind"], failure["provider"]) == ("transcription", "scripted")
        assert (failure["reason"], failure["inARow"]) == (type(error).__name__, tries)
        assert failure["callId"] == phone.record.call_id
        assert began <= failure["at"] <= began + 5000


async def test_a_recogniser_that_is_back_has_failed_no_more_in_a_row(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(5)
        phone.stt.lost()
        await phone.settle(2)
        (failure,) = await failures(phone)
        assert (failure["reason"], failure["inARow"]) == ("SessionLost", 0)


async def test_a_recogniser_that_hangs_is_told(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.stt.open_delay_s = 3600
        await phone.call_in()
        await phone.settle(11)
        (failure,) = await failures(phone)
        assert (failure["reason"], failure["inARow"]) == ("ProviderTimeout", 1)


class Broken(ScriptedRealtime):
    def session(self, options: Any) -> Any:
        raise ProviderUnavailable(f"{SECRET} {CALLER}", provider="scripted")


async def test_a_voice_model_that_is_down_is_told(tmp_path: Path) -> None:
    async with open_realtime(tmp_path, Broken()) as phone:
        await phone.call_in()
        await phone.settle(30)
        (failure,) = await failures(phone)
        assert (failure["kind"], failure["provider"]) == ("realtime", "scripted")
        assert (failure["reason"], failure["inARow"]) == ("ProviderUnavailable", 2)


async def test_a_voice_model_that_is_back_has_failed_no_more_in_a_row(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await phone.call_in()
        await phone.settle(1)
        model.current.tell(SessionLost(f"{SECRET} {CALLER}", fatal=True))
        await phone.settle(2)
        (failure,) = await failures(phone)
        assert (failure["reason"], failure["inARow"]) == ("SessionLost", 0)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (AuthenticationFailed(f"not with {SECRET}", provider="scripted"), "AuthenticationFailed"),
        (RuntimeError(f"{SECRET} {CALLER}"), "RuntimeError"),
        (3600.0, "TimeoutError"),
        ("", "nothing said"),
    ],
)
@pytest.mark.parametrize("held_by_a_model", [False, True])
async def test_an_agent_that_fails_is_told(
    tmp_path: Path, step: Exception | float | str, reason: str, held_by_a_model: bool
) -> None:
    model = ScriptedRealtime()
    quiet = {"inactivityMs": 0}
    held = open_realtime(tmp_path, model, realtime=quiet)
    async with held if held_by_a_model else open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)

        async def ask() -> None:
            if held_by_a_model:
                question = {"question": "What are your opening hours?"}
                model.current.tell(ToolCall(str(phone.now()), "voicecall_agent_consult", question))
            else:
                phone.hears("What are your opening hours?")
            await phone.settle(phone.config.response_timeout_ms / 1000 + 1)

        phone.agent.then(step)
        await ask()
        (failure,) = await failures(phone)
        assert (failure["kind"], failure["provider"]) == ("agent", "scripted")
        assert (failure["reason"], failure["inARow"]) == (reason, 1)
        assert failure["callId"] == phone.record.call_id
        await ask()
        (failure,) = await failures(phone)
        assert (failure["reason"], failure["inARow"]) == (reason, 0)


async def test_an_agent_that_is_interrupted_has_not_failed(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.agent.then(5.0, "Late.")
        phone.hears("What are your opening hours?")
        await phone.settle(1)
        phone.hears("On Sunday, I mean.")
        await phone.settle(3)
        assert ("bot", "Yes.") in phone.said
        assert await failures(phone) == ()
