"""Every reachable kind of call record against every event: all rules of the state machine.

Records are explored breadth first from their opening. Two records that differ only in times and
texts are of the same kind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cache

import pytest
from msgspec.structs import replace

from voicecall import events as ev
from voicecall.machine import (
    AnswerCall,
    CallPolicy,
    Connected,
    Dial,
    HangUp,
    LookUpDial,
    Outcome,
    PlayMessage,
    ReattachStream,
    Release,
    Step,
    StreamMissing,
    advance,
    open_inbound,
    open_outbound,
    refuse_inbound,
    step,
)
from voicecall.model import (
    CallMode,
    CallRecord,
    CallState,
    DeadlineKind,
    EndDetail,
    EndReason,
    MediaPath,
)

pytestmark = pytest.mark.unit

POLICY = CallPolicy(hangup_attempts=2, message_attempts=2, carrier_speaks=True)
KINDS_PER_OPENING = 300

S = CallState
LIVE = (S.INITIATED, S.RINGING, S.ANSWERED, S.ACTIVE, S.SPEAKING, S.LISTENING)
TERMINAL = tuple(state for state in S if state not in LIVE)
ALLOWED = {
    S.INITIATED: {S.RINGING, S.ANSWERED, S.ACTIVE, S.SPEAKING, S.LISTENING},
    S.RINGING: {S.ANSWERED, S.ACTIVE, S.SPEAKING, S.LISTENING},
    S.ANSWERED: {S.ACTIVE, S.SPEAKING, S.LISTENING},
    S.ACTIVE: {S.SPEAKING, S.LISTENING},
    S.SPEAKING: {S.LISTENING},
    S.LISTENING: {S.SPEAKING},
}


def carrier(cls: type[ev.CarrierEvent], **more: object) -> ev.CarrierEvent:
    return cls(at=0, key="k", provider_call_id="P1", **more)  # type: ignore[arg-type]


EVENTS: tuple[ev.CallEvent, ...] = (
    ev.CallOpened(at=0),
    carrier(ev.Initiated),
    carrier(ev.Ringing),
    carrier(ev.Answered),
    carrier(ev.Active),
    carrier(ev.SpeechHeard, text="yes"),
    carrier(ev.SpeechHeard, text="yes", turn_token="tok"),
    carrier(ev.SpeechHeard, text="yes", turn_token="stale"),
    carrier(ev.SpeechHeard, text=" "),
    carrier(ev.SpeechHeard, text="ye", final=False),
    carrier(ev.DigitsPressed, digits="1"),
    carrier(ev.DigitsPressed, digits="1", turn_token="stale"),
    carrier(ev.PlaybackEnded, utterance_id="first"),
    carrier(ev.PlaybackEnded, utterance_id="first", ok=False),
    carrier(ev.StreamFailed, error="gone"),
    carrier(ev.StreamStopped, stream_id="s1"),
    carrier(ev.StreamStopped, stream_id="s0"),
    carrier(ev.CallEnded, reason=EndReason.COMPLETED),
    carrier(ev.CallEnded, reason=EndReason.BUSY),
    carrier(ev.CallFailed, error="bad"),
    carrier(ev.CallFailed, error="bad", retryable=True),
    ev.DialAccepted(at=0, provider_call_id="P1"),
    ev.DialRefused(at=0, error="no"),
    ev.DialUncertain(at=0, error="?"),
    ev.DialLookedUp(at=0, provider_call_id="P1"),
    ev.DialLookedUp(at=0, provider_call_id=None),
    ev.ListenStarted(at=0, token="tok"),
    ev.CallerSaid(at=0, text="hello"),
    ev.BotSpeaking(at=0, utterance_id="first", text="welcome", first_message=True),
    ev.BotSpeaking(at=0, utterance_id="other", text="well"),
    ev.BotSpoke(at=0, utterance_id="first", heard="welcome"),
    ev.BotSpoke(at=0, utterance_id="first", heard="", ok=False),
    ev.BotSpoke(at=0, utterance_id="other", heard="we", complete=False),
    ev.StreamAttached(at=0, stream_id="s1"),
    ev.StreamDetached(at=0, stream_id="s1"),
    ev.StreamDetached(at=0, stream_id="s0"),
    ev.StreamGivenUp(at=0),
    ev.StreamSwapping(at=0, busy_ms=400),
    ev.EndRequested(at=0),
    ev.HangUpDone(at=0),
    ev.HangUpFailed(at=0, error="no"),
    *(ev.StatusReported(at=0, status=status) for status in ev.CarrierStatus),
    ev.Recovered(at=0),
)
CLASSES = {type(event) for event in EVENTS} | {ev.DeadlineDue}


def kind_of(record: CallRecord) -> tuple[object, ...]:
    """Everything in a record that can make a difference: all but times and texts."""
    ending, message, utterance = record.ending, record.message, record.utterance
    return (
        record.state,
        record.direction,
        record.mode,
        record.media,
        record.provider_call_id,
        record.answered_at is None,
        message and (message.state, message.attempts),
        utterance and utterance.id,
        ending and (ending.reason, ending.attempts),
        record.listen_token,
        record.stream_id,
        record.recovering,
        frozenset(record.deadlines),
    )


def openings() -> Iterator[CallRecord]:
    ring = ev.Initiated(at=0, key="k", provider_call_id="P1")
    for media in MediaPath:
        # A notification has a message; a conversation may begin without one.
        for mode, message in (
            (CallMode.NOTIFY, "welcome"),
            (CallMode.CONVERSATION, "welcome"),
            (CallMode.CONVERSATION, None),
        ):
            yield open_outbound(
                call_id="c",
                provider="p",
                from_number="+1",
                to_number="+2",
                at=0,
                mode=mode,
                media=media,
                message=message,
                policy=POLICY,
            ).record
        yield open_inbound(
            call_id="c", provider="p", event=ring, media=media, greeting="welcome", policy=POLICY
        )


def events_for(record: CallRecord) -> Iterator[ev.CallEvent]:
    yield from EVENTS
    for kind in DeadlineKind:
        yield ev.DeadlineDue(at=record.deadlines.get(kind, 0), kind=kind)


Edge = tuple[CallRecord, ev.CallEvent, Step]


@cache
def edges() -> list[Edge]:
    """Every reachable (record, event, step), for the kinds of record nearest to each opening."""
    found: list[Edge] = []
    for opening in openings():
        waiting = deque([opening])
        seen = {kind_of(opening)}
        while waiting:
            record = waiting.popleft()
            for event in events_for(record):
                result = step(record, event, POLICY)
                found.append((record, event, result))
                kind = kind_of(result.record)
                if kind not in seen and len(seen) < KINDS_PER_OPENING:
                    seen.add(kind)
                    waiting.append(result.record)
    return found


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """Free the million objects of the exploration: each garbage collection would visit them."""
    yield
    edges.cache_clear()


def told(edge: Edge) -> str:
    record, event, result = edge
    return f"{record}\n  on {event}\n  -> {result}"


def test_every_event_class_and_state_takes_part() -> None:
    every = {
        cls
        for name in ev.__all__
        if isinstance(cls := getattr(ev, name), type) and issubclass(cls, ev.CallEvent)
    }
    assert every - {ev.CallEvent, ev.CarrierEvent} == CLASSES
    met = {(record.state, type(event)) for record, event, _ in edges()}
    for state in LIVE:
        assert {cls for met_state, cls in met if met_state is state} == CLASSES


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("target", S)
def test_the_table_of_transitions(state: CallState, target: CallState) -> None:
    legal = state in ALLOWED and (target in TERMINAL or target in ALLOWED[state])
    assert advance(state, target) is (target if legal else state)


def test_states_change_by_the_table_only() -> None:
    for edge in edges():
        before, after = edge[0].state, edge[2].record.state
        if after is not before:
            assert before in LIVE, told(edge)
            assert after in TERMINAL or after in ALLOWED[before], told(edge)


def test_a_terminal_record_stays_as_it_is() -> None:
    for edge in edges():
        record, event, result = edge
        if not record.terminal:
            continue
        utterance = record.utterance
        if isinstance(event, ev.BotSpoke) and utterance and utterance.id == event.utterance_id:
            # Only the sentence that the end cut short may change: what was heard of it is noted.
            shortened = replace(result.record, transcript=record.transcript)
            assert shortened == replace(record, utterance=None), told(edge)
            assert result.effects == (), told(edge)
            continue
        if isinstance(event, ev.DialUncertain) and not record.aliases:
            # Stored late: the call is still looked up.
            assert result == Step(record, (LookUpDial(),)), told(edge)
            continue
        if result.effects:
            # A leg that turns up after the end is hung up, and so is one whose hang-up failed.
            assert result.effects == (HangUp(),), told(edge)
            failed = record.end_detail is EndDetail.HANGUP_FAILED
            assert failed or not record.aliases, told(edge)
            assert result.record == record.with_alias("P1"), told(edge)
        else:
            assert result == Step(record, (), Outcome.IGNORED), told(edge)


@pytest.mark.parametrize("reason", EndReason)
def test_every_terminal_state_absorbs_every_event(reason: EndReason) -> None:
    opened = next(openings()).with_alias("P1")
    ended = step(opened, carrier(ev.CallEnded, reason=reason), POLICY).record
    assert ended.state is reason.state
    for event in events_for(ended):
        assert step(ended, event, POLICY) == Step(ended, (), Outcome.IGNORED)


def test_a_live_record_has_a_deadline_and_a_terminal_one_has_none() -> None:
    for edge in edges():
        record = edge[2].record
        assert bool(record.deadlines) is record.live, told(edge)
        assert all(isinstance(kind, DeadlineKind) for kind in record.deadlines), told(edge)


def test_a_terminal_record_says_why() -> None:
    for edge in edges():
        record = edge[2].record
        if record.terminal:
            assert record.end_reason is not None, told(edge)
            assert record.end_reason.state is record.state, told(edge)
            assert record.end_detail is not None, told(edge)
            assert record.ended_at is not None, told(edge)
            leftovers = (record.ending, record.stream_id, record.listen_token)
            assert leftovers == (None,) * 3, told(edge)
            assert not record.recovering, told(edge)
            if record.message is not None:
                assert record.message.state in ("done", "failed"), told(edge)


def test_release_comes_exactly_with_the_end() -> None:
    for edge in edges():
        record, _, result = edge
        ends = record.live and result.record.terminal
        assert result.effects.count(Release()) == int(ends), told(edge)


def test_a_call_that_is_being_ended_begins_nothing() -> None:
    begins = (AnswerCall, Connected, Dial, PlayMessage, ReattachStream, StreamMissing)
    for edge in edges():
        if edge[0].ending is not None:
            assert not [one for one in edge[2].effects if isinstance(one, begins)], told(edge)


def test_a_due_deadline_is_used_up_or_moved() -> None:
    """Otherwise it would be due again immediately, for ever."""
    for edge in edges():
        record, event, result = edge
        if isinstance(event, ev.DeadlineDue) and event.kind in record.deadlines:
            assert result.outcome is Outcome.PROCESSED, told(edge)
            assert result.record.deadlines.get(event.kind, event.at + 1) > event.at, told(edge)


def test_a_deadline_before_its_time_changes_nothing() -> None:
    for record, _, _ in edges()[::97]:
        for kind, due in record.deadlines.items():
            early = ev.DeadlineDue(at=due - 1, kind=kind)
            assert step(record, early, POLICY) == Step(record, (), Outcome.IGNORED)


def test_what_is_not_processed_changes_nothing() -> None:
    for edge in edges():
        record, _, result = edge
        if result.outcome is not Outcome.PROCESSED:
            assert result.record == record, told(edge)
            assert result.effects == (), told(edge)


def test_what_is_known_stays_known() -> None:
    for edge in edges():
        before, after = edge[0], edge[2].record
        for name in ("call_id", "direction", "mode", "started_at", "to_number"):
            assert getattr(before, name) == getattr(after, name), told(edge)
        given_up = isinstance(edge[1], ev.StreamGivenUp) and before.live
        assert after.media is (MediaPath.NATIVE if given_up else before.media), told(edge)
        if before.answered_at is not None:
            assert after.answered_at == before.answered_at, told(edge)
        assert after.aliases[: len(before.aliases)] == before.aliases, told(edge)
        assert after.transcript[: len(before.transcript)] == before.transcript, told(edge)
        if before.message is not None and after.message is not None:
            assert before.message.attempts <= after.message.attempts, told(edge)
            assert after.message.attempts <= POLICY.message_attempts, told(edge)
        if before.ending is not None and after.live:
            assert after.ending is not None, told(edge)
            assert after.ending.reason is before.ending.reason, told(edge)


def test_every_reachable_record_survives_storing() -> None:
    for _, _, result in edges()[::53]:
        record = result.record
        assert CallRecord.from_dict(record.to_dict(), record.transcript) == record


@pytest.mark.parametrize("within", [None, "message", "utterance", "ending"])
def test_a_record_of_a_newer_program_is_refused(within: str | None) -> None:
    records = (result.record for _, _, result in edges())
    record = next(one for one in records if within is None or getattr(one, within) is not None)
    data = record.to_dict()
    (data if within is None else data[within])["mood"] = "good"
    with pytest.raises(TypeError, match="mood"):
        CallRecord.from_dict(data, record.transcript)


def test_a_refused_call_is_over() -> None:
    event = ev.Initiated(at=5, key="k", provider_call_id="P1", from_number="+3")
    refused = refuse_inbound(call_id="c", provider="p", event=event, detail=EndDetail.POLICY)
    assert refused.record.state is S.HANGUP_BOT
    assert refused.record.deadlines == {}
    assert (refused.record.from_number, refused.record.to_number) == ("+3", "unknown")
    assert (refused.record.provider_call_id, refused.record.aliases) == ("P1", ("P1",))
    assert step(refused.record, event, POLICY).outcome is Outcome.IGNORED
    unknown = replace(event, from_number=None)
    refused = refuse_inbound(call_id="c", provider="p", event=unknown, detail=EndDetail.POLICY)
    assert refused.record.from_number == "unknown"
