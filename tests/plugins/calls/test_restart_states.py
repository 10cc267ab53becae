"""A crash in every live state: the next engine finds a deadline, and the call comes to an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import ProviderUnavailable, StoreError
from voicecall.media import MediaCodec, Upgrade
from voicecall.model import (
    CallMode,
    CallRecord,
    CallState,
    Direction,
    EndDetail,
    EndReason,
    MediaPath,
    TranscriptEntry,
)
from voicecall.store import Commit, TurnRow
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.coordinator import MemoryCoordinator
from voicecall_calls.engine.engine import CallEngine
from voicecall_calls.engine.lane import CallLane
from voicecall_calls.engine.places import INBOUND_CAP, OUTBOUND_CAP
from voicecall_calls.operations import CallOperations, DialOptions
from voicecall_calls.store import SqliteStore
from voicecall_testing.clock import VirtualSeam, VirtualTimeLoop, virtual_backend

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

CARRIER_ID = "carrier-1"
REQUEST = tel.WebhookRequest(
    method="POST", url="https://x.test/", query={}, headers={}, body=b"", client="192.0.2.1"
)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


# --- the world outside ----------------------------------------------------------------------


@dataclass
class Exchange:
    """One call at most; it survives our crash. ``arrives``: a dial request makes the call.
    ``answers``: it gets a reply. ``lookup_s``: how long looking one up takes."""

    answers: bool = True
    arrives: bool = True
    lookup_s: float = 0.0
    outage: bool = False
    dials: int = 0
    status: tel.CallStatus | None = None

    @property
    def up(self) -> bool:
        return self.status is not None and self.status.status is not ev.CarrierStatus.ENDED


class Carrier(tel.TelephonyProvider):
    """Our side of the exchange. ``cut`` is set when our process dies."""

    capabilities = tel.TelephonyCapabilities(
        native_speech=True,
        native_listening=True,
        stream=frozenset({tel.StreamPoint.COMMAND}),
        explicit_answer=True,
        dial_lookup=True,
        public_url=False,
        from_number_required=False,
    )

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.cut = False

    @property
    def signature_headers(self) -> tuple[tuple[str, ...], ...]:
        return ((),)

    def verify(self, request: tel.WebhookRequest, now_ms: int) -> tel.Verified:
        return tel.Verified("request-1")

    def parse(self, request: tel.WebhookRequest, now_ms: int) -> Sequence[ev.CarrierEvent]:
        return ()

    def render(
        self,
        request: tel.WebhookRequest,
        call: tel.CallRef | None,
        actions: Sequence[tel.Action],
    ) -> tel.Rendered:
        return tel.Rendered(tel.WebhookReply(), tuple(actions))

    def media_codec(self, upgrade: Upgrade) -> MediaCodec:
        raise ValueError("no socket is opened here")

    def _check(self) -> None:
        if self.cut or self.exchange.outage:
            raise ProviderUnavailable("no way to the exchange", provider="carrier")

    async def place_call(self, request: tel.DialRequest) -> str:
        self._check()
        if self.exchange.arrives:
            self.exchange.dials += 1
            self.exchange.status = tel.CallStatus(ev.CarrierStatus.LIVE)
        if not self.exchange.answers:
            await anyio.sleep_forever()
        return CARRIER_ID

    async def find_dial(self, query: tel.DialQuery) -> str | None:
        await anyio.sleep(self.exchange.lookup_s)
        self._check()
        return CARRIER_ID if self.exchange.dials else None

    async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
        self._check()
        if isinstance(action, tel.Hangup):
            self.exchange.status = tel.CallStatus(ev.CarrierStatus.ENDED, EndReason.COMPLETED)

    async def status(self, call: tel.CallRef) -> tel.CallStatus:
        self._check()
        return self.exchange.status or tel.CallStatus(ev.CarrierStatus.NOT_FOUND)


class MortalStore(SqliteStore):
    """Stores nothing once it is ``cut``."""

    cut = False

    async def commit(self, commit: Commit) -> None:
        if self.cut:
            raise StoreError("the machine is off")
        await super().commit(commit)


class Talk(Conversation):
    """Only records that it was begun."""

    def __init__(self) -> None:
        self.resumed = False
        self.running = False

    async def run(self) -> None:
        self.running = True
        await anyio.sleep_forever()

    def resume(self) -> None:
        self.resumed = True

    def caller_turn(self, text: str) -> None: ...
    def caller_speaking(self) -> None: ...
    def keys_pressed(self, digits: str) -> None: ...
    def playback_finished(self, utterance_id: str, ok: bool) -> None: ...
    def play_message(self) -> None: ...
    def close(self, why: str) -> None: ...
    async def say(self, text: str) -> None: ...
    async def play_digits(self, digits: str, *, last: bool = False) -> None: ...

    async def ask(self, prompt: str, timeout_s: float) -> str:
        return ""


@dataclass
class Ends:
    """Observes which calls are over."""

    records: list[CallRecord] = field(default_factory=list)

    def event(self, record: CallRecord, event: ev.CallEvent) -> None: ...
    def said(self, record: CallRecord, entry: TranscriptEntry) -> None: ...
    def turn(self, row: TurnRow) -> None: ...

    def ended(self, record: CallRecord) -> None:
        self.records.append(record)


@dataclass
class Life:
    """One life of the gateway, from start to crash."""

    engine: CallEngine
    store: MortalStore
    carrier: Carrier
    ends: Ends

    @property
    def lane(self) -> CallLane:
        (lane,) = self.engine.lanes.values()
        return lane

    @property
    def record(self) -> CallRecord:
        """The newest record of the only call."""
        return self.ends.records[0] if self.ends.records else self.lane.record

    def now(self) -> int:
        return self.engine.seam.now_ms()

    async def dial(self, mode: CallMode = CallMode.CONVERSATION) -> None:
        operations = CallOperations(self.engine, dialling_agent=lambda requested: "main")
        await operations.dial(DialOptions(to="+15550001111", message="A word.", mode=mode))
        await anyio.sleep(0.01)

    async def apply(self, event: ev.CallEvent) -> None:
        await self.lane.apply(event)
        await anyio.sleep(0.01)

    async def tell(self, make: type[ev.CarrierEvent], **more: Any) -> None:
        """An event of the carrier for the call."""
        await self.apply(
            make(at=self.now(), key=make.__name__, provider_call_id=CARRIER_ID, **more)
        )

    async def answer(self) -> None:
        self.carrier.exchange.status = tel.CallStatus(ev.CarrierStatus.CONNECTED)
        await self.tell(ev.Answered)

    async def call_in(self) -> None:
        self.carrier.exchange.status = tel.CallStatus(ev.CarrierStatus.LIVE)
        event = ev.Initiated(
            at=self.now(),
            key="Initiated",
            provider_call_id=CARRIER_ID,
            direction=Direction.INBOUND,
            from_number="+15550002222",
        )
        await self.engine.handle(REQUEST, tel.Verified("request-1"), [event])
        await anyio.sleep(0.01)


@asynccontextmanager
async def life(
    directory: Path,
    exchange: Exchange,
    media: MediaPath,
    *,
    early: Callable[[CallEngine], Coroutine[Any, Any, None]] | None = None,
) -> AsyncIterator[Life]:
    """A gateway that ends by a crash: nothing of its end reaches the disk or the carrier. ``early``
    begins before the stored calls are known."""
    seam = VirtualSeam(seed=exchange.dials)
    carrier, store, ends = Carrier(exchange), MortalStore(directory, seam, fsync=False), Ends()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    forget = loop.add_busy_check(lambda: store.outstanding > 0)
    try:
        async with store.lifespan():
            engine = CallEngine(
                VoiceCallConfig(inbound_policy="open"),
                provider_id="carrier",
                provider=carrier,
                store=store,
                coordinator=MemoryCoordinator(seam),
                seam=seam,
                observer=ends,
                stream_url=lambda: "wss://x.test/stream",
                webhook_url=lambda: "https://x.test/hook",
                default_agent="main",
                media=media,
            )
            engine.conversations = lambda lane: Talk()
            async with anyio.create_task_group() as tasks:
                if early is not None:
                    tasks.start_soon(early, engine)
                    await anyio.sleep(1)
                async with engine.run():
                    yield Life(engine, store, carrier, ends)
                    store.cut = carrier.cut = True
    finally:
        forget()


# --- situations -----------------------------------------------------------------------------

Drive = Callable[[Life], Awaitable[None]]


async def dial_never_sent(it: Life) -> None:
    it.carrier.exchange.arrives = it.carrier.exchange.answers = False
    await it.dial()


async def dial_unanswered(it: Life) -> None:
    it.carrier.exchange.answers = False
    await it.dial()


async def dial_unanswered_and_ended(it: Life) -> None:
    await dial_unanswered(it)
    await it.apply(ev.EndRequested(at=it.now()))


async def dialled(it: Life) -> None:
    await it.dial()


async def ringing(it: Life) -> None:
    await it.dial()
    await it.tell(ev.Ringing)


async def answered(it: Life) -> None:
    await ringing(it)
    await it.answer()


async def attached(it: Life) -> None:
    await answered(it)
    await it.apply(ev.StreamAttached(at=it.now(), stream_id="s-1"))


async def speaking(it: Life) -> None:
    await attached(it)
    await it.apply(
        ev.BotSpeaking(at=it.now(), utterance_id="u", text="A word.", first_message=True)
    )


async def listening(it: Life) -> None:
    await speaking(it)
    await it.apply(ev.BotSpoke(at=it.now(), utterance_id="u", heard="A word."))


async def detached(it: Life) -> None:
    await listening(it)
    await it.apply(ev.StreamDetached(at=it.now(), stream_id="s-1"))


async def played(it: Life) -> None:
    await answered(it)
    utterance = it.record.utterance
    assert utterance is not None
    await it.tell(ev.PlaybackEnded, utterance_id=utterance.id)


async def notified(it: Life) -> None:
    await it.dial(CallMode.NOTIFY)
    await it.answer()
    utterance = it.record.utterance
    assert utterance is not None
    await it.tell(ev.PlaybackEnded, utterance_id=utterance.id)


async def ending(it: Life) -> None:
    await answered(it)
    it.carrier.exchange.outage = True
    await it.apply(ev.EndRequested(at=it.now()))


async def called_in(it: Life) -> None:
    await it.call_in()


async def took_call(it: Life) -> None:
    await it.call_in()
    await it.answer()


@dataclass(frozen=True)
class Situation:
    drive: Drive
    state: CallState
    media: MediaPath = MediaPath.NATIVE
    ended_by_us: bool = False


STREAM = MediaPath.STREAM
SITUATIONS = [
    Situation(dial_never_sent, CallState.INITIATED),
    Situation(dial_unanswered, CallState.INITIATED),
    Situation(dial_unanswered_and_ended, CallState.INITIATED, ended_by_us=True),
    Situation(dialled, CallState.INITIATED),
    Situation(ringing, CallState.RINGING),
    Situation(answered, CallState.SPEAKING),
    Situation(answered, CallState.ANSWERED, STREAM),
    Situation(attached, CallState.ACTIVE, STREAM),
    Situation(speaking, CallState.SPEAKING, STREAM),
    Situation(listening, CallState.LISTENING, STREAM),
    Situation(detached, CallState.LISTENING, STREAM),
    Situation(played, CallState.LISTENING),
    Situation(notified, CallState.LISTENING),
    Situation(ending, CallState.SPEAKING, ended_by_us=True),
    Situation(called_in, CallState.RINGING),
    Situation(took_call, CallState.SPEAKING),
    Situation(took_call, CallState.ANSWERED, STREAM),
]


def named(situation: Situation) -> str:
    return f"{situation.drive.__name__}-{situation.media.value}"


every_situation = pytest.mark.parametrize("situation", SITUATIONS, ids=named)


def test_the_situations_cover_every_live_state() -> None:
    live = {state for state in CallState if not state.terminal}
    assert {situation.state for situation in SITUATIONS} == live


async def crash_in(situation: Situation, directory: Path) -> Exchange:
    """What is outside after a crash in this situation; a deadline is stored for the call."""
    exchange = Exchange()
    async with life(directory, exchange, situation.media) as it:
        await situation.drive(it)
        record = it.lane.record
        assert record.state is situation.state
        assert (record.ending is not None) is situation.ended_by_us
        (stored,) = await it.store.live()
        assert stored == record
        assert stored.deadlines
    exchange.outage = False
    return exchange


async def places(engine: CallEngine) -> int:
    coordinator = engine.coordinator
    return await coordinator.holders(OUTBOUND_CAP) + await coordinator.holders(INBOUND_CAP)


@every_situation
async def test_what_is_still_up_is_recovered_or_ended(situation: Situation, tmp_path: Path) -> None:
    exchange = await crash_in(situation, tmp_path)
    was_up = exchange.status
    async with life(tmp_path, exchange, situation.media) as it:
        assert it.lane.record.deadlines
        assert await places(it.engine) == 1
        await anyio.sleep(1)
        record = it.record
        if record.live:
            assert exchange.up
            assert not situation.ended_by_us
            assert not record.recovering
            assert record.deadlines
            connected = was_up == tel.CallStatus(ev.CarrierStatus.CONNECTED)
            talk = it.lane.conversation
            assert (talk is not None) is connected
            assert talk is None or (isinstance(talk, Talk) and talk.resumed and talk.running)
        else:
            assert situation.ended_by_us or exchange.dials == 0
        await it.engine.wait_idle()
        assert it.record.end_reason is not None
        assert await places(it.engine) == 0
        assert not exchange.up
        assert exchange.dials <= 1


@every_situation
@pytest.mark.parametrize("forgot", [False, True], ids=["over", "forgotten"])
async def test_what_is_over_is_finalised_at_once(
    situation: Situation, forgot: bool, tmp_path: Path
) -> None:
    exchange = await crash_in(situation, tmp_path)
    over = tel.CallStatus(ev.CarrierStatus.ENDED, EndReason.HANGUP_USER)
    exchange.status = None if forgot else over
    async with life(tmp_path, exchange, situation.media) as it:
        await anyio.sleep(1)
        assert it.record.terminal
        assert it.record.end_reason is not None
        assert it.record.end_detail is not None
        assert await places(it.engine) == 0
        assert await it.store.live() == []


@every_situation
async def test_an_exchange_that_is_gone_does_not_keep_the_call(
    situation: Situation, tmp_path: Path
) -> None:
    exchange = await crash_in(situation, tmp_path)
    exchange.outage = True
    async with life(tmp_path, exchange, situation.media) as it:
        for _ in range(30):
            await anyio.sleep(1)
            assert it.record.terminal or it.record.deadlines
        await it.engine.wait_idle()
        assert it.record.end_detail in (
            EndDetail.DIAL_UNKNOWN,
            EndDetail.HANGUP_FAILED,
        )
        assert await places(it.engine) == 0


@every_situation
async def test_an_exchange_that_is_back_late_is_asked_again(
    situation: Situation, tmp_path: Path
) -> None:
    """Also over a second crash while the first is being recovered."""
    exchange = await crash_in(situation, tmp_path)
    exchange.outage = True
    async with life(tmp_path, exchange, situation.media) as it:
        await anyio.sleep(2)
        assert it.record.live
        assert it.record.deadlines
        assert it.record.recovering or situation.ended_by_us
    async with life(tmp_path, exchange, situation.media) as it:
        await anyio.sleep(6)
        assert it.record.live
        exchange.outage = False
        await anyio.sleep(20)
        assert it.record.terminal or not it.record.recovering
        await it.engine.wait_idle()
        assert it.record.end_reason is not None
        assert not exchange.up
        assert exchange.dials <= 1


@every_situation
async def test_a_webhook_that_comes_before_the_calls_are_recovered_waits(
    situation: Situation, tmp_path: Path
) -> None:
    exchange = await crash_in(situation, tmp_path)
    over = tel.CallStatus(ev.CarrierStatus.ENDED, EndReason.HANGUP_USER)
    exchange.status = over
    waited: list[float] = []

    async def hung_up(engine: CallEngine) -> None:
        (stored,) = await engine.store.live()
        event = ev.CallEnded(
            at=engine.seam.now_ms(),
            key="over",
            provider_call_id=CARRIER_ID,
            call_id=stored.call_id,
            reason=EndReason.HANGUP_USER,
        )
        asked = engine.seam.monotonic()
        await engine.handle(REQUEST, tel.Verified("early"), [event])
        waited.append(engine.seam.monotonic() - asked)

    async with life(tmp_path, exchange, situation.media, early=hung_up) as it:
        await anyio.sleep(1)
        assert waited == [pytest.approx(1, abs=0.1)]
        (record,) = it.ends.records
        assert record.terminal
        assert await it.store.is_processed("over")
        assert await places(it.engine) == 0


async def test_a_webhook_that_is_faster_than_the_lookup_does_not_end_the_recovery(
    tmp_path: Path,
) -> None:
    exchange = await crash_in(Situation(dial_unanswered, CallState.INITIATED), tmp_path)
    exchange.lookup_s = 1.0
    async with life(tmp_path, exchange, MediaPath.NATIVE) as it:
        await it.tell(ev.Ringing)
        await anyio.sleep(2)
        assert it.record.state is CallState.RINGING
        assert not it.record.recovering
        await it.engine.wait_idle()
        assert not exchange.up


async def test_a_leg_that_turns_up_late_is_hung_up_even_over_a_crash(tmp_path: Path) -> None:
    exchange = await crash_in(Situation(dial_never_sent, CallState.INITIATED), tmp_path)

    async def tell(it: Life, make: type[ev.CarrierEvent]) -> None:
        event = make(at=it.now(), key=make.__name__, provider_call_id=CARRIER_ID, call_id=call_id)
        await it.engine.handle(REQUEST, tel.Verified(event.key), [event])
        await anyio.sleep(0.01)

    async with life(tmp_path, exchange, MediaPath.NATIVE) as it:
        await it.engine.wait_idle()
        assert it.record.end_detail is EndDetail.DIAL_UNKNOWN
        call_id = it.record.call_id
        exchange.status = tel.CallStatus(ev.CarrierStatus.LIVE)
        exchange.outage = True
        await tell(it, ev.Ringing)
        assert exchange.up
    exchange.outage = False
    async with life(tmp_path, exchange, MediaPath.NATIVE) as it:
        await tell(it, ev.Answered)
        assert not exchange.up


async def test_nobody_waits_for_words_that_may_never_have_been_asked_for(tmp_path: Path) -> None:
    """The crash came between committing an utterance and sending the request to the carrier."""

    async def interjecting(it: Life) -> None:
        await played(it)
        await it.apply(ev.BotSpeaking(at=it.now(), utterance_id="u-2", text="One more thing."))

    exchange = await crash_in(Situation(interjecting, CallState.SPEAKING), tmp_path)
    async with life(tmp_path, exchange, MediaPath.NATIVE) as it:
        await anyio.sleep(1)
        assert it.record.live
        assert it.record.utterance is None
        assert it.lane.conversation is not None
