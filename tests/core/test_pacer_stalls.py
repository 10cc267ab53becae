"""The pacer on a late event loop: the carrier's buffer never runs dry."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall import MULAW_8K
from voicecall.pacer import OutAudio, Pacer

pytestmark = pytest.mark.unit

STALL_S = 0.05
LEAD_MS = 200
CHUNK_MS = 60
WHOLE_MS = 4000.0
ALMOST = 1e-6


@settings(max_examples=200)
@given(st.lists(st.floats(0, STALL_S), min_size=1, max_size=40))
def test_stalls_of_50_ms_neither_starve_nor_flood_the_carrier(stalls: list[float]) -> None:
    pacer = Pacer(MULAW_8K, lead_ms=LEAD_MS, chunk_ms=CHUNK_MS)
    pacer.write("a", bytes(MULAW_8K.size(WHOLE_MS)))
    begin = now = 10.0
    sent = 0.0
    polls = 0
    while sent < WHOLE_MS:
        held = sent - (now - begin) * 1000
        # Nothing plays before the first audio is sent, and so nothing can stop.
        assert polls == 0 or held >= LEAD_MS * 3 / 4 - STALL_S * 1000 - ALMOST
        for out in pacer.poll(now):
            if isinstance(out, OutAudio):
                sent += MULAW_8K.duration_ms(len(out.payload))
        held = sent - (now - begin) * 1000
        assert held <= LEAD_MS + CHUNK_MS + ALMOST
        wake = pacer.wake_at()
        assert sent == WHOLE_MS or wake is not None
        if wake is not None:
            # The loop is late each time, by a different stall.
            now = max(now, wake) + stalls[polls % len(stalls)]
        polls += 1
    assert sent == WHOLE_MS
