"""Several numbers of ours, each with its own greeting, agent, model, prompt, timeout and voice."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from voicecall import ProviderKind
from voicecall.model import CallRecord
from voicecall_mock.exchange import HangUp, Say, WaitForSilence

from .lab.puppets import Puppet, RecordingSpeech, VoiceBlock, hang, provider_plugin
from .lab.town import CLINIC, GREETING, open_town, said

pytestmark = [pytest.mark.e2e, pytest.mark.anyio, pytest.mark.usefixtures("backstage")]

WAIT = WaitForSilence(300)
SALES = "+15550100021"
SUPPORT = "+15550100022"
NUMBERS = {
    SALES: {
        "inboundGreeting": "Sales.",
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
        calls: dict[str, tuple[str, CallRecord]] = {}

        async def call(name: str, to: str, number: str, words: str) -> None:
            steps = (WAIT, Say(words), WAIT, HangUp())
            calls[name] = await town.call(*steps, to=to, number=number)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "sales", SALES, "+15550100001", "Sell.")
            # The same number, as a carrier may write it.
            tasks.start_soon(call, "again", SALES.removeprefix("+"), "+15550100002", "Again.")
            tasks.start_soon(call, "plain", CLINIC, "+15550100003", "Hello.")
            tasks.start_soon(call, "support", SUPPORT, "+15550100004", "Hang.")
        assert town.heard(calls["sales"][0]) == ["Sales.", "You said: Sell."]
        sales, again, plain, support = (
            calls[name][1] for name in ("sales", "again", "plain", "support")
        )
        assert [r.route_key for r in (sales, again, plain, support)] == [
            SALES,
            SALES,
            None,
            SUPPORT,
        ]
        assert said(again)[0] == ("bot", "Sales.", True)
        assert said(plain)[0] == said(support)[0] == ("bot", GREETING, True)
        asked = {t.text: (t.agent_id, t.model, t.system_prompt) for t in agent.turns}
        assert asked == {
            "Sell.": ("seller", "acme/sharp", "Sell."),
            "Again.": ("seller", "acme/sharp", "Sell."),
            "Hello.": ("front", "acme/plain", "Help."),
            "Hang.": ("helper", "h/1", "Help."),
        }
        # An agent that does not answer in the time of its number is not waited for.
        [*_, last] = await town.turns(support)
        assert last.failed is not None
        voices = {
            text: {v for v, spoken in choir.spoken if spoken == text} for _, text in choir.spoken
        }
        assert voices["Sales."] == {"sue"}
        assert voices["You said: Again."] == {"sue"}
        assert voices["You said: Hello."] == {"fred"}
        assert voices[GREETING] == {"fred"}
        for record, agent_id in ((sales, "seller"), (plain, "front"), (support, "helper")):
            assert record.agent_id == agent_id
            assert (record.session_key or "").startswith(f"agent:{agent_id}:voice:")
        await town.nothing_left()
