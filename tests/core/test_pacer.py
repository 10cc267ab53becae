"""The pacer: its bounded lead, marks, how much was heard, interruptions and rewinds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall import MULAW_8K, PCM16_16K
from voicecall.pacer import Heard, OutAudio, OutMark, Pacer, PacerOverflow

pytestmark = pytest.mark.unit

Out = list[OutAudio | OutMark]


def ms(milliseconds: float) -> bytes:
    return bytes(MULAW_8K.size(milliseconds))


def audio_of(out: Out) -> bytes:
    return b"".join(one.payload for one in out if isinstance(one, OutAudio))


def marks_of(out: Out) -> list[str]:
    return [one.name for one in out if isinstance(one, OutMark)]


def play(pacer: Pacer, begin: float, end: float) -> Out:
    out: Out = []
    step = 0
    while (now := begin + step * 0.02) <= end:
        out += pacer.poll(now)
        step += 1
    return out


def test_audio_leaves_with_a_bounded_lead() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60)
    pacer.write("a", ms(2000))
    sent = 0.0
    for number in range(101):
        now = 10 + number * 0.02
        sent += MULAW_8K.duration_ms(len(audio_of(pacer.poll(now))))
        ahead = sent - (now - 10) * 1000
        assert ahead <= 260 + 1e-6
        assert ahead >= min(200, 2000 - (now - 10) * 1000) - 1e-6
    assert sent == 2000
    assert pacer.poll(20) == []


def test_what_is_there_leaves_in_chunks_at_once() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60)
    for _ in range(50):
        pacer.write("a", ms(20))
    out = pacer.poll(0)
    assert [len(one.payload) for one in out if isinstance(one, OutAudio)] == [480] * 4
    wake = pacer.wake_at()
    assert wake == pytest.approx(0.04)
    assert pacer.poll(0.03) == []
    assert audio_of(pacer.poll(0.041)) == ms(60)


def test_a_mark_comes_often_enough_and_after_each_item() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=10_000, chunk_ms=60, mark_ms=240)
    pacer.write("a", ms(600))
    pacer.write("b", ms(60))
    out = pacer.poll(0)
    since = 0.0
    spans = []
    for one in out:
        if isinstance(one, OutAudio):
            since += MULAW_8K.duration_ms(len(one.payload))
        else:
            spans.append(since)
            since = 0.0
    assert spans == [240, 240, 120, 60]
    names = marks_of(out)
    assert len(set(names)) == len(names)


def test_marks_tell_what_was_heard() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=10_000, chunk_ms=60, mark_ms=240)
    pacer.write("a", ms(600))
    first, second, third = marks_of(pacer.poll(0))
    assert pacer.mark_reached(first)
    assert pacer.heard("a", 0).milliseconds == 240
    assert not pacer.mark_reached(first)
    assert not pacer.mark_reached("nobody's")
    # A mark confirms everything sent before it.
    assert pacer.mark_reached(third)
    assert not pacer.mark_reached(second)
    heard = pacer.heard("a", 0)
    assert (heard.milliseconds, heard.complete) == (600, False)
    pacer.finish("a")
    assert pacer.heard("a", 0).complete
    assert pacer.idle


def test_the_estimate_between_marks_follows_the_clock_and_stops_at_what_was_sent() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=300, chunk_ms=60)
    pacer.write("a", ms(300))
    pacer.finish("a")
    pacer.poll(5)
    assert pacer.heard("a", 5.15).milliseconds == pytest.approx(150, abs=1)
    late = pacer.heard("a", 99)
    assert late.milliseconds == pytest.approx(300, abs=0.2)
    assert not late.complete
    assert pacer.pending("a")


def test_without_marks_the_clock_decides() -> None:
    pacer = Pacer(MULAW_8K, marks=False)
    pacer.write("a", ms(100))
    pacer.finish("a")
    assert marks_of(pacer.poll(0)) == []
    assert pacer.pending("a")
    pacer.poll(0.2)
    heard = pacer.heard("a", 0.2)
    assert (heard.milliseconds, heard.complete) == (100, True)
    assert pacer.idle
    assert not pacer.pending("a")


def test_without_marks_audio_follows_in_the_moment_in_which_all_was_heard() -> None:
    pacer = Pacer(MULAW_8K, marks=False)
    for _ in range(2):
        pacer.write("a", ms(20))
        pacer.poll(0)
    assert pacer.poll(0.04) == []
    pacer.write("a", ms(20))
    assert audio_of(pacer.poll(0.04)) == ms(20)
    assert pacer.heard("a", 0.05).milliseconds == pytest.approx(50, abs=0.2)


def test_between_audio_and_its_last_mark_a_pacer_is_not_idle() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60)
    pacer.write("a", ms(60))
    assert not pacer.idle
    marks = marks_of(pacer.poll(0))
    assert not pacer.idle
    assert all(pacer.mark_reached(name) for name in marks)
    assert pacer.idle


def test_clear_tells_of_what_has_not_begun_too() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60)
    pacer.write("a", ms(1000))
    pacer.write("b", ms(100))
    pacer.finish("a")
    pacer.finish("b")
    pacer.write("c", ms(20))
    pacer.poll(0)
    heard = pacer.clear(0.1)
    assert heard == {"a": Heard(100, False), "b": Heard(0, False), "c": Heard(0, False)}
    assert not any(pacer.pending(item) for item in "abc")


def test_clear_tells_of_what_was_heard_and_may_go_on() -> None:
    pacer = Pacer(MULAW_8K, chunk_ms=60)
    pacer.write("a", ms(60))
    (name,) = marks_of(pacer.poll(0))
    assert pacer.mark_reached(name)
    assert pacer.clear(1) == {"a": Heard(60, False)}


def test_the_size_of_an_item_is_what_was_heard_is_on_its_way_and_waits() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60, mark_ms=60)
    pacer.write("a", ms(100))
    pacer.write("b", ms(1000))
    first, *_ = marks_of(pacer.poll(0))
    pacer.mark_reached(first)
    assert (pacer.size("a"), pacer.size("b")) == (MULAW_8K.size(100), MULAW_8K.size(1000))
    assert pacer.size("c") == 0


def test_clear_throws_everything_away_and_tells_what_was_heard() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60)
    pacer.write("a", ms(100))
    pacer.write("b", ms(1000))
    marks = marks_of(pacer.poll(0))
    heard = pacer.clear(0.15)
    assert heard["a"].milliseconds == pytest.approx(100, abs=1)
    assert heard["b"].milliseconds == pytest.approx(50, abs=1)
    assert not heard["b"].complete
    assert pacer.idle
    assert pacer.wake_at() is None
    assert pacer.drain_ms(0.15) == 0
    assert not any(pacer.mark_reached(name) for name in marks)
    assert pacer.heard("b", 9).milliseconds == pytest.approx(50, abs=1)
    pacer.write("c", ms(20))
    assert audio_of(pacer.poll(0.2)) == ms(20)
    assert pacer.heard("c", 0.21).milliseconds == pytest.approx(10, abs=0.2)


def test_rewind_sends_again_exactly_what_was_not_confirmed() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=600, chunk_ms=60, mark_ms=120)
    audio = bytes(number % 251 for number in range(MULAW_8K.size(900)))
    pacer.write("a", audio)
    first, *others = marks_of(pacer.poll(0))
    assert pacer.mark_reached(first)
    confirmed = int(pacer.heard("a", 0).milliseconds * 8)
    pacer.rewind()
    assert not any(pacer.mark_reached(name) for name in others)
    assert audio_of(play(pacer, 3, 5)) == audio[confirmed:]


@pytest.mark.parametrize("now", [0.0, 0.06, 0.0733, 0.1999, 0.24, 5.0])
def test_rewind_to_a_time_keeps_what_was_played_by_then(now: float) -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60)
    audio = bytes(number % 251 for number in range(MULAW_8K.size(900)))
    pacer.write("a", audio)
    sent = audio_of(pacer.poll(0))
    played = min(int(now * 8000 + 1e-6), len(sent))
    pacer.rewind(now)
    assert pacer.heard("a", now + 60).milliseconds == pytest.approx(played / 8, abs=0.001)
    assert audio_of(play(pacer, now + 1, now + 3)) == audio[played:]
    assert pacer.underruns == 0


def test_rewind_to_a_time_cuts_between_samples() -> None:
    pacer = Pacer(PCM16_16K, lead_ms=200)
    audio = bytes(number % 251 for number in range(PCM16_16K.size(100)))
    pacer.write("a", audio)
    pacer.poll(0)
    pacer.rewind(0.010_04)
    assert audio_of(pacer.poll(1)) == audio[PCM16_16K.size(10) :]


def test_an_underrun_is_counted_where_more_audio_was_due() -> None:
    pacer = Pacer(MULAW_8K)
    pacer.write("a", ms(100))
    pacer.poll(0)
    pacer.write("a", ms(100))
    pacer.poll(0.05)
    assert pacer.underruns == 0
    pacer.write("a", ms(20))
    pacer.poll(5)
    assert pacer.underruns == 1
    # The caller has heard none of this item yet, whatever came before.
    assert pacer.heard("a", 5).milliseconds == pytest.approx(200, abs=0.2)
    pacer.finish("a")
    pacer.write("b", ms(20))
    pacer.poll(9)
    assert pacer.underruns == 1


def test_an_underrun_is_counted_though_all_marks_came_back() -> None:
    pacer = Pacer(MULAW_8K)
    pacer.write("a", ms(100))
    for name in marks_of(pacer.poll(0)):
        pacer.mark_reached(name)
    pacer.write("a", ms(100))
    pacer.poll(5)
    assert pacer.underruns == 1


@pytest.mark.parametrize("assured", [False, True])
def test_marks_are_fewer_while_arrival_is_known_otherwise(assured: bool) -> None:
    pacer = Pacer(MULAW_8K, mark_ms=240, assured_ms=960)
    pacer.assured = assured
    out: Out = []
    for number in range(240):
        pacer.write("a", ms(20))
        out += pacer.poll(number * 0.02)
    assert len(marks_of(out)) == 240 * 20 // (960 if assured else 240)


def test_a_live_stream_leaves_at_once_and_with_few_marks() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60)
    out: Out = []
    for number in range(300):
        jitter = 0.004 * (number % 3)
        pacer.write("a", ms(20))
        sent = pacer.poll(number * 0.02 + jitter)
        assert audio_of(sent) == ms(20)
        assert pacer.wake_at() is None
        out += sent
    assert len(marks_of(out)) == 25


def test_a_live_stream_that_is_passed_on_has_as_many_marks() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60)
    pacer.write("a", ms(20))
    pacer.poll(0)
    marks = [pacer.pass_on("a", ms(20), number * 0.02 - 0.001) for number in range(1, 300)]
    assert None not in marks
    assert len([mark for mark in marks if mark]) == 25


def test_an_item_behind_another_that_has_no_mark_yet_is_counted_by_itself() -> None:
    pacer = Pacer(MULAW_8K)
    pacer.write("a", ms(20))
    pacer.poll(0)
    assert pacer.pass_on("b", ms(20), 0) is None
    pacer.write("b", ms(20))
    pacer.poll(0)
    assert (pacer.size("a"), pacer.size("b")) == (MULAW_8K.size(20), MULAW_8K.size(20))
    assert pacer.heard("b", 0.03).milliseconds == pytest.approx(10, abs=0.2)


def test_a_finished_item_ends_with_a_mark() -> None:
    pacer = Pacer(MULAW_8K)
    pacer.write("a", ms(20))
    assert marks_of(pacer.poll(0)) == []
    pacer.finish("a")
    (mark,) = marks_of(pacer.poll(0.001))
    assert marks_of(pacer.poll(0.002)) == []
    assert pacer.pending("a")
    assert pacer.mark_reached(mark)
    assert not pacer.pending("a")


def test_the_last_of_several_finished_items_ends_with_a_mark() -> None:
    pacer = Pacer(MULAW_8K)
    pacer.write("a", ms(20))
    pacer.write("b", ms(20))
    pacer.finish("a")
    before = marks_of(pacer.poll(0))
    pacer.finish("b")
    (mark,) = marks_of(pacer.poll(0.001))
    assert mark not in before
    assert pacer.mark_reached(mark)
    assert pacer.idle


def test_a_finished_item_that_still_waits_gets_no_marks_before_their_time() -> None:
    pacer = Pacer(MULAW_8K, mark_ms=240)
    pacer.write("a", ms(960))
    pacer.finish("a")
    assert len(marks_of(play(pacer, 0, 2))) == 4


def test_pieces_travel_together_only_with_their_own_item() -> None:
    pacer = Pacer(MULAW_8K, chunk_ms=60)
    for item in "aaba":
        pacer.write(item, ms(20))
    out = [(one.item, one.payload) for one in pacer.poll(0) if isinstance(one, OutAudio)]
    assert out == [("a", ms(40)), ("b", ms(20)), ("a", ms(20))]


def test_what_waits_again_behind_a_rewind_counts_as_waiting() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=300, chunk_ms=60, limit_ms=400)
    pacer.write("a", ms(400))
    pacer.poll(0)
    pacer.rewind()
    assert pacer.drain_ms(0) == pytest.approx(400)
    with pytest.raises(PacerOverflow):
        pacer.write("a", ms(20))
    assert audio_of(play(pacer, 1, 2)) == ms(400)


def test_an_item_whose_audio_waits_is_pending_and_no_other_is() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=60, chunk_ms=60)
    pacer.write("a", ms(60))
    pacer.write("b", ms(60))
    pacer.finish("a")
    pacer.finish("b")
    (mark,) = marks_of(pacer.poll(0))
    pacer.mark_reached(mark)
    assert (pacer.pending("a"), pacer.pending("b")) == (False, True)


@pytest.mark.parametrize("cleared", [False, True])
def test_audio_that_has_no_mark_yet_brings_the_next_one_nearer_until_it_is_cleared(
    cleared: bool,
) -> None:
    pacer = Pacer(MULAW_8K, lead_ms=10_000, chunk_ms=60, mark_ms=240)
    for _ in range(2):
        pacer.write("a", ms(50))
        assert marks_of(pacer.poll(0)) == []
    if cleared:
        # After a pause it is a separate stretch.
        pacer.write("a", ms(20))
        assert marks_of(pacer.poll(1)) == []
        pacer.clear(1)
    pacer.write("b", ms(300))
    spans = [
        MULAW_8K.duration_ms(len(one.payload)) if isinstance(one, OutAudio) else "mark"
        for one in pacer.poll(0)
    ]
    before = sum(span for span in spans[: spans.index("mark")] if not isinstance(span, str))
    assert before == (240 if cleared else 180)


def test_too_much_audio_is_refused() -> None:
    pacer = Pacer(MULAW_8K, limit_ms=100)
    pacer.write("a", ms(60))
    with pytest.raises(PacerOverflow):
        pacer.write("a", ms(60))
    pacer.write("a", ms(40))
    pacer.write("a", b"")
    assert len(audio_of(pacer.poll(0))) == MULAW_8K.size(100)


def test_drain_time_and_forgetting() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=100)
    pacer.write("a", ms(500))
    assert pacer.drain_ms(7) == pytest.approx(500)
    pacer.poll(7)
    assert pacer.drain_ms(7.1) == pytest.approx(400)
    pacer.clear(7.1)
    pacer.forget("a")
    assert pacer.heard("a", 8).milliseconds == 0
    assert not pacer.pending("a")


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("abc"), st.integers(1, 400)),
        st.tuples(st.just("wait"), st.just(""), st.integers(0, 300)),
        st.tuples(st.just("mark"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("finish"), st.sampled_from("abc"), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=150)
@given(ACTIONS, st.booleans())
def test_all_audio_leaves_once_and_in_order(
    actions: list[tuple[str, str, int]], marks: bool
) -> None:
    pacer = Pacer(PCM16_16K, marks=marks)
    written = b""
    sent = b""
    sizes: dict[str, int] = {}
    best: dict[str, float] = {}
    waiting: list[str] = []
    now = 1.0
    for action, item, number in [*actions, ("wait", "", 60_000)]:
        if action == "write":
            audio = bytes((len(written) + n) % 251 for n in range(2 * 16 * number))
            pacer.write(item, audio)
            written += audio
            sizes[item] = sizes.get(item, 0) + len(audio)
        elif action == "wait":
            now += number / 1000
        elif action == "mark" and waiting:
            name = waiting[min(number, len(waiting) - 1)]
            assert pacer.mark_reached(name)
            del waiting[: waiting.index(name) + 1]
        elif action == "finish":
            pacer.finish(item)
        begun = now
        while True:
            out = pacer.poll(now)
            sent += audio_of(out)
            waiting += marks_of(out)
            if action != "wait" or pacer.wake_at() is None or now > begun + 60:
                break
            now += 0.1
        for one, size in sizes.items():
            heard = pacer.heard(one, now).milliseconds
            assert heard >= best.get(one, 0.0) - 0.07
            assert heard <= PCM16_16K.duration_ms(size)
            best[one] = heard
    assert sent == written


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([0, 20, 60, 100, 400]), st.floats(0, 0.3)),
        max_size=40,
    ),
    st.booleans(),
)
def test_passing_on_is_writing_and_polling(
    pieces: list[tuple[str, int, float]], marks: bool
) -> None:
    one, other = Pacer(MULAW_8K, marks=marks), Pacer(MULAW_8K, marks=marks)
    now = 0.0
    for item, milliseconds, pause in pieces:
        now += pause
        audio = ms(milliseconds)
        one.write(item, audio)
        mark = other.pass_on(item, audio, now)
        if mark is not None:
            out: Out = [OutAudio(audio, item), *([OutMark(mark)] if mark else [])]
        else:
            other.write(item, audio)
            out = other.poll(now)
        assert out == one.poll(now)
        assert (other.wake_at(), other.underruns) == (one.wake_at(), one.underruns)
        assert other.heard(item, now) == one.heard(item, now)


def test_less_than_a_chunk_waits_for_more_while_the_lead_lasts() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60)
    pacer.write("a", ms(220))
    assert audio_of(pacer.poll(0)) == ms(220)
    pacer.write("a", ms(20))
    assert pacer.poll(0) == []
    assert pacer.wake_at() == pytest.approx(0.06)
    less = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60)
    less.write("a", ms(220))
    less.poll(0)
    less.write("a", ms(5))
    assert less.wake_at() == pytest.approx(0.07)
    pacer.write("a", ms(40))
    assert pacer.wake_at() == pytest.approx(0.02)
    (piece,) = [one for one in pacer.poll(0.06) if isinstance(one, OutAudio)]
    assert piece.payload == ms(60)
