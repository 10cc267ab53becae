"""Several speech providers on one phone: which one speaks or takes over, and length limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voicecall import ProviderKind
from voicecall.errors import InvalidRequest
from voicecall_mock.exchange import HangUp, Say, Silent, WaitForSilence

from .lab.puppets import BrittleSpeech, Puppet, RecordingSpeech, VoiceBlock, provider_plugin
from .lab.town import CALLER, GREETING, open_town, said, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio, pytest.mark.usefixtures("backstage")]

WAIT = WaitForSilence(300)


def blocks(**voices: str) -> dict[str, Any]:
    return {name: {"speakerVoice": voice} for name, voice in voices.items()}


async def test_another_voice_takes_over_in_a_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    brittle, spare = BrittleSpeech(only=[GREETING]), RecordingSpeech()
    agent = Puppet({"Hello.": "Yes?", "Nothing.": "Bye."})
    tts = {"provider": "brittle", "providers": blocks(brittle="anna", spare="bert")}
    extra = [
        provider_plugin(ProviderKind.TTS, name, speech, config_model=VoiceBlock)
        for name, speech in (("brittle", brittle), ("spare", spare))
    ]
    async with open_town(tmp_path, agent, config={"tts": tts}, extra=extra) as town:
        carrier_id, record = await town.call(
            WAIT, Say("Hello."), WAIT, Say("Nothing."), WAIT, HangUp()
        )
        answers = ["Yes?", "Bye."]
        assert town.heard(carrier_id) == [GREETING, *answers]
        assert [line[:2] for line in said(record)] == [
            ("bot", GREETING),
            ("user", "Hello."),
            ("bot", answers[0]),
            ("user", "Nothing."),
            ("bot", answers[1]),
        ]
        assert brittle.refused == 1
        assert spare.spoken == [("bert", answer) for answer in answers]
        (failure,) = (await town.rpc("status"))["failures"]
        assert (failure["kind"], failure["provider"]) == ("tts", "brittle")
        assert (failure["callId"], failure["inARow"]) == (record.call_id, 1)
        # The next call does not wait for the one that failed.
        carrier_id, _ = await town.call(WAIT, HangUp())
        assert town.heard(carrier_id) == [GREETING]
        assert (brittle.refused, spare.spoken[-1]) == (1, ("bert", GREETING))
        await town.nothing_left()
    [line] = [r.getMessage() for r in caplog.records if "falls back" in r.getMessage()]
    assert f"{record.call_id}: speech falls back from brittle to spare: provider_error" in line


async def test_a_message_that_is_too_long_is_refused(tmp_path: Path) -> None:
    voice = RecordingSpeech()
    answer = "This sentence has a comma, and is longer than 40."
    agent = Puppet({"Hello.": answer})
    extra = [provider_plugin(ProviderKind.TTS, "voice", voice, config_model=VoiceBlock)]
    # The limit of the whole gateway is that of the phone too.
    tree = {"tts": {"maxTextLength": 40}}
    tts = {"provider": "voice"}
    async with open_town(tmp_path, agent, config={"tts": tts}, tree=tree, extra=extra) as town:
        carrier_id = town.call_in(WAIT, Say("Hello."), Silent(60_000))
        call_id = (await town.live(carrier_id)).call_id

        def finished(text: str) -> bool:
            lane = town.engine.lane_of(call_id)
            return lane is not None and ("bot", text, True) in said(lane.record)

        # What an agent answers is never refused.
        await until(lambda: finished(answer))
        asked = [text for _, text in voice.spoken]
        assert " ".join(asked[-2:]) == answer
        assert max(map(len, asked)) <= 40
        why = r"message has 41 characters; tts\.maxTextLength allows 40"
        for method in ("speak", "continue", "continue.start"):
            with pytest.raises(InvalidRequest, match=why):
                await town.rpc(method, callId=call_id, message="x" * 41)
        with pytest.raises(InvalidRequest, match=why):
            await town.rpc("initiate", to=CALLER, message="x" * 41, mode="notify")
        assert [text for _, text in voice.spoken] == asked
        assert list(town.engine.lanes) == [call_id]
        await town.rpc("speak", callId=call_id, message="x" * 40)
        assert voice.spoken[-1] == (None, "x" * 40)
        await town.rpc("end", callId=call_id)
        await town.over(call_id)
        await town.nothing_left()
