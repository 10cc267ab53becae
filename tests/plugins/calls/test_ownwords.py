"""Telling an echo of the bot's words from an answer that repeats them."""

from __future__ import annotations

import pytest

from voicecall_calls.conversation.ownwords import OwnWords

pytestmark = pytest.mark.unit

QUESTION = ("Which room would you like?", "The red one, the green one, or the blue one?")


def own(*said: tuple[str, ...], at: float = 10.0) -> OwnWords:
    """The bot's voice has begun at ``at`` to say the last of ``said``."""
    words = OwnWords(lambda: said)
    words.sounds(at)
    return words


def known(*said: tuple[str, ...]) -> OwnWords:
    words = own(*said)
    assert [words.came_back(), words.came_back(), words.came_back()] == [False, True, False]
    return words


def repeated(words: OwnWords, at: float, text: str, *, over_bot: bool = True) -> bool:
    words.began(at, over_bot=over_bot, stops_it=True)
    return words.repeated(text)


@pytest.mark.parametrize(
    "text",
    ["which", "Which room?", "which room would you", "which rooms would you like the red"],
)
def test_what_begins_with_the_bot_and_says_the_same_is_its_echo(text: str) -> None:
    assert repeated(own(QUESTION), 10.4, text)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (13.0, "the blue one"),
        (13.0, "Which room would you like?"),
        (9.8, "which room"),
        (10.4, "hello"),
        (10.4, "room"),
        (10.4, "blue"),
        (10.4, "the blue one"),
        (10.4, "room service please"),
        (10.4, ""),
        (10.4, "?"),
    ],
)
def test_what_comes_at_another_time_or_says_something_else_is_not(at: float, text: str) -> None:
    assert not repeated(own(QUESTION), at, text)


def test_an_answer_over_the_next_words_of_the_bot_may_repeat_those_before() -> None:
    assert not repeated(own(QUESTION, ("Are you still there?",)), 10.4, "the blue one")


def test_an_answer_behind_the_bot_may_repeat_it() -> None:
    assert not repeated(own(("Yes?",)), 10.7, "Yes.", over_bot=False)


@pytest.mark.parametrize("question", ["Sure?", "Ready now?", "\u306f\u3044\uff1f"])
def test_an_answer_to_a_word_comes_as_early_as_its_echo(question: str) -> None:
    assert not repeated(own((question,)), 10.8, question)


def test_over_a_bot_that_goes_on_an_echo_is_more_than_a_word() -> None:
    words = own(("Hello! How can I help you today?",))
    words.began(10.4, over_bot=True, stops_it=False)
    assert not words.repeated("Hello?")
    assert words.repeated("hello how can I help")


def test_behind_a_pause_the_echo_goes_on_where_it_was() -> None:
    words = own(QUESTION)
    assert repeated(words, 10.4, "which room")
    words.came_back()
    words.sounds(15.0)
    assert not repeated(words, 16.1, "would you")
    assert not repeated(words, 15.3, "the blue one")
    assert repeated(words, 15.3, "would you")
    # The pause has cut a word.
    assert repeated(words, 15.3, "room would")


@pytest.mark.parametrize("answer", ["coffee", "Anna Schmidt", "Anna Schmidt, tea or coffee"])
def test_an_answer_behind_a_pause_may_repeat_a_bot_that_has_no_echo(answer: str) -> None:
    words = own(("Anna Schmidt, tea or coffee?",))
    # The caller has said "uh", and the bot has waited for more.
    words.sounds(12.0)
    assert not repeated(words, 12.6, answer)


def test_on_a_line_that_is_known_words_are_enough() -> None:
    words = known(QUESTION)
    assert repeated(words, 13.0, "the green one or the")
    # Two may be an answer.
    assert not repeated(words, 13.0, "green one")
    assert not repeated(words, 13.0, "I take the green one please")
    # These stand far apart in what the bot says.
    assert not repeated(words, 13.0, "which like blue one")


def test_what_came_back_does_not_come_back_again() -> None:
    words = known(("Are you ready?",), QUESTION)
    assert repeated(words, 13.0, "the green one or the blue")
    words.came_back()
    assert not repeated(words, 14.0, "the green one")
    assert not repeated(words, 14.0, "are you ready")
    assert not repeated(words, 14.0, "the blue one")
    words = known(("Ready?",))
    assert repeated(words, 10.3, "ready")
    words.came_back()
    assert not repeated(words, 10.9, "ready", over_bot=False)


@pytest.mark.parametrize("answer", ["blue", "the blue one", "the green one please"])
def test_words_behind_the_last_one_of_the_bot_are_an_answer(answer: str) -> None:
    everything = "which room would you like the red one the green one or the blue one"
    assert repeated(known(QUESTION), 10.4, everything)
    assert not repeated(known(QUESTION), 10.4, f"{everything} {answer}")
    assert not repeated(own(QUESTION), 10.4, f"{everything} {answer}")


def test_a_last_word_that_is_misunderstood_is_no_answer() -> None:
    assert repeated(known(QUESTION), 13.0, "the green one or the blue wand")


def test_a_number_that_is_read_back_is_an_answer() -> None:
    words = known(("Your number is four seven one one?",))
    assert not repeated(words, 13.0, "four seven one one", over_bot=False)
    words = known(("Your number is 4711?",))
    assert not repeated(words, 13.0, "four seven one one")
    assert not repeated(words, 10.4, "4711")


def test_a_short_form_is_one_word() -> None:
    assert not repeated(known(("I think that\u2019s it.",)), 13.0, "that's it")
    assert repeated(own(("I don\u2019t know that yet.",)), 10.4, "i don't know")


def test_on_a_line_that_is_known_an_echo_may_begin_behind_a_short_word() -> None:
    assert repeated(known(("Yes.",)), 10.6, "Yes", over_bot=False)
    assert not repeated(known(("Yes.",)), 12.0, "Yes", over_bot=False)


def test_on_a_line_that_is_known_an_echo_may_begin_with_what_came_before() -> None:
    assert repeated(known(QUESTION, ("Are you still there?",)), 12.0, "the blue one are you still")


def test_a_line_whose_echo_is_gone_is_one_like_any_other() -> None:
    said = [["Which room would you like?"]]
    words = OwnWords(lambda: said)

    def speaks(text: str, echo: str = "") -> bool:
        """Whether the line is known to echo after ``text``."""
        said.append([text])
        words.sounds(10.0)
        if echo:
            assert repeated(words, 10.4, echo)
            words.came_back()
        return words.known

    assert not speaks("The red one, the green one?", "the red one")
    assert speaks("Or the blue one, sir?", "or the blue one")
    assert speaks("Are you still there?")
    assert speaks("Hello?")
    assert speaks("I can wait for you.", "i can wait")
    assert speaks("It is no trouble.")
    assert speaks("Take your time, please.")
    assert speaks("The blue one is the best.")
    assert not speaks("It is by the sea.")
    assert not repeated(words, 13.0, "it is by the sea")


def test_sentences_that_follow_count_as_well() -> None:
    sentences = ["Which room would you like?"]
    words = OwnWords(lambda: [sentences])
    words.sounds(10.0)
    words.began(10.4, over_bot=True, stops_it=True)
    sentences.append("The red one?")
    assert words.repeated("you like the red one")


def test_languages_without_spaces_are_compared_by_their_characters() -> None:
    words = own(("\u304a\u5f85\u3061\u304f\u3060\u3055\u3044\u3002",))
    assert repeated(words, 10.4, "\u304a\u5f85\u3061")
    assert not repeated(words, 10.4, "\u306f\u3044")
    # Three characters are less than three words.
    words = known(("\u8981\u5496\u5561\uff0c\u84dd\u8272\u7684\u676f\u5b50\u5417\uff1f",))
    assert not repeated(words, 13.0, "\u84dd\u8272\u7684")
    assert repeated(words, 13.0, "\u84dd\u8272\u7684\u676f\u5b50\u5417")


def test_a_bot_that_has_said_nothing_has_no_echo() -> None:
    assert not repeated(OwnWords(), 0.5, "hello there you")
