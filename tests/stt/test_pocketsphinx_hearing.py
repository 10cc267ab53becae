"""What PocketSphinx understands and refuses, tested with the demo's own sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from voicecall.audio import MULAW_8K, PCM16_16K, Converter
from voicecall.transcription import Final, Partial, SpeechEnded, SpeechStarted, TranscriptionEvent
from voicecall_stt_pocketsphinx.config import PocketsphinxConfig
from voicecall_stt_pocketsphinx.decoding import DecoderPool
from voicecall_stt_pocketsphinx.grammar import load_grammar
from voicecall_stt_pocketsphinx.listening import Listener
from voicecall_testing.contracts.audio import frames, silence

pytestmark = pytest.mark.unit

Speak = Callable[..., bytes]
END_SILENCE_MS = 500
OUTSIDE = [
    "the quick brown fox jumps over the lazy dog",
    "i want to buy a green elephant",
    "my hovercraft is full of eels",
    "hello there my friend",
    "could you sing me a song",
    "good morning everybody",
    "tomorrow never dies",
]


@pytest.fixture(scope="module")
def pool(clinic: PocketsphinxConfig) -> DecoderPool:
    pool = DecoderPool(load_grammar(clinic), clinic.cmninit, clinic.reject_below, 1)
    pool.fill()
    return pool


@pytest.fixture
def listener(pool: DecoderPool) -> Iterator[Listener]:
    listener = Listener(MULAW_8K, pool, END_SILENCE_MS)
    yield listener
    listener.close()


def play(listener: Listener, audio: bytes) -> list[TranscriptionEvent]:
    events: list[TranscriptionEvent] = []
    for frame in frames(audio, MULAW_8K):
        events += listener.process(frame)
    return events


def say(listener: Listener, audio: bytes) -> list[str]:
    padded = silence(300, MULAW_8K) + audio + silence(END_SILENCE_MS + 200, MULAW_8K)
    return [event.text for event in play(listener, padded) if isinstance(event, Final)]


def test_the_demo_has_its_sentences(sentences: list[str]) -> None:
    assert len(sentences) >= 8
    assert "i would like to make an appointment" in sentences


def test_all_sentences_are_understood(
    listener: Listener, sentences: list[str], speak: Speak
) -> None:
    heard = {sentence: say(listener, speak(sentence)) for sentence in sentences}
    assert heard == {sentence: [sentence] for sentence in sentences}


def test_sentences_outside_the_grammar_are_empty(listener: Listener, speak: Speak) -> None:
    heard = {sentence: say(listener, speak(sentence)) for sentence in OUTSIDE[:3]}
    assert heard == {sentence: [""] for sentence in OUTSIDE[:3]}


def test_half_a_sentence_is_not_understood(listener: Listener, speak: Speak) -> None:
    assert say(listener, speak("i would like to make")) == [""]


def test_an_utterance_that_was_cut_leaves_nothing_behind(pool: DecoderPool, speak: Speak) -> None:
    cut = Listener(MULAW_8K, pool, END_SILENCE_MS)
    assert any(
        isinstance(event, SpeechStarted)
        for event in play(cut, speak("the quick brown fox jumps over the lazy dog")[:8000])
    )
    cut.close()
    after = Listener(MULAW_8K, pool, END_SILENCE_MS)
    assert say(after, speak("no thank you")) == ["no thank you"]
    after.close()


def test_the_verdict_does_not_depend_on_what_was_heard_before(
    pool: DecoderPool, speak: Speak
) -> None:
    decoder = pool.lend()
    audio = silence(300, MULAW_8K) + speak("yes please") + silence(300, MULAW_8K)
    pcm = Converter(MULAW_8K, PCM16_16K).process(audio)
    first = decoder.judge(pcm)
    decoder.judge(pcm[: len(pcm) // 4 * 2])
    decoder.start()
    decoder.feed(pcm[:6400])
    again = decoder.judge(pcm)
    assert first.text == again.text == "yes please"
    assert first.score == again.score
    pool.give_back(decoder)


def test_the_start_of_speech_is_noticed_soon(listener: Listener, speak: Speak) -> None:
    play(listener, silence(1000, MULAW_8K))
    sent = 0
    for frame in frames(speak("can i speak to a doctor"), MULAW_8K):
        sent += 20
        events = listener.process(frame)
        if events:
            break
    (event,) = events
    assert isinstance(event, SpeechStarted)
    assert sent <= 200
    assert 980 <= event.at_ms <= 1100


def test_the_end_comes_after_the_silence(listener: Listener, speak: Speak) -> None:
    audio = speak("no thank you")
    spoken = MULAW_8K.duration_ms(len(audio))
    events = play(listener, audio + silence(2000, MULAW_8K))
    final = next(event for event in events if isinstance(event, Final))
    ended = events[-1]
    assert isinstance(ended, SpeechEnded)
    assert spoken + END_SILENCE_MS - 150 <= final.at_ms <= spoken + END_SILENCE_MS + 150
    assert ended.at_ms == final.at_ms


def test_a_pause_inside_a_sentence_does_not_end_it(listener: Listener, speak: Speak) -> None:
    one, two = speak("the quick brown fox"), speak("jumps over the lazy dog")
    audio = one + silence(200, MULAW_8K) + two + silence(700, MULAW_8K)
    events = play(listener, audio)
    assert [type(event) for event in events if not isinstance(event, Partial)] == [
        SpeechStarted,
        Final,
        SpeechEnded,
    ]


def test_endless_sound_is_ended(listener: Listener, speak: Speak) -> None:
    babble = speak("the quick brown fox jumps over the lazy dog and then some more")
    long = (babble * 8)[: MULAW_8K.size(16_000)]
    assert any(isinstance(event, Final) for event in play(listener, long))


def test_the_pool_makes_more_when_all_are_lent(clinic: PocketsphinxConfig) -> None:
    pool = DecoderPool(load_grammar(clinic), clinic.cmninit, clinic.reject_below, 1)
    one, two = pool.lend(), pool.lend()
    assert one is not two
    pool.give_back(one)
    pool.give_back(two)
    assert pool.lend() is one


@pytest.mark.soak
def test_every_sentence_twenty_times(
    listener: Listener, sentences: list[str], speak: Speak
) -> None:
    missed = [
        (sentence, heard)
        for _ in range(20)
        for sentence in sentences
        if (heard := say(listener, speak(sentence))) != [sentence]
    ]
    assert missed == []


@pytest.mark.soak
@pytest.mark.parametrize("voice", ["en-us+f5", "en-us"])
def test_other_voices_are_refused_rarely_and_never_mistaken(
    listener: Listener, sentences: list[str], speak: Speak, voice: str
) -> None:
    heard = [
        (sentence, say(listener, speak(sentence, voice=voice)))
        for _ in range(20)
        for sentence in sentences
    ]
    refused = [pair for pair in heard if pair[1] == [""]]
    mistaken = [pair for pair in heard if pair[1] not in ([pair[0]], [""])]
    print(f"{voice}: {len(refused)} of {len(heard)} refused, {len(mistaken)} mistaken")
    assert mistaken == []
    assert len(refused) <= len(heard) // 10


@pytest.mark.soak
def test_every_sentence_twenty_times_after_a_cut_one(
    pool: DecoderPool, sentences: list[str], speak: Speak
) -> None:
    missed = []
    for round_ in range(20):
        for sentence in sentences:
            cut = Listener(MULAW_8K, pool, END_SILENCE_MS)
            play(cut, speak(OUTSIDE[round_ % len(OUTSIDE)])[: 4000 + 200 * round_])
            cut.close()
            listener = Listener(MULAW_8K, pool, END_SILENCE_MS)
            heard = say(listener, speak(sentence))
            listener.close()
            if heard != [sentence]:
                missed.append((sentence, heard))
    assert missed == []


@pytest.mark.soak
def test_other_sentences_are_refused_twenty_times(pool: DecoderPool, speak: Speak) -> None:
    listener = Listener(MULAW_8K, pool, END_SILENCE_MS)
    accepted = [
        (sentence, heard)
        for _ in range(20)
        for sentence in OUTSIDE
        if (heard := say(listener, speak(sentence))) != [""]
    ]
    assert accepted == []
