"""The pacer and live audio: nothing stays behind after a stall, every byte is accounted for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall import MULAW_8K
from voicecall.pacer import OutAudio, OutMark, Pacer

pytestmark = pytest.mark.unit

FRAME = MULAW_8K.size(20)
Out = list[OutAudio | OutMark]


def audio_of(out: Out) -> bytes:
    return b"".join(one.payload for one in out if isinstance(one, OutAudio))


def test_frames_of_a_stall_leave_together() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, live_lead_ms=1000)
    now = 0.0
    for _ in range(100):
        now += 0.02
        assert len(audio_of(pacer.pass_on("a", bytes(FRAME), now))) == FRAME
    # The loop stood still for 0.6 s: its frames come all at once.
    now += 0.6
    sent = sum(len(audio_of(pacer.pass_on("a", bytes(FRAME), now))) for _ in range(30))
    assert sent == 30 * FRAME
    for _ in range(100):
        now += 0.02
        assert len(audio_of(pacer.pass_on("a", bytes(FRAME), now))) == FRAME
        assert not pacer.waiting
    assert pacer.underruns == 1


@pytest.mark.parametrize(("marks", "most_ms"), [(True, 1000), (False, 200)])
def test_live_audio_runs_ahead_no_further_than_its_own_lead(marks: bool, most_ms: int) -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60, live_lead_ms=1000, marks=marks)
    pacer.pass_on("a", bytes(FRAME), 0.0)
    late = [audio_of(pacer.pass_on("a", bytes(FRAME), 3.0)) for _ in range(150)]
    ahead_ms = MULAW_8K.duration_ms(sum(map(len, late)))
    assert most_ms <= ahead_ms <= most_ms + 60
    assert pacer.waiting


def test_a_first_item_that_began_in_a_burst_comes_to_pass_at_once() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60, live_lead_ms=1000)
    now = 1.0
    for _ in range(30):
        pacer.pass_on("item 0", bytes(FRAME), now)
    assert pacer.waiting
    late = 0
    for number in range(300):
        now += 0.02
        late = late + 1 if not pacer.pass_on(f"item {number // 100}", bytes(FRAME), now) else 0
    assert late == 0
    assert not pacer.waiting


def test_audio_made_ahead_of_time_keeps_the_lead_however_small_its_pieces() -> None:
    pacer = Pacer(MULAW_8K, lead_ms=200, chunk_ms=60, live_lead_ms=1000)
    sent = b"".join(
        audio_of(pacer.pass_on(f"item {number // 50}", bytes(FRAME), 5.0)) for number in range(200)
    )
    assert MULAW_8K.duration_ms(len(sent)) <= 260


def test_marks_of_live_audio_can_be_rarer() -> None:
    pacer = Pacer(MULAW_8K, mark_ms=240, live_mark_ms=960)
    out: Out = []
    for number in range(96):
        out += pacer.pass_on("a", bytes(FRAME), number * 0.02)
    assert sum(isinstance(one, OutMark) for one in out) == 2
    pacer.finish("a")
    assert not any(isinstance(one, OutMark) for one in pacer.poll(2.0))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("ab"), st.integers(1, 700)),
        st.tuples(st.just("wait"), st.just(""), st.integers(0, 900)),
        st.tuples(st.just("mark"), st.just(""), st.integers(0, 5)),
        st.tuples(st.sampled_from(["clear", "rewind", "drop"]), st.just(""), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps, st.booleans())
def test_no_byte_is_lost_or_heard_twice(actions: list[tuple[str, str, int]], marks: bool) -> None:
    """Written is heard, waiting, on its way or cleared; a rewind brings back what is missing."""
    pacer = Pacer(MULAW_8K, live_mark_ms=960, marks=marks)
    now = 1.0
    written: dict[str, int] = {}
    cleared: dict[str, int] = {}
    waiting: list[str] = []
    sent = 0

    def take(out: Out) -> None:
        nonlocal sent
        sent += len(audio_of(out))
        waiting.extend(one.name for one in out if isinstance(one, OutMark))

    def heard(item: str) -> int:
        return MULAW_8K.size(pacer.heard(item, now).milliseconds + 0.001)

    for action, item, number in actions:
        if action == "write":
            take(pacer.pass_on(item, bytes(number), now))
            written[item] = written.get(item, 0) + number
        elif action == "wait":
            now += number / 1000
            take(pacer.poll(now))
        elif action == "mark" and waiting:
            name = waiting[min(number, len(waiting) - 1)]
            assert pacer.mark_reached(name)
            del waiting[: waiting.index(name) + 1]
        elif action in ("rewind", "drop"):
            before = {one: heard(one) for one in written}
            pacer.rewind(now if action == "rewind" else None)
            waiting.clear()
            for one, size in before.items():
                assert heard(one) == size if action == "rewind" else heard(one) <= size
        elif action == "clear":
            before = {one: heard(one) for one in written}
            result = pacer.clear(now)
            waiting.clear()
            for one, size in before.items():
                assert heard(one) == size
                if one in result:
                    assert MULAW_8K.size(result[one].milliseconds + 0.001) == size
                cleared[one] = written[one] - size
        for one, size in written.items():
            assert 0 <= heard(one) <= size - cleared.get(one, 0)
        assert sum(map(heard, written)) <= sent
    for _ in range(2000):
        for one in written:
            pacer.finish(one)
        take(pacer.poll(now))
        if waiting:
            assert pacer.mark_reached(waiting[-1])
            waiting.clear()
        if pacer.idle:
            break
        now += 0.1
    for one, size in written.items():
        assert heard(one) == size - cleared.get(one, 0)
        assert pacer.heard(one, now).complete
