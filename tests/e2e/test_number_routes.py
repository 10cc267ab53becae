"""Several numbers of ours: each with its greeting, agent, model, prompt, patience and voice."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicecall import ProviderKind
from voicecall_mock.exchange import HangUp, Say, WaitForSilence

from .lab.puppets import Puppet, RecordingSpeech, VoiceBlock, hang, provider_plugin
from .lab.town import GREETING, open_town, said

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

WAIT = WaitForSilence(300)
SALES = "+15550100021"
SUPPORT = "+15550100022"
NUMBERS = {
    SALES: {
        "inboundGreeting": "This is sales.",
        "agentId": "Seller",
        "responseModel": "acme/sharp",
        "responseSystemPrompt": "Sell.",
        "tts": {"providers": {"choir": {"speakerVoice": "sue"}}},
    },
    SUPPORT: {"agentId": "helper", "responseTimeoutMs": 300},
}
AGENTS = {
    "defaults": {"backend": "puppet", "model": "acme/plain"},
    "list": [{"id": "front", "default": True}, {"id": "seller"}, {"id": "helper", "model": "h/1"}],
}


async def test_each_number_has_its_own_settings(tmp_path: Path) -> None:
    agent, choir = Puppet({"Hang.": hang}), RecordingSpeech()
    tts = {"provider": "choir", "providers": {"choir": {"speakerVoice": "fred"}}}
    plugin = provider_plugin(ProviderKind.TTS, "choir", choir, config_model=VoiceBlock)
    config = {"numbers": NUMBERS, "tts": tts, "responseSystemPrompt": "Help."}
    async with open_town(
        tmp_path, agent, config=config, tree={"agents": AGENTS}, extra=[plugin]
    ) as town:
        talk = (WAIT, Say("Hello."), WAIT, HangUp())
        carrier_id, sales = await town.call(*talk, to=SALES)
        assert town.heard(carrier_id) == ["This is sales.", "You said: Hello."]
        # The same number, as a carrier may write it.
        _, again = await town.call(*talk, to=SALES.removeprefix("+"), number="+15550100002")
        _, plain = await town.call(*talk, number="+15550100003")
        failed = town.exchange.dial_in(
            "+15550100004", SUPPORT, (WAIT, Say("Hang."), WAIT, HangUp())
        )
        support = await town.over(failed)

        assert [r.route_key for r in (sales, again, plain, support)] == [
            SALES,
            SALES,
            None,
            SUPPORT,
        ]
        assert said(again)[0] == ("bot", "This is sales.", True)
        assert said(plain)[0] == said(support)[0] == ("bot", GREETING, True)
        asked = [(t.agent_id, t.model, t.system_prompt) for t in agent.turns]
        assert asked[:3] == [
            ("seller", "acme/sharp", "Sell."),
            ("seller", "acme/sharp", "Sell."),
            ("front", "acme/plain", "Help."),
        ]
        assert set(asked[3:]) == {("helper", "h/1", "Help.")}
        # An agent that does not answer in the time of its number is not waited for.
        [*_, last] = await town.turns(support)
        assert last.failed is not None
        voices = {
            text: {v for v, spoken in choir.spoken if spoken == text} for _, text in choir.spoken
        }
        assert voices["This is sales."] == {"sue"}
        assert voices["You said: Hello."] == {"sue", "fred"}
        assert voices[GREETING] == {"fred"}
        for record, agent_id in ((sales, "seller"), (plain, "front"), (support, "helper")):
            assert record.agent_id == agent_id
            assert (record.session_key or "").startswith(f"agent:{agent_id}:voice:")
        await town.nothing_left()
