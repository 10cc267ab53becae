"""Parts of the realtime conversation: the gate, the words, configuration and selection."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from voicecall.audio import MULAW_8K, PCM16_8K, AudioFormat, Converter
from voicecall.model import MediaPath, Speaker, TranscriptEntry
from voicecall.registry import Registry
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.mouth import heard_part
from voicecall_calls.conversation.realtime.gate import SpeechGate
from voicecall_calls.conversation.realtime.words import consult_question, consult_request, joined
from voicecall_calls.unused import unused_keys
from voicecall_calls.wiring import Wiring, resolve

pytestmark = pytest.mark.unit


def tone(level: float, milliseconds: int, audio_format: AudioFormat) -> bytes:
    """A square wave: its root mean square is ``level``, of full scale."""
    samples = np.tile([level, -level], milliseconds * 4) * 32768
    return Converter(PCM16_8K, audio_format).process(samples.astype(np.int16).tobytes())


@pytest.mark.parametrize("audio_format", [MULAW_8K, AudioFormat("alaw", 8000), PCM16_8K], ids=str)
def test_the_gate_opens_at_its_level(audio_format: AudioFormat) -> None:
    below, above = tone(0.032, 20, audio_format), tone(0.038, 20, audio_format)
    gate = SpeechGate(audio_format)
    assert not any(gate.hear(below) for _ in range(50))
    assert [gate.hear(above) for _ in range(4)] == [False, True, False, False]
    assert gate.lasted_ms == pytest.approx(80)


def test_the_gate_is_armed_again_by_quiet() -> None:
    loud, quiet = tone(0.5, 20, MULAW_8K), tone(0.0, 20, MULAW_8K)
    gate = SpeechGate(MULAW_8K)
    heard = [gate.hear(frame) for frame in [loud] * 5 + [quiet] * 11 + [loud] * 5]
    assert heard.count(True) == 1
    assert gate.lasted_ms > 300
    heard = [gate.hear(frame) for frame in [quiet] * 12 + [loud] * 2]
    assert heard[-2:] == [False, True]
    assert not gate.hear(b"")


def test_the_gate_passes_over_half_a_sample() -> None:
    gate = SpeechGate(PCM16_8K)
    assert not gate.hear(b"\x7f")
    assert gate.hear(tone(0.5, 60, PCM16_8K)[:-1])


def test_a_click_is_no_speech() -> None:
    loud, quiet = tone(0.5, 20, MULAW_8K), tone(0.0, 20, MULAW_8K)
    gate = SpeechGate(MULAW_8K)
    assert not any(gate.hear(frame) for frame in [loud, quiet] * 20)
    assert gate.lasted_ms == 0


def test_pieces_and_cumulative_text() -> None:
    assert joined(joined("", "One "), "two") == "One two"
    assert joined(joined("", "One "), "One two") == "One two"


def test_what_a_model_asks_is_found_under_several_names() -> None:
    assert consult_request({"question": " ", "query": " Why? "}) == ("Why?", "")
    assert consult_request({"task": "Book it.", "context": " ", "responseStyle": " "}) == (
        "Book it.",
        "",
    )
    assert consult_request({"prompt": "Why?", "context": "a dog ", "responseStyle": "short"}) == (
        "Why?",
        "a dog\nStyle of the answer: short",
    )


@pytest.mark.parametrize(
    ("question", "ago_ms", "replaced"),
    [
        ("last train", 2000, True),
        ("last train", 2001, False),
        ("the last train to Bern of this evening, please", 0, False),
        ("when the last train leaves for Bern", 0, False),
    ],
)
def test_only_a_short_question_gives_way_to_what_was_just_said(
    question: str, ago_ms: int, replaced: bool
) -> None:
    said = "When does the last train to Bern leave?"
    entries = [
        TranscriptEntry(at=1000, speaker=Speaker.USER, text=said, complete=True),
        TranscriptEntry(at=1000, speaker=Speaker.BOT, text="One moment.", complete=True),
    ]
    asked, context = consult_question(question, "a dog", entries, 1000 + ago_ms)
    assert asked == (said if replaced else question)
    assert context == (f"a dog\nAsked as: {question}" if replaced else "a dog")


def test_the_part_that_was_heard() -> None:
    assert heard_part("one two three four", 500, 1000) == "one two"
    # The nearest word, not the last whole one.
    assert heard_part("one two three four", 400, 1000) == "one two"
    assert heard_part("one two three four", 5000, 1000) == "one two three four"
    assert heard_part("one two", 0, 1000) == ""
    assert heard_part("one two", 10, 0) == ""


# --- configuration ----------------------------------------------------------------------------


def wired(provider: str | None, **config: object) -> Wiring:
    realtime = {"enabled": True, **({"provider": provider} if provider else {})}
    settings = VoiceCallConfig.model_validate({"realtime": realtime, **config})
    agents = {"defaults": {"backend": "scripted"}}
    return resolve(settings, registry=Registry(), environ={}, agents=agents, tts={})


def test_a_named_provider_is_selected() -> None:
    wiring = wired("echo", inboundPolicy="open")
    assert wiring.media is MediaPath.REALTIME
    assert wiring.problems == []
    assert wiring.notes == []


def test_a_provider_that_is_not_there_leaves_realtime_off() -> None:
    wiring = wired("nobodys")
    assert wiring.media is MediaPath.NATIVE
    assert any("realtime stays off" in note for note in wiring.notes)


def test_outbound_only_is_allowed_with_a_note() -> None:
    wiring = wired("echo")
    assert wiring.media is MediaPath.REALTIME
    assert any("outbound calls only" in note for note in wiring.notes)


def test_tools_of_ones_own_are_read() -> None:
    parameters = {"type": "object", "properties": {"day": {"type": "string"}}}
    tool = {"type": "function", "name": "book", "description": "", "parameters": parameters}
    config = VoiceCallConfig.model_validate({"realtime": {"tools": [tool]}})
    assert config.realtime.tools[0].name == "book"
    assert unused_keys(config) == []
    with pytest.raises(ValidationError, match="handler"):
        VoiceCallConfig.model_validate({"realtime": {"tools": [{**tool, "handler": "x"}]}})


def test_both_modes_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="cannot be true if"):
        VoiceCallConfig.model_validate(
            {"realtime": {"enabled": True}, "streaming": {"enabled": True}}
        )
