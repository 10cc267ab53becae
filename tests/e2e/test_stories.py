"""Random calls over whole gateways on virtual time: anybody does anything at any moment, also while
the gateway stops and another one starts on its store."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ports import reserve_port

from voicecall import ProviderKind, hookimpl
from voicecall.errors import VoicecallError
from voicecall.hosting import PluginInfo, RpcCall
from voicecall.model import CallRecord, Speaker
from voicecall.registry import Registry
from voicecall_calls.engine.places import INBOUND_CAP, OUTBOUND_CAP
from voicecall_gateway.config import load_config
from voicecall_gateway.runtime import Gateway
from voicecall_mock.exchange import Exchange, ExchangeOptions, Say, Silent
from voicecall_testing import speech as fsk_speech
from voicecall_testing.clock import VirtualSeam, VirtualTimeLoop, virtual_backend
from voicecall_testing.fsk import encode
from voicecall_testing.speech import FskSpeech
from voicecall_testing.twilio import TwilioEmulator, TwilioOptions
from voicecall_testing.watching import FailingStore

from .lab.carriers import CARRIERS, CLINIC, Emulator
from .lab.puppets import PhonePlugin, Puppet, provider_plugin

pytestmark = pytest.mark.e2e

CALLER = "+15550100001"
FIRST = "First."
LONGEST_S = 25
MEDIA: dict[str, dict[str, Any]] = {
    "native": {},
    "stream": {"streaming": {"enabled": True, "provider": "fsk"}, "tts": {"provider": "fsk"}},
    "realtime": {"realtime": {"enabled": True, "provider": "echo"}},
}
WHAT = ("say", "say", "press", "drop", "hang up", "speak", "continue", "dtmf", "end", "status")

acts = st.tuples(st.sampled_from([0.0, 0.02, 0.1, 0.3, 1.0, 2.5, 6.0]), st.sampled_from(WHAT))
stories = st.lists(st.lists(acts, max_size=8), min_size=1, max_size=2)
"""In each life of the gateway: what is done, and how long after the previous step."""
Lives = list[list[tuple[float, str]]]


class Ends:
    """A gateway plugin that observes the ends of calls."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()

    @hookimpl
    def voicecall_plugin_info(self) -> PluginInfo:
        return PluginInfo(id="ends", label="Ends")

    @hookimpl
    def voicecall_call_ended(self, record: CallRecord) -> None:
        self.told[record.call_id] += 1


class Tracebacks(logging.Handler):
    """Log records with tracebacks: unexpected errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.lines.append(self.format(record))


@dataclass
class Story:
    """One call. ``asked``: what ``continue`` asked, and the answers; ``waiting``: how many commands
    are not answered yet."""

    media: str
    carrier: str
    emulator: Emulator
    directory: Path
    port: int = field(default_factory=reserve_port)
    seam: VirtualSeam = field(default_factory=VirtualSeam)
    ends: Ends = field(default_factory=Ends)
    asked: list[tuple[str, str]] = field(default_factory=list)
    waiting: int = 0
    carrier_id: str = ""
    gateway: Gateway | None = None
    numbers: count[int] = field(default_factory=count)

    @asynccontextmanager
    async def life(self) -> AsyncIterator[PhonePlugin]:
        """A gateway, which stops at the end."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        store = FailingStore(self.directory / "calls", self.seam, fsync=False)
        plugin, agent = PhonePlugin(), Puppet({})
        registry = Registry(
            extra=[
                plugin.extra(),
                ("voicecall.gateway", "ends", self.ends),
                ("voicecall.tts", "fsk", fsk_speech),
                ("voicecall.transcription", "fsk", fsk_speech),
                provider_plugin(ProviderKind.AGENT, "puppet", agent),
                provider_plugin(ProviderKind.STORE, "failing", store),
            ]
        )
        phone = {
            **CARRIERS[self.carrier].config(self.emulator),
            **MEDIA[self.media],
            "store": {"provider": "failing"},
            "serve": {"port": self.port},
            "inboundPolicy": "open",
            "inboundGreeting": FIRST,
            "maxDurationSeconds": LONGEST_S,
            "transcriptTimeoutMs": 8000,
        }
        tree = {
            "gateway": {"port": 0, "drainSeconds": 0},
            "plugins": {"entries": {"voice-call": {"config": phone}}},
            "agents": {"defaults": {"backend": "puppet"}},
        }
        file = self.directory / "config.json5"
        file.write_text(json.dumps(tree))
        loaded = load_config(file, {"VOICECALL_STATE_DIR": str(self.directory)})
        undo = loop.add_busy_check(lambda: store.outstanding > 0)
        self.gateway = Gateway(loaded, registry, seam=self.seam)
        async with self.gateway.run():
            assert list(await self.gateway.wait_started()) == []
            assert plugin.service is not None
            CARRIERS[self.carrier].announced(self.emulator, plugin.service)
            yield plugin
        undo()

    async def begin(self, *, outbound: bool) -> None:
        if not outbound:
            self.carrier_id = self.emulator.dial_in(CALLER, CLINIC, (Silent(),))
            return
        self.emulator.set_phone(CALLER, (Silent(),))
        await self.command("start", to=CALLER, message=FIRST, mode="conversation")
        while not self.emulator.calls:
            await anyio.sleep(0.05)
        (self.carrier_id,) = self.emulator.calls

    async def command(self, method: str, **params: Any) -> Any:
        """What an operator is answered; None: an error that the reference names."""
        assert self.gateway is not None
        handler = self.gateway.host.methods[f"voicecall.{method}"].handler
        self.waiting += 1
        try:
            return await handler(params, RpcCall("test", frozenset({"operator.write"})))
        except VoicecallError:
            return None
        finally:
            self.waiting -= 1

    async def act(self, what: str) -> None:
        call, number = self.emulator.calls[self.carrier_id], next(self.numbers)
        connected = call.status == "in-progress" and not call.over.is_set()
        match what:
            case "say" if connected:
                text = f"Words {number}."
                await call.line.say(Say(text, audio=encode(text)))
            case "press" if connected:
                call.line.press("5")
            case "drop" if connected:
                call.line.drop_socket()
            case "hang up":
                call.line.hang_up()
            case "speak":
                await self.command(
                    "speak", callId=self.carrier_id, message=f"News{number} of today."
                )
            case "continue":
                question = f"Question {number}?"
                told = await self.command("continue", callId=self.carrier_id, message=question)
                if told is not None:
                    self.asked.append((question, told["transcript"]))
            case "dtmf":
                await self.command("dtmf", callId=self.carrier_id, digits="1w2")
            case "end" | "status":
                await self.command(what, callId=self.carrier_id)

    async def judge(self, plugin: PhonePlugin, lives: int) -> None:
        """Everything is over by itself, and what was said is in order."""
        call = self.emulator.calls[self.carrier_id]
        assert plugin.service is not None
        engine = plugin.service.engine
        assert engine is not None
        with anyio.fail_after(4 * LONGEST_S):
            while engine.lanes or self.waiting or not call.over.is_set():
                await anyio.sleep(1)
        record = await engine.stored(self.carrier_id)
        if record is None:
            # The caller was gone before anything was told.
            assert self.emulator.ledger.entries("answered") == []
            return
        assert record.terminal
        # A stop may come between an end and its telling.
        assert self.ends.told[record.call_id] <= 1 <= self.ends.told[record.call_id] + lives - 1
        for cap in (INBOUND_CAP, OUTBOUND_CAP):
            assert await engine.coordinator.holders(cap) == 0
        if self.media == "realtime":
            # An echo knows no words.
            return
        lines = [(entry.speaker, entry.text) for entry in record.transcript]
        own = [text for speaker, text in lines if speaker is Speaker.BOT]
        assert FIRST not in own[1:]
        # A question that was cut off is asked again; nothing else is said twice, nor a part of it.
        new = [text.split()[0] for _, text in lines if text.startswith("News")]
        whole = [text for _, text in lines if text.endswith((".", "?"))]
        new += [text for text in whole if text.startswith(("Words", "Question"))]
        assert len(new) == len(set(new))
        for question, answer in self.asked:
            said = [text for _, text in lines]
            if question in said and answer in said:
                assert said.index(question) < said.index(answer)


async def play(media: str, carrier: str, outbound: bool, lives: Lives, directory: Path) -> None:
    seam, voice = VirtualSeam(), FskSpeech()
    emulator: Emulator = (
        Exchange(ExchangeOptions(recording_limit_s=0), seam=seam, speech=voice)
        if carrier == "mock"
        else TwilioEmulator(
            TwilioOptions(numbers=(CLINIC,), recording_limit_s=0), seam=seam, speech=voice
        )
    )
    async with emulator.serve(), anyio.create_task_group() as people:
        story = Story(media, carrier, emulator, directory)
        for number, life in enumerate(lives):
            async with story.life() as plugin:
                if number == 0:
                    await story.begin(outbound=outbound)
                for pause, what in life:
                    await anyio.sleep(pause)
                    people.start_soon(story.act, what)
                if number == len(lives) - 1:
                    await story.judge(plugin, len(lives))
        people.cancel_scope.cancel()


def tell(media: str, carrier: str, outbound: bool, lives: Lives) -> None:
    backend, options = virtual_backend
    errors = Tracebacks()
    logging.getLogger("voicecall").addHandler(errors)
    try:
        with tempfile.TemporaryDirectory() as name:
            story = partial(play, media, carrier, outbound, lives, Path(name))
            anyio.run(story, backend=backend, backend_options=options)
    finally:
        logging.getLogger("voicecall").removeHandler(errors)
    assert errors.lines == []


@pytest.mark.parametrize("carrier", sorted(CARRIERS))
@pytest.mark.parametrize("media", MEDIA)
@settings(max_examples=2)
@given(st.booleans(), stories)
def test_a_call_comes_to_its_end_whatever_happens(
    media: str, carrier: str, outbound: bool, lives: Lives
) -> None:
    tell(media, carrier, outbound, lives)


@pytest.mark.soak
@pytest.mark.parametrize("carrier", sorted(CARRIERS))
@pytest.mark.parametrize("media", MEDIA)
@settings(max_examples=300)
@given(st.booleans(), stories)
def test_many_calls_come_to_their_ends(
    media: str, carrier: str, outbound: bool, lives: Lives
) -> None:
    tell(media, carrier, outbound, lives)
