"""A notification of half a minute is heard to its end, once, whoever speaks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.model import CallMode, EndDetail, MediaPath
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import NATIVE, ScriptedCarrier
from voicecall_testing.harness import open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

SENTENCE = "The clinic is closed today and opens again tomorrow. "
LEAST_S = 30


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class SpeakingCarrier(ScriptedCarrier):
    """Takes the words of a notification with the dial request."""

    def speaks_at_dial(self, message: tel.Speak) -> bool:
        return True


@pytest.mark.parametrize("media", [MediaPath.NATIVE, MediaPath.STREAM])
async def test_it_is_not_cut_and_not_begun_again(tmp_path: Path, media: MediaPath) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        sentences = 1
        while phone.tts.duration_s(SENTENCE * sentences) <= LEAST_S:
            sentences += 1
        message = (SENTENCE * sentences).strip()
        await phone.dial(message, CallMode.NOTIFY)
        await phone.answer()
        # Signs of life, such as carriers send, begin nothing again.
        for _ in range(LEAST_S - 1):
            await phone.settle(1)
            await phone.event(ev.Active)
            assert phone.record.live
        await phone.settle(15)
        assert phone.record.end_detail is EndDetail.NOTIFIED
        assert phone.said == [("bot", message)]
        if media is MediaPath.STREAM:
            assert " ".join(phone.heard) == message
        else:
            (speak,) = phone.carrier.performed_of(tel.Speak)
            assert isinstance(speak, tel.Speak)
            assert speak.listen is None
        assert len(phone.carrier.performed_of(tel.Hangup)) == 1


async def test_one_in_the_dial_request_is_left_to_the_carrier(tmp_path: Path) -> None:
    carrier = SpeakingCarrier(NATIVE)
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await phone.dial(SENTENCE, CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(LEAST_S + 10)
        assert phone.record.live
        assert carrier.performed_of(tel.Hangup) == []
        (dialled,) = carrier.dialled
        assert dialled.message is not None
        await phone.event(ev.PlaybackEnded, utterance_id=dialled.message.utterance_id)
        await phone.settle(10)
        assert phone.record.end_detail is EndDetail.NOTIFIED
        assert carrier.performed_of(tel.Speak) == []
