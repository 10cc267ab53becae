"""Properties of the state machine over random events: duplicated, reordered or lost."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from voicecall import events as ev
from voicecall.machine import (
    CallPolicy,
    Dial,
    HangUp,
    LookUpDial,
    Outcome,
    PlayMessage,
    ProbeStatus,
    Release,
    Step,
    open_inbound,
    open_outbound,
    step,
)
from voicecall.model import (
    CallMode,
    CallRecord,
    DeadlineKind,
    Direction,
    EndDetail,
    EndReason,
    MediaPath,
    MessageState,
)

pytestmark = pytest.mark.unit

POLICY = CallPolicy(message_attempts=2, hangup_attempts=3)
FEW = settings(max_examples=150)

media_paths = st.sampled_from(list(MediaPath))
modes = st.sampled_from(list(CallMode))


def outbound(media: MediaPath, mode: CallMode) -> Step:
    return open_outbound(
        call_id="c",
        provider="p",
        from_number="+1",
        to_number="+2",
        at=0,
        mode=mode,
        media=media,
        message="welcome",
        policy=POLICY,
    )


def inbound(media: MediaPath) -> CallRecord:
    event = ev.Initiated(at=0, key="k", provider_call_id="P1")
    return open_inbound(
        call_id="c", provider="p", event=event, media=media, greeting="welcome", policy=POLICY
    )


records = st.builds(lambda media, mode: outbound(media, mode).record, media_paths, modes) | (
    media_paths.map(inbound)
)

carrier = {"at": st.just(0), "key": st.just("k"), "provider_call_id": st.just("P1")}
carrier_events: st.SearchStrategy[ev.CallEvent] = st.one_of(
    st.builds(ev.Initiated, **carrier),
    st.builds(ev.Ringing, **carrier),
    st.builds(ev.Answered, **carrier),
    st.builds(ev.Active, **carrier),
    st.builds(
        ev.SpeechHeard,
        text=st.sampled_from(["yes", " ", "no"]),
        final=st.booleans(),
        turn_token=st.sampled_from([None, "a", "b"]),
        **carrier,
    ),
    st.builds(
        ev.DigitsPressed,
        digits=st.just("1"),
        turn_token=st.sampled_from([None, "a", "b"]),
        **carrier,
    ),
    st.builds(ev.PlaybackEnded, utterance_id=st.sampled_from("uvw"), ok=st.booleans(), **carrier),
    st.builds(ev.StreamFailed, **carrier),
    st.builds(ev.StreamStopped, stream_id=st.sampled_from("st"), **carrier),
    st.builds(ev.CallFailed, error=st.just("x"), retryable=st.just(True), **carrier),
)
own_events: st.SearchStrategy[ev.CallEvent] = st.one_of(
    st.just(ev.CallOpened(at=0)),
    st.just(ev.DialAccepted(at=0, provider_call_id="P1")),
    st.just(ev.DialUncertain(at=0, error="?")),
    st.just(ev.DialLookedUp(at=0, provider_call_id="P1")),
    st.builds(ev.ListenStarted, at=st.just(0), token=st.sampled_from([None, "a", "b"])),
    st.builds(ev.CallerSaid, at=st.just(0), text=st.just("hello")),
    st.builds(
        ev.BotSpeaking,
        at=st.just(0),
        utterance_id=st.sampled_from("uvw"),
        text=st.just("words"),
        first_message=st.booleans(),
    ),
    st.builds(
        ev.BotSpoke,
        at=st.just(0),
        utterance_id=st.sampled_from("uvw"),
        heard=st.sampled_from(["", "words"]),
        complete=st.booleans(),
        ok=st.booleans(),
    ),
    st.builds(ev.StreamAttached, at=st.just(0), stream_id=st.sampled_from("st")),
    st.builds(ev.StreamDetached, at=st.just(0), stream_id=st.sampled_from("st")),
    st.just(ev.StreamGivenUp(at=0)),
    st.just(ev.StreamSwapping(at=0, busy_ms=400)),
    st.builds(
        ev.StatusReported,
        at=st.just(0),
        status=st.sampled_from(
            [ev.CarrierStatus.LIVE, ev.CarrierStatus.CONNECTED, ev.CarrierStatus.UNKNOWN]
        ),
    ),
    st.just(ev.Recovered(at=0)),
    st.just(ev.HangUpFailed(at=0, error="x")),
)
endings: st.SearchStrategy[ev.CallEvent] = st.one_of(
    st.builds(ev.CallEnded, reason=st.sampled_from(list(EndReason)), **carrier),
    st.builds(ev.CallFailed, error=st.just("x"), **carrier),
    st.just(ev.EndRequested(at=0)),
    st.just(ev.HangUpDone(at=0)),
    st.just(ev.DialRefused(at=0, error="x")),
    st.just(ev.DialLookedUp(at=0, provider_call_id=None)),
    st.just(ev.StatusReported(at=0, status=ev.CarrierStatus.ENDED)),
    st.just(ev.StatusReported(at=0, status=ev.CarrierStatus.NOT_FOUND)),
)
due = st.builds(ev.DeadlineDue, at=st.just(0), kind=st.sampled_from(list(DeadlineKind)))
lively = st.lists(carrier_events | own_events, max_size=14)
anything = st.lists(carrier_events | own_events | endings | due, max_size=20)


def run(record: CallRecord, events: list[ev.CallEvent]) -> tuple[CallRecord, list[Step]]:
    """Feed events one second apart; deadline events come when they are due."""
    steps = []
    now = 0
    for event in events:
        now += 1_000
        if isinstance(event, ev.DeadlineDue):
            now = max(now, record.deadlines.get(event.kind, 0))
        result = step(record, replace(event, at=now), POLICY)
        record = result.record
        steps.append(result)
    return record, steps


def effects(steps: list[Step]) -> list[object]:
    return [effect for one in steps for effect in one.effects]


def closed(record: CallRecord) -> CallRecord:
    """A record that is over, without the text that its end cut short."""
    return replace(record.with_alias("P1"), utterance=None, transcript=())


@FEW
@example(
    outbound(MediaPath.NATIVE, CallMode.NOTIFY).record,
    [ev.DialRefused(at=0, error="x"), ev.DialUncertain(at=0, error="?")],
)
@given(records, anything)
def test_rules_that_hold_for_every_step(record: CallRecord, events: list[ev.CallEvent]) -> None:
    final, steps = run(record, events)
    before = record
    for event, one in zip(events, steps, strict=True):
        after = one.record
        assert bool(after.deadlines) is after.live
        if before.terminal:
            assert closed(after) == closed(before)
            cut_short = before.utterance is not None and after.utterance is None
            late = isinstance(event, ev.DialUncertain) and not before.aliases
            done_about_it = (LookUpDial() if late else HangUp(),)
            assert cut_short or one.outcome is Outcome.IGNORED or one.effects == done_about_it
        if one.outcome is not Outcome.PROCESSED:
            assert (after, one.effects) == (before, ())
        before = after
    done = effects(steps)
    assert done.count(Release()) == int(final.terminal)
    assert Dial() not in done
    assert final.message is None or final.message.attempts <= POLICY.message_attempts


@FEW
@given(records, st.lists(st.tuples(carrier_events | own_events | endings, st.integers(-99, 99))))
def test_a_clock_that_is_set_makes_no_time_of_a_call_negative(
    record: CallRecord, events: list[tuple[ev.CallEvent, int]]
) -> None:
    for event, at in events:
        record = step(record, replace(event, at=at), POLICY).record
    known = (record.started_at, record.answered_at, record.ended_at)
    times = [at for at in known if at is not None]
    assert times == sorted(times)
    said = [record.started_at, *(entry.at for entry in record.transcript)]
    assert said == sorted(said)


@FEW
@given(records, anything, st.data())
def test_a_redelivered_ending_changes_nothing(
    record: CallRecord, events: list[ev.CallEvent], data: st.DataObject
) -> None:
    final, _ = run(record, events)
    if final.terminal:
        again = data.draw(st.permutations(events))
        after, steps = run(final, again)
        assert closed(after) == closed(final)
        assert Release() not in effects(steps)


@FEW
@given(records, lively, st.sampled_from(list(EndDetail)), st.booleans())
def test_an_end_that_was_asked_for_converges(
    record: CallRecord, events: list[ev.CallEvent], detail: EndDetail, answers: bool
) -> None:
    """Even if every hang-up fails or is never answered."""
    record, _ = run(record, events)
    if record.terminal:
        return
    record, _ = run(record, [ev.EndRequested(at=0, detail=detail)])
    ending = record.ending
    assert ending is not None
    assert DeadlineKind.HANGUP in record.deadlines
    rounds = 0
    while record.live:
        rounds += 1
        assert rounds <= POLICY.hangup_attempts + 2
        if answers:
            record, _ = run(record, [ev.HangUpFailed(at=0, error="no")])
        if record.live:
            record, _ = run(record, [ev.DeadlineDue(at=0, kind=DeadlineKind.HANGUP)])
    assert record.end_reason in (EndReason.ERROR, ending.reason)


@FEW
@given(records, lively)
def test_deadlines_alone_end_every_call(record: CallRecord, events: list[ev.CallEvent]) -> None:
    """With a carrier that sends nothing more."""
    record, _ = run(record, events)
    for _ in range(60):
        if record.terminal:
            break
        later = [kind for kind in record.deadlines if kind is not DeadlineKind.PROBE]
        kind = min(later, key=lambda one: record.deadlines[one])
        record, _ = run(record, [ev.DeadlineDue(at=0, kind=kind)])
    assert record.terminal


@FEW
@given(records, lively)
def test_a_restart_leaves_a_deadline_and_asks_the_carrier(
    record: CallRecord, events: list[ev.CallEvent]
) -> None:
    record, _ = run(record, events)
    if record.terminal:
        return
    after, steps = run(record, [ev.Recovered(at=0)])
    assert after.live
    assert after.deadlines
    assert after.recovering
    assert (after.stream_id, after.listen_token) == (None, None)
    asked = HangUp() if after.ending else ProbeStatus()
    assert effects(steps) == [asked if after.provider_call_id else LookUpDial()]
    if after.media is not MediaPath.NATIVE and after.message is not None:
        assert after.message.state is not MessageState.PLAYING


@FEW
@given(records, anything)
def test_the_first_message_is_never_played_too_often(
    record: CallRecord, events: list[ev.CallEvent]
) -> None:
    starts = 0
    for event in events:
        old = record.message
        record, steps = run(record, [event])
        new = record.message
        if old is not None and new is not None and new.attempts > old.attempts:
            starts += 1
        if PlayMessage() in effects(steps):
            assert new is not None
            assert new.state is MessageState.PENDING
            assert new.attempts < POLICY.message_attempts
    assert starts <= POLICY.message_attempts


@FEW
@given(media_paths, modes, st.sampled_from(["refused", "dial-due", "end-then-due"]))
def test_a_leg_that_turns_up_after_the_end_is_hung_up(
    media: MediaPath, mode: CallMode, way: str
) -> None:
    record = outbound(media, mode).record
    ways: dict[str, list[ev.CallEvent]] = {
        "refused": [ev.DialRefused(at=0, error="busy line")],
        "dial-due": [ev.DeadlineDue(at=0, kind=DeadlineKind.DIAL)],
        "end-then-due": [
            ev.EndRequested(at=0),
            ev.DeadlineDue(at=0, kind=DeadlineKind.HANGUP),
        ],
    }
    closed, _ = run(record, ways[way])
    assert closed.terminal
    late = ev.DialAccepted(at=0, provider_call_id="P1")
    after, steps = run(closed, [late, late])
    assert effects(steps) == [HangUp()]
    assert after == replace(closed, provider_call_id="P1", aliases=("P1",))


@FEW
@given(media_paths, lively)
def test_an_inbound_call_is_never_dialled(media: MediaPath, events: list[ev.CallEvent]) -> None:
    record, steps = run(inbound(media), events)
    assert record.direction is Direction.INBOUND
    assert not any(isinstance(effect, Dial | LookUpDial) for effect in effects(steps))


@FEW
@given(media_paths, modes, st.permutations(["ring", "answer", "active", "accept"]))
def test_the_order_of_the_first_events_does_not_matter(
    media: MediaPath, mode: CallMode, order: list[str]
) -> None:
    by_name: dict[str, ev.CallEvent] = {
        "ring": ev.Ringing(at=0, provider_call_id="P1", key="1"),
        "answer": ev.Answered(at=0, provider_call_id="P1", key="2"),
        "active": ev.Active(at=0, provider_call_id="P1", key="3"),
        "accept": ev.DialAccepted(at=0, provider_call_id="P1"),
    }
    record, steps = run(outbound(media, mode).record, [by_name[name] for name in order])
    assert record.state.value == "active"
    assert record.aliases == ("P1",)
    assert len([e for e in effects(steps) if type(e).__name__ == "Connected"]) == 1
    waiting = {DeadlineKind.MAX_DURATION, DeadlineKind.PROBE}
    if media is not MediaPath.NATIVE:
        waiting.add(DeadlineKind.STREAM)
    assert set(record.deadlines) == waiting
