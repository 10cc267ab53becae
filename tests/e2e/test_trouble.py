"""Conversations with failures: broken lines, and failing recognisers, voices and agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from tests.ports import reserve_port

from voicecall import ProviderKind
from voicecall.agent import AgentEvent, AgentTurn, TextDelta
from voicecall.errors import ProviderUnavailable
from voicecall.hosting import ToolCall
from voicecall.model import EndDetail, EndReason
from voicecall_mock.exchange import (
    DropSocket,
    HangUp,
    HangUpMidWord,
    Interrupt,
    Say,
    Silent,
    Wait,
    WaitForSilence,
)
from voicecall_mock.exchange.faults import RestFault, WebhookFault
from voicecall_testing.fsk import encode

from .lab.carriers import CARRIERS
from .lab.puppets import (
    BrittleSpeech,
    BrittleTranscription,
    Puppet,
    Reply,
    hang,
    provider_plugin,
)
from .lab.town import GREETING, PATIENCE_S, Town, open_town, said, sound, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio, pytest.mark.usefixtures("backstage")]

WAIT = WaitForSilence(300)
FIRST = "The first sentence of this story is a long one."
SENTENCES = (FIRST, "The second is short.", "The end.")
STORY = " ".join(SENTENCES)
NOT_UNDERSTOOD = "Pardon?"
FAILED = "I am sorry, something went wrong on my side. Please call again later. Goodbye."
CANNOT_HEAR = "I am sorry, I cannot hear you any more. Please call again. Goodbye."
FILLER = "One moment, please."
SORRY = "Sorry. Bye."
DEAF = "No sound."
BRIEF = {"phrases": {"notUnderstood": NOT_UNDERSTOOD, "failed": SORRY, "cannotHear": DEAF}}
"""Phrases that take less time to say than those for people."""
NO_REPORT = WebhookFault(lose=1.0, types=frozenset({"call.stream-failed"}))
"""A carrier that does not report a broken stream."""


# --- the line --------------------------------------------------------------------------------


async def test_a_caller_hangs_up_in_the_middle_of_a_word(tmp_path: Path) -> None:
    async with open_town(tmp_path, Puppet({})) as town:
        _, record = await town.call(WAIT, HangUpMidWord("I would like to have", 200))
        assert (record.state.value, record.end_reason) == ("hangup-user", EndReason.HANGUP_USER)
        assert said(record) == [("bot", GREETING, True)]
        assert record.deadlines == {}
        await town.nothing_left()


async def test_a_caller_hangs_up_while_the_agent_speaks(tmp_path: Path) -> None:
    agent = Puppet({"Tell me.": STORY})
    async with open_town(tmp_path, agent) as town:
        _, record = await town.call(WAIT, Say("Tell me."), Wait(900), HangUp())
        assert record.end_reason is EndReason.HANGUP_USER
        assert [line[:2] for line in said(record)[:2]] == [
            ("bot", GREETING),
            ("user", "Tell me."),
        ]
        assert STORY not in [text for _, text, _ in said(record)]
        await town.nothing_left()


async def test_a_socket_that_breaks_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    agent = Puppet({"Tell me.": STORY, "Thank you.": "You are welcome."})
    async with open_town(tmp_path, agent) as town:
        town.exchange.faults.webhooks = NO_REPORT
        carrier_id = town.call_in(
            WAIT,
            Say("Tell me."),
            Wait(800),
            DropSocket(),
            Silent(),
        )
        lane = town.engine.lanes[(await town.live(carrier_id)).call_id]
        broken = await _recorded_at_break(town, carrier_id)
        await until(lambda: ("bot", STORY, True) in said(lane.record))
        thanks = Say("Thank you.", audio=encode("Thank you."))
        await town.exchange.calls[carrier_id].line.say(thanks)
        await until(lambda: said(lane.record)[-1] == ("bot", "You are welcome.", True))
        record = await town.hung_up(carrier_id)

        assert town.exchange.stats(carrier_id).streams == 2
        assert said(record)[2:] == [
            ("bot", STORY, True),
            ("user", "Thank you.", True),
            ("bot", "You are welcome.", True),
        ]
        assert record.end_reason is EndReason.HANGUP_USER
        after = town.heard_pcm(carrier_id)[len(broken) :]
        story = b"".join(sound(sentence) for sentence in SENTENCES)
        first = broken.find(sound(FIRST)[:6400])
        assert first > 0
        heard_before = len(broken) - first
        assert broken[first:] == story[:heard_before]
        # Whatever the caller had not heard when the socket broke is heard on the next one.
        assert story[heard_before:] in after
        await town.nothing_left()


async def _recorded_at_break(town: Town, carrier_id: str) -> bytes:
    """What the phone had heard when its socket broke."""
    with anyio.fail_after(PATIENCE_S):
        await town.exchange.ledger.wait_for("stream-closed", call=carrier_id)
    return town.heard_pcm(carrier_id)


async def test_a_socket_that_never_comes_back_ends_the_call(tmp_path: Path) -> None:
    agent = Puppet({"Tell me.": STORY})
    async with open_town(tmp_path, agent) as town:
        carrier_id = town.call_in(WAIT, Say("Tell me."), Wait(500), Silent())
        record = await town.live(carrier_id)
        lane = town.engine.lanes[record.call_id]
        await until(
            lambda: STORY[:9] in (lane.record.utterance.text if lane.record.utterance else "")
        )
        # Every command to open the stream again fails.
        town.exchange.faults.rest = RestFault(status=500, paths=("POST /v1/calls/",), times=3)
        town.exchange.faults.webhooks = NO_REPORT
        town.exchange.calls[carrier_id].line.drop_socket()
        record = await town.over(carrier_id)
        assert (record.end_reason, record.end_detail) == (
            EndReason.HANGUP_BOT,
            EndDetail.STREAM_LOST,
        )
        assert town.exchange.stats(carrier_id).streams == 1
        await town.nothing_left()


async def test_a_refused_stream_comes_back_with_the_next_command(tmp_path: Path) -> None:
    async with open_town(tmp_path, Puppet({})) as town:
        carrier_id = town.call_in(WAIT, Say("One."), Silent())
        lane = town.engine.lanes[(await town.live(carrier_id)).call_id]
        await until(lambda: "You said: One." in town.heard(carrier_id))
        town.exchange.faults.rest = RestFault(status=500, paths=("POST /v1/calls/",), times=1)
        line = town.exchange.calls[carrier_id].line
        line.drop_socket()
        await until(lambda: line.stream is not None)
        await line.say(Say("Two.", audio=encode("Two.")))
        await until(lambda: said(lane.record)[-1] == ("bot", "You said: Two.", True))
        record = await town.hung_up(carrier_id)
        assert record.end_reason is EndReason.HANGUP_USER
        assert town.exchange.faults.rest.times == 0
        assert town.exchange.stats(carrier_id).streams == 2
        assert town.heard(carrier_id) == [GREETING, "You said: One.", "You said: Two."]


@asynccontextmanager
async def _proxy_without_sockets(port: int) -> AsyncIterator[str]:
    """A proxy in front of ``port`` that passes on no WebSockets; its origin."""

    async def serve(client: anyio.abc.SocketStream) -> None:
        server = await anyio.connect_tcp("127.0.0.1", port)
        async with client, server, anyio.create_task_group() as pipes:

            async def pipe(source: anyio.abc.ByteStream, target: anyio.abc.ByteStream) -> None:
                with suppress(anyio.BrokenResourceError):
                    async for data in source:
                        if b"upgrade: websocket" in data.lower():
                            refusal = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
                            await source.send(refusal)
                            break
                        await target.send(data)
                pipes.cancel_scope.cancel()

            pipes.start_soon(pipe, client, server)
            pipes.start_soon(pipe, server, client)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


async def test_behind_a_proxy_without_sockets_the_caller_is_told(tmp_path: Path) -> None:
    async def call_in(carrier: str) -> None:
        port, state_dir = reserve_port(), tmp_path / carrier
        state_dir.mkdir()
        async with _proxy_without_sockets(port) as origin:
            config = {"serve": {"port": port}, "publicUrl": f"{origin}/voice/webhook", **BRIEF}
            async with open_town(state_dir, Puppet({}), carrier=carrier, config=config) as town:
                carrier_id, record = await town.call(Silent())
                assert (record.end_reason, record.end_detail) == (
                    EndReason.HANGUP_BOT,
                    EndDetail.STREAM_NEVER_STARTED,
                )
                assert _told(town, carrier_id) == [SORRY]
                assert said(record) == [("bot", SORRY, True)]
                await town.nothing_left()

    # Each call waits ten seconds for a socket that never comes.
    async with anyio.create_task_group() as tasks:
        for carrier in CARRIERS:
            tasks.start_soon(call_in, carrier)


# --- hearing ---------------------------------------------------------------------------------


async def test_a_recogniser_that_dies_once_is_opened_again(tmp_path: Path) -> None:
    ears = BrittleTranscription([1], last=True)
    extra = [provider_plugin(ProviderKind.TRANSCRIPTION, "brittle", ears)]
    config = {"streaming": {"provider": "brittle"}}
    agent = Puppet({"One.": "1.", "Two.": "2.", "Three.": "3."})
    async with open_town(tmp_path, agent, config=config, extra=extra) as town:
        carrier_id, record = await town.call(
            WAIT, Say("One."), WAIT, Say("Two."), WAIT, Say("Three."), WAIT, HangUp()
        )
        assert ears.sessions == 2
        assert [text for who, text, _ in said(record) if who == "user"] == [
            "One.",
            "Two.",
            "Three.",
        ]
        assert town.heard(carrier_id) == [GREETING, "1.", "2.", "3."]


async def test_without_a_recogniser_the_caller_is_told_and_the_call_ends(tmp_path: Path) -> None:
    ears = BrittleTranscription([1], last=False)
    extra = [provider_plugin(ProviderKind.TRANSCRIPTION, "brittle", ears)]
    config = {"streaming": {"provider": "brittle"}, **BRIEF}
    async with open_town(tmp_path, Puppet({}), config=config, extra=extra) as town:
        carrier_id, record = await town.call(WAIT, Say("One."), Silent())
        assert (record.end_reason, record.end_detail) == (
            EndReason.ERROR,
            EndDetail.LISTENING_FAILED,
        )
        assert town.heard(carrier_id) == [GREETING, "You said: One.", DEAF]
        (failure,) = (await town.rpc("status"))["failures"]
        assert failure == {
            "kind": "transcription",
            "provider": "brittle",
            "at": failure["at"],
            "reason": "ProviderUnavailable",
            "callId": record.call_id,
            "inARow": failure["inARow"],
        }
        assert failure["inARow"] >= 3
        await town.nothing_left()


# --- speaking --------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", list(CARRIERS))
async def test_without_a_voice_the_carrier_says_the_last_words(
    tmp_path: Path, carrier: str
) -> None:
    voice = BrittleSpeech(only=[GREETING])
    extra = [provider_plugin(ProviderKind.TTS, "brittle", voice)]
    config = {"tts": {"provider": "brittle"}}
    async with open_town(tmp_path, Puppet({}), carrier=carrier, config=config, extra=extra) as town:
        carrier_id, record = await town.call(WAIT, Say("One."), Silent())
        assert (record.end_reason, record.end_detail) == (EndReason.ERROR, EndDetail.SPEECH_FAILED)
        assert town.heard(carrier_id)[0] == GREETING
        assert _told(town, carrier_id) == [FAILED]
        assert said(record)[-1] == ("bot", FAILED, True)
        assert voice.refused == 2
        await town.nothing_left()


async def test_a_greeting_without_a_voice_is_no_silent_call(tmp_path: Path) -> None:
    extra = [provider_plugin(ProviderKind.TTS, "brittle", BrittleSpeech(only=[]))]
    config = {"tts": {"provider": "brittle"}}
    async with open_town(tmp_path, Puppet({}), config=config, extra=extra) as town:
        carrier_id, record = await town.call(Silent())
        assert (record.end_reason, record.end_detail) == (
            EndReason.ERROR,
            EndDetail.MESSAGE_FAILED,
        )
        assert _told(town, carrier_id) == [FAILED]
        await town.nothing_left()


async def test_without_ears_and_voice_the_caller_is_told_and_the_call_ends(tmp_path: Path) -> None:
    voice = BrittleSpeech(only=[GREETING, "You said: One."])
    extra = [
        provider_plugin(ProviderKind.TRANSCRIPTION, "b", BrittleTranscription([1], last=False)),
        provider_plugin(ProviderKind.TTS, "brittle", voice),
    ]
    config = {"streaming": {"provider": "b"}, "tts": {"provider": "brittle"}}
    async with open_town(tmp_path, Puppet({}), config=config, extra=extra) as town:
        carrier_id, record = await town.call(WAIT, Say("One."), Silent())
        assert record.end_detail is EndDetail.LISTENING_FAILED
        assert _told(town, carrier_id) == [CANNOT_HEAR]
        await town.nothing_left()


def _told(town: Town, carrier_id: str) -> list[str]:
    """What the exchange said by its own voice, to the end."""
    heard = town.carrier.ledger.entries("heard", call=carrier_id)
    return [entry["text"] for entry in heard if entry["complete"]]


async def test_a_voice_that_fails_once_is_excused(tmp_path: Path) -> None:
    voice = BrittleSpeech(only=[GREETING, NOT_UNDERSTOOD, "You said: Two."])
    extra = [provider_plugin(ProviderKind.TTS, "brittle", voice)]
    config = {"tts": {"provider": "brittle"}, **BRIEF}
    async with open_town(tmp_path, Puppet({}), config=config, extra=extra) as town:
        carrier_id, record = await town.call(WAIT, Say("One."), WAIT, Say("Two."), WAIT, HangUp())
        assert record.end_reason is EndReason.HANGUP_USER
        assert town.heard(carrier_id) == [GREETING, NOT_UNDERSTOOD, "You said: Two."]


# --- the agent -------------------------------------------------------------------------------


async def fail(turn: AgentTurn) -> AsyncIterator[AgentEvent]:
    if turn.text:
        raise ProviderUnavailable("the model is down", provider="puppet")
    yield TextDelta("never")


async def crash(turn: AgentTurn) -> AsyncIterator[AgentEvent]:
    if turn.text:
        raise ZeroDivisionError
    yield TextDelta("never")


async def empty(turn: AgentTurn) -> AsyncIterator[AgentEvent]:
    yield TextDelta("  \n")


async def test_an_agent_that_gives_no_answer_is_excused_once(tmp_path: Path) -> None:
    config = {"responseTimeoutMs": 900, "fillerAfterMs": 250, **BRIEF}
    troubles: dict[str, str | Reply] = {"fail": fail, "crash": crash, "empty": empty, "hang": hang}
    async with open_town(tmp_path, Puppet(troubles), config=config) as town:

        async def talk(trouble: str, number: str) -> None:
            filler = [FILLER] if trouble == "hang" else []
            patient = WaitForSilence(1200 if filler else 300)
            carrier_id, record = await town.call(
                WAIT, Say(trouble), patient, Say(trouble), Silent(), number=number
            )
            assert (record.end_reason, record.end_detail) == (
                EndReason.ERROR,
                EndDetail.AGENT_FAILED,
            )
            heard = [GREETING, *filler, NOT_UNDERSTOOD, *filler, SORRY]
            assert town.heard(carrier_id) == heard
            turns = [turn for turn in await town.turns(record) if turn.kind == "reply"]
            assert [turn.filler for turn in turns] == [bool(filler)] * 2

        async with anyio.create_task_group() as tasks:
            for position, trouble in enumerate(troubles):
                tasks.start_soon(talk, trouble, f"+1555010000{position}")
        await town.nothing_left()


async def test_what_an_error_quotes_of_a_credential_is_told_to_nobody(tmp_path: Path) -> None:
    voice = BrittleSpeech(only=[GREETING, NOT_UNDERSTOOD])
    extra = [provider_plugin(ProviderKind.TTS, "brittle", voice)]
    config = {"tts": {"provider": "brittle"}, **BRIEF}
    failed: list[str | None] = []

    def listen(event: str, payload: Mapping[str, Any]) -> None:
        if event == "voicecall.turn":
            failed.append(payload["failed"])

    async with open_town(tmp_path, Puppet({"One.": fail}), config=config, extra=extra) as town:
        # What these errors say, as if it were credentials.
        keys = {"authToken": "the model is down", "apiKey": "the voice is gone"}
        town.gateway.loaded.secrets.resolve(keys, "puppet")
        town.gateway.host.subscribe(listen)
        carrier_id = town.call_in(WAIT, Say("One."), Silent())
        await until(lambda: "puppet: ***" in failed)
        record = await town.live(carrier_id)
        assert "puppet: ***" in [turn.failed for turn in await town.turns(record)]

        tool = town.gateway.host.find_tool("voice_call")
        assert tool is not None
        message = {"callId": record.call_id, "message": "Two?"}
        use = {"action": "speak_to_user", **message}
        answer = await tool.handler(use, ToolCall(frozenset()))
        assert answer["details"] == {"error": "speech: brittle: ***"}
        asked = await town.rpc("continue.start", **message)
        with anyio.fail_after(PATIENCE_S):
            while asked["status"] == "pending":
                await anyio.sleep(0.05)
                operation = {"operationId": asked["operationId"]}
                asked = await town.rpc("continue.result", **operation)
        assert asked["error"] == "speech: brittle: ***"


async def test_an_agent_that_recovers_is_forgiven(tmp_path: Path) -> None:
    agent = Puppet({"One.": fail, "Two.": "2.", "Three.": fail})
    async with open_town(tmp_path, agent, config=BRIEF) as town:
        carrier_id, record = await town.call(
            WAIT, Say("One."), WAIT, Say("Two."), WAIT, Say("Three."), WAIT, HangUp()
        )
        assert record.end_reason is EndReason.HANGUP_USER
        assert town.heard(carrier_id) == [
            GREETING,
            NOT_UNDERSTOOD,
            "2.",
            NOT_UNDERSTOOD,
        ]


async def test_a_caller_may_interrupt_the_filler_of_a_slow_agent(tmp_path: Path) -> None:
    agent = Puppet({"One.": hang, "Never mind.": "All right."})
    async with open_town(tmp_path, agent, config={"fillerAfterMs": 250}) as town:
        carrier_id, _ = await town.call(
            WAIT, Say("One."), Interrupt(50, "Never mind."), WAIT, HangUp()
        )
        assert town.heard(carrier_id)[-1] == "All right."
        assert agent.asked == ["One.", "Never mind."]
        assert ("One.", "") in agent.settled
