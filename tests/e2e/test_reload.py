"""A changed configuration file is in force for the next call; live calls keep what they have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.ports import reserve_port

from voicecall import ProviderKind
from voicecall.agent import AgentEvent, AgentTurn, TextDelta
from voicecall.errors import ConfigError
from voicecall.model import EndDetail
from voicecall_mock.exchange import HangUp, Say, Silent, WaitForSilence

from .lab.puppets import Extra, Puppet, RecordingSpeech, VoiceBlock, provider_plugin
from .lab.town import GREETING, Town, open_town, said, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio, pytest.mark.usefixtures("backstage")]

WAIT = WaitForSilence(300)
SECOND = "+15550100002"
BRANCH = "+15550100077"
APPLIED: tuple[list[str], list[str]] = (["voice-call"], [])


def voice(name: str) -> dict[str, Any]:
    return {"provider": "choir", "providers": {"choir": {"speakerVoice": name}}}


class House:
    """A town whose agent can be held up, and whose voices are recorded."""

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.agent = Puppet({"Wait.": self._held})
        self.choir = RecordingSpeech()
        self.made: list[VoiceBlock] = []

    async def _held(self, turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        await self.gate.wait()
        yield TextDelta("Here.")

    async def hold(self, town: Town) -> str:
        """A call whose agent does not answer before the gate is open; it ends after that."""
        before = len(self.agent.asked)
        carrier_id = town.call_in(WAIT, Say("Wait."), WAIT, HangUp())
        await until(lambda: len(self.agent.asked) > before)
        return carrier_id

    def voices_of(self, text: str) -> list[str | None]:
        return [name for name, spoken in self.choir.spoken if spoken == text]

    @asynccontextmanager
    async def town(
        self, tmp_path: Path, *, extra: Sequence[Extra] = (), **config: Any
    ) -> AsyncIterator[Town]:
        choir = provider_plugin(
            ProviderKind.TTS, "choir", self.choir, config_model=VoiceBlock, made=self.made
        )
        async with open_town(
            tmp_path, self.agent, config={"tts": voice("anna"), **config}, extra=(choir, *extra)
        ) as town:
            yield town


async def test_greeting_voice_and_policy_change_while_a_call_goes_on(tmp_path: Path) -> None:
    house = House()
    async with house.town(tmp_path) as town:
        service, engine = town.service, town.engine
        live = await house.hold(town)

        town.edit(tts=voice("bert"), inboundGreeting="New clinic.")
        assert await town.reload() == APPLIED
        carrier_id, record = await town.call(WAIT, HangUp(), number=SECOND)
        assert said(record) == [("bot", "New clinic.", True)]
        assert town.heard(carrier_id) == ["New clinic."]
        assert house.voices_of("New clinic.") == ["bert"]

        town.edit(inboundPolicy="disabled")
        assert await town.reload() == APPLIED
        _, refused = await town.call(Silent(), number=SECOND)
        assert refused.end_detail is EndDetail.POLICY

        house.gate.set()
        record = await town.over(live)
        assert said(record) == [
            ("bot", GREETING, True),
            ("user", "Wait.", True),
            ("bot", "Here.", True),
        ]
        assert town.heard(live) == [GREETING, "Here."]
        assert house.voices_of("Here.") == ["anna"]
        assert (town.service, town.engine) == (service, engine)
        assert len(house.made) == 1
        await town.nothing_left()


async def test_the_file_is_watched(tmp_path: Path) -> None:
    async with House().town(tmp_path) as town:
        town.edit(inboundGreeting="Seen.")
        await until(lambda: town.engine.config.inbound_greeting == "Seen.")
        _, record = await town.call(WAIT, HangUp())
        assert said(record) == [("bot", "Seen.", True)]


async def test_routes_and_the_default_agent_change_for_the_next_call(tmp_path: Path) -> None:
    house = House()
    listed = {"list": [{"id": "desk", "default": True, "backend": "puppet", "model": "m/two"}]}
    async with house.town(tmp_path) as town:
        live = await house.hold(town)
        route = {
            "inboundGreeting": "Branch.",
            "responseSystemPrompt": "Be short.",
            "tts": {"providers": {"choir": {"speakerVoice": "cleo"}}},
        }
        town.edit({"agents": listed}, numbers={BRANCH: route})
        assert await town.reload() == APPLIED
        _, record = await town.call(WAIT, Say("Hi."), WAIT, HangUp(), number=SECOND, to=BRANCH)
        assert (record.agent_id, record.route_key) == ("desk", BRANCH)
        assert house.voices_of("Branch.") == ["cleo"]
        assert house.voices_of("You said: Hi.") == ["cleo"]
        _, plain = await town.call(WAIT, Say("No."), WAIT, HangUp(), number=SECOND)
        assert said(plain)[0] == ("bot", GREETING, True)

        house.gate.set()
        assert (await town.over(live)).agent_id == "main"
        turns = {turn.text: turn for turn in house.agent.turns}
        seen = [(t.agent_id, t.model, t.system_prompt) for t in turns.values()]
        assert seen == [
            ("main", None, None),
            ("desk", "m/two", "Be short."),
            ("desk", "m/two", None),
        ]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"inboundGreting": "Oops."}, "inboundGreting: unknown key; did you mean"),
        ({"inboundPolicy": "everybody"}, "inboundPolicy"),
        ({"numbers": {"12": {}}}, "E.164"),
    ],
)
async def test_an_invalid_edit_changes_nothing(
    tmp_path: Path, edit: dict[str, Any], words: str
) -> None:
    async with House().town(tmp_path) as town:
        town.edit(**{"inboundGreeting": "Never said.", **edit})
        with pytest.raises(ConfigError, match=words):
            await town.reload()
        _, record = await town.call(WAIT, HangUp())
        assert said(record) == [("bot", GREETING, True)]
        town.edit(inboundGreeting="Mended.")
        assert await town.reload() == APPLIED
        _, record = await town.call(WAIT, HangUp())
        assert said(record) == [("bot", "Mended.", True)]


async def test_a_voice_that_is_not_there_is_reported_and_the_old_one_speaks(
    tmp_path: Path,
) -> None:
    house = House()
    async with house.town(tmp_path) as town:
        town.edit({"agents": {"defaults": {"backend": "nobody"}}}, inboundGreeting="Never said.")
        applied, [waiting] = await town.reload()
        assert applied == []
        assert "voice-call is not used" in waiting
        assert "nobody" in waiting
        _, record = await town.call(WAIT, Say("Hi."), WAIT, HangUp())
        assert said(record)[-1] == ("bot", "You said: Hi.", True)
        town.edit(inboundGreeting="Mended.")
        assert await town.reload() == APPLIED


async def test_what_needs_a_restart_waits_until_no_call_is_live(tmp_path: Path) -> None:
    house = House()
    port = reserve_port()
    async with house.town(tmp_path) as town:
        service = town.service
        live = await house.hold(town)
        town.edit(serve={"port": port}, inboundGreeting="Restarted.")
        applied, [waiting] = await town.reload()
        assert applied == []
        assert "waits until nothing is under way" in waiting
        _, record = await town.call(WAIT, HangUp(), number=SECOND)
        assert said(record) == [("bot", GREETING, True)]
        assert town.service is service

        house.gate.set()
        assert said(await town.over(live))[-1] == ("bot", "Here.", True)
        await until(lambda: town.service is not service and town.service.server is not None)
        server = town.service.server
        assert server is not None
        assert f":{port}/" in server.webhook_url
        assert await town.reload() == ([], [])
        await until(lambda: f":{port}/" in (town.exchange.inbound_webhook or ""))
        _, record = await town.call(WAIT, HangUp())
        assert said(record) == [("bot", "Restarted.", True)]


async def test_a_secret_is_read_again(tmp_path: Path) -> None:
    house = House()
    secret = tmp_path / "key"
    secret.write_text("first-key")
    secret.chmod(0o600)
    provider = {"source": "file", "path": str(secret), "mode": "singleValue"}
    reference = {"source": "file", "provider": "safe", "id": "value"}
    block = {"apiKey": reference, "speakerVoice": "anna"}
    changes = {"tts": {"providers": {"choir": block}}}
    async with house.town(tmp_path) as town:
        town.edit({"secrets": {"providers": {"safe": provider}}}, **changes)
        assert await town.reload() == APPLIED
        assert house.made[-1].api_key == "first-key"
        secret.write_text("second-key")
        live = await house.hold(town)
        applied, [waiting] = await town.reload()
        assert applied == []
        assert "waits until nothing is under way" in waiting
        assert house.made[-1].api_key == "first-key"
        house.gate.set()
        await town.over(live)
        await until(lambda: house.made[-1].api_key == "second-key")
        secret.unlink()
        applied, [waiting] = await town.reload()
        assert applied == []
        assert "tts.providers.choir.apiKey" in waiting
        # The phone keeps the key that it has.
        carrier_id, _ = await town.call(WAIT, HangUp())
        assert town.heard(carrier_id) == [GREETING]
        assert house.made[-1].api_key == "second-key"
