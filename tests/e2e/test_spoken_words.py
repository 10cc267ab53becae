"""A dialogue in real words: synthesised, sent over telephone audio and recognised."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicecall_mock.exchange import HangUp, Say, WaitForSilence
from voicecall_tts_espeak.config import EspeakConfig
from voicecall_tts_espeak.provider import EspeakProvider

from .lab.puppets import Puppet
from .lab.town import open_town, said

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

WAIT = WaitForSilence(700)


async def test_a_caller_with_a_voice_is_understood(tmp_path: Path) -> None:
    config = {
        "inboundGreeting": "Hello.",
        "silenceTimeoutMs": 600,
        "streaming": {
            "provider": "pocketsphinx",
            "providers": {"pocketsphinx": {"phrases": ["what are your opening hours", "goodbye"]}},
        },
        "tts": {"provider": "espeak"},
    }
    replies = {"what are your opening hours": "Eight to six.", "goodbye": "Bye."}
    agent = Puppet(replies, end=["goodbye"])
    async with open_town(
        tmp_path, agent, config=config, phone_voice=EspeakProvider(EspeakConfig())
    ) as town:
        _, record = await town.call(
            WAIT, Say("What are your opening hours?"), WAIT, Say("Goodbye."), WAIT, HangUp()
        )
        assert agent.asked == ["what are your opening hours", "goodbye"]
        assert ("bot", "Eight to six.", True) in said(record)
