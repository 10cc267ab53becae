"""Turn taking: what interrupts the bot, what is a turn, and what is neither."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall_calls.config import BargeInConfig
from voicecall_calls.conversation.turntaking import TurnTaking, Verdict

pytestmark = pytest.mark.unit


def taking(**config: object) -> TurnTaking:
    return TurnTaking(BargeInConfig.model_validate(config))


def speaking(**config: object) -> TurnTaking:
    turns = taking(**config)
    turns.bot_began(10.0)
    return turns


def test_speech_must_last_before_it_interrupts() -> None:
    turns = speaking(minSpeechMs=300)
    assert turns.speech_started(11.0) == pytest.approx(11.3)
    assert turns.lasted()
    assert not turns.lasted()  # once


def test_words_interrupt_at_once() -> None:
    turns = speaking()
    turns.speech_started(11.0)
    assert not turns.partial("  ")
    assert turns.partial("stop")
    assert not turns.partial("stop it")
    assert turns.final("stop it") is Verdict.TURN


def test_noise_that_is_over_does_not_interrupt() -> None:
    turns = speaking()
    turns.speech_started(11.0)
    assert not turns.speech_ended()
    assert not turns.lasted()


def test_a_noise_that_took_the_floor_is_told_of_at_its_end() -> None:
    turns = speaking()
    turns.speech_started(11.0)
    assert turns.lasted()
    turns.bot_stopped()
    assert turns.speech_ended()
    assert not turns.speech_ended()
    turns.bot_began(12.0)
    turns.speech_started(13.0)
    assert turns.lasted()
    turns.final("stop it")
    assert not turns.speech_ended()


@pytest.mark.parametrize(
    "text", ["mhm", "Mhm.", "uh huh", "Uh-huh!", "hmm...", "Ah", "mm-hm", "Mm-hmm."]
)
def test_an_acknowledgement_is_no_interruption_and_no_turn(text: str) -> None:
    turns = speaking()
    turns.speech_started(11.0)
    assert not turns.partial(text)
    assert turns.final(text) is Verdict.DROP


@pytest.mark.parametrize("text", ["yes", "no", "mhm yes", "okay"])
def test_an_answer_is_more_than_an_acknowledgement(text: str) -> None:
    turns = speaking()
    turns.speech_started(11.0)
    assert turns.partial(text)
    assert turns.final(text) is Verdict.TURN


def test_an_acknowledgement_into_silence_is_a_turn() -> None:
    turns = taking()
    assert turns.speech_started(11.0) is None
    assert turns.final("mhm") is Verdict.TURN


def test_a_protected_greeting_is_not_interrupted_and_the_words_are_kept() -> None:
    turns = taking()
    turns.bot_began(10.0, protection_ms=500)
    assert turns.speech_started(10.4) is None
    assert not turns.partial("hello there")
    assert not turns.lasted()
    assert turns.final("hello there") is Verdict.CONTEXT
    # After the protected part the greeting gives way.
    assert turns.speech_started(10.6) is not None
    assert turns.partial("hello")
    assert turns.final("hello") is Verdict.TURN


def test_words_that_go_on_behind_a_protected_greeting_are_a_turn() -> None:
    turns = taking()
    turns.bot_began(10.0, protection_ms=500)
    turns.speech_started(10.4)
    turns.bot_stopped()
    assert turns.final("hello, I need a taxi") is Verdict.TURN


def test_words_that_began_a_moment_before_the_bot_interrupt_it_however_late_they_are_told() -> None:
    turns = speaking(minSpeechMs=300)
    assert turns.speech_started(9.9) == pytest.approx(10.2)
    assert turns.partial("and tomorrow")
    assert turns.final("and tomorrow?") is Verdict.TURN


def test_words_that_began_before_a_protected_greeting_do_not_interrupt_it() -> None:
    turns = taking()
    turns.speech_started(9.9)
    turns.bot_began(10.0, protection_ms=500)
    assert not turns.partial("hello")
    assert turns.final("hello") is Verdict.CONTEXT


def test_noise_into_a_protected_greeting_is_dropped() -> None:
    turns = taking()
    turns.bot_began(10.0, protection_ms=500)
    turns.speech_started(10.1)
    assert turns.final("") is Verdict.DROP


def test_with_barge_in_off_words_over_the_bot_are_context() -> None:
    turns = speaking(enabled=False)
    assert turns.speech_started(11.0) is None
    assert not turns.partial("wait a moment")
    assert turns.final("wait a moment") is Verdict.CONTEXT


def test_words_that_end_after_the_bot_are_a_turn_even_with_barge_in_off() -> None:
    turns = speaking(enabled=False)
    turns.speech_started(11.0)
    turns.bot_stopped()
    assert turns.final("wait a moment") is Verdict.TURN


def test_words_that_began_before_the_bot_are_a_turn_even_with_barge_in_off() -> None:
    turns = taking(enabled=False)
    turns.speech_started(9.0)
    turns.bot_began(10.0)
    assert turns.final("wait a moment") is Verdict.TURN


def test_what_was_not_understood_is_said_so_only_into_silence() -> None:
    assert taking().final(" ") is Verdict.NOT_UNDERSTOOD
    turns = speaking()
    turns.speech_started(11.0)
    assert turns.final("") is Verdict.DROP


@pytest.mark.parametrize("text", ["", "mhm"])
def test_a_sound_does_not_replace_an_answer_that_is_owed(text: str) -> None:
    turns = taking()
    turns.speech_started(11.0)
    assert turns.final(text, owed=True) is Verdict.DROP
    # Nor does one that began before the answer.
    turns.speech_started(12.0)
    turns.bot_began(12.1)
    assert turns.final(text, owed=True) is Verdict.DROP
    turns.speech_started(13.0)
    assert turns.lasted()
    assert turns.final(text, owed=True) is not Verdict.DROP


def test_words_replace_an_answer_that_is_owed() -> None:
    turns = taking()
    turns.speech_started(11.0)
    assert turns.final("And tomorrow?", owed=True) is Verdict.TURN


def test_an_answer_waits_for_words_and_for_a_sound_that_does_not_last() -> None:
    turns = taking()
    assert not turns.caller_goes_on(11.0)
    turns.speech_started(11.0)
    assert turns.caller_goes_on(14.9)
    assert not turns.caller_goes_on(15.0)
    turns.partial("mhm")
    assert turns.caller_goes_on(15.0)
    turns.final("mhm")
    assert not turns.caller_goes_on(15.1)
    turns.speech_started(16.0)
    assert not turns.caller_goes_on(20.0)


def test_a_caller_speaks_until_the_end_but_not_for_ever() -> None:
    turns = taking()
    assert not turns.caller_speaks(11.0)
    turns.speech_started(11.0)
    assert turns.caller_speaks(70.9)
    assert not turns.caller_speaks(71.0)
    turns.final("Well.")
    assert not turns.caller_speaks(12.0)
    turns.speech_started(13.0)
    turns.speech_ended()
    assert not turns.caller_speaks(14.0)


# --- with a detector of voices ---------------------------------------------------------------


def gated(protection_ms: int = 0, **config: object) -> TurnTaking:
    turns = TurnTaking(BargeInConfig.model_validate(config), gated=True)
    turns.bot_began(10.0, protection_ms)
    return turns


def test_a_voice_pauses_the_bot_once_it_has_lasted() -> None:
    turns = gated(minSpeechMs=300)
    assert not turns.voice_pauses(11.0, 11.29)
    assert turns.voice_pauses(11.0, 11.3)
    turns.bot_stopped()
    assert not turns.voice_pauses(11.0, 11.3)


def test_a_voice_that_began_before_the_bot_or_in_protected_words_does_not_pause_it() -> None:
    assert not gated().voice_pauses(9.9, 12.0)
    assert not gated(500).voice_pauses(10.4, 12.0)
    assert gated(500).voice_pauses(10.6, 12.0)
    assert not gated(enabled=False).voice_pauses(11.0, 12.0)


def test_the_recogniser_does_not_ask_whether_a_sound_lasts_where_a_detector_does() -> None:
    assert gated().speech_started(11.0) is None


def test_a_voice_interrupts_without_words_when_it_lasts_and_the_recogniser_agrees() -> None:
    turns = gated()
    assert not turns.voice_lasted(11.0, 20.0)
    turns.speech_started(11.1)
    # Longer than any acknowledgement.
    assert not turns.voice_lasted(11.0, 12.2)
    assert turns.voice_lasted(11.0, 12.6)
    assert not turns.voice_lasted(11.0, 12.7)  # once
    turns.speech_started(13.0)
    turns.speech_ended()
    assert not turns.voice_lasted(13.0, 15.0)


def test_a_patient_operator_is_not_overruled() -> None:
    turns = gated(minSpeechMs=3000)
    turns.speech_started(11.0)
    assert not turns.voice_lasted(11.0, 13.9)
    assert turns.voice_lasted(11.0, 14.0)


_STEPS = st.lists(
    st.sampled_from(["bot", "greet", "quiet", "start", "lasted", "word", "mhm", "end", "final"]),
    max_size=30,
)


@settings(max_examples=150)
@given(_STEPS, st.booleans())
def test_one_interruption_an_utterance_and_none_into_silence(
    steps: list[str], enabled: bool
) -> None:
    turns = taking(enabled=enabled)
    now, interruptions = 0.0, 0
    for step in steps:
        now += 0.2
        speaks = turns.bot_speaking
        accepted = False
        match step:
            case "bot":
                turns.bot_began(now)
            case "greet":
                turns.bot_began(now, 500)
            case "quiet":
                turns.bot_stopped()
            case "start":
                turns.speech_started(now)
                interruptions = 0
            case "lasted":
                accepted = turns.lasted()
            case "word":
                accepted = turns.partial("word")
            case "mhm":
                assert not turns.partial("mhm")
            case "end":
                turns.speech_ended()
            case "final":
                assert (turns.final("") is Verdict.TURN) is False
        if accepted:
            interruptions += 1
            assert speaks
            assert enabled
            assert interruptions == 1


def test_an_echo_is_no_turn_and_where_its_sound_was_let_in_something_is_said() -> None:
    turns = speaking()
    turns.speech_started(11.0)
    assert turns.final("it was a dark night", own=True) is Verdict.DROP
    turns.speech_started(12.0)
    assert turns.lasted()
    assert turns.final("it was a dark night", own=True) is Verdict.NOT_UNDERSTOOD


def test_on_a_line_with_an_echo_only_words_interrupt() -> None:
    turns = speaking()
    turns.own.came_back()
    turns.own.came_back()
    assert turns.speech_started(11.0) is None
    assert not turns.voice_pauses(11.0, 13.0)
    assert turns.partial("stop it")
