"""Sentences cut from an answer while its text arrives."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall_calls.spoken import SentenceSplitter, SpokenStream

pytestmark = pytest.mark.unit

FRAGMENTS = st.lists(
    st.sampled_from(
        [
            '{"spoken":"', '"}', '{"', "}", "{", '"', "\\", "\\u00e9", "\\ud83d", ':"', "spoken",
            "```json\n", "```", "<think>", "</think>", "<", ">", "Yes. ", "Dr. ", "It is 3.14, ",
            "the user ", "I should ", "Reasoning: ", "\n\n", "\n- ", "naturally continue ", ". ",
            "... ", "What? ", "*", "word ", "Long, long, long words ", "https://x.example ", "。",
            ',"end":true', "[", "]", ",",
        ]
    ),
    max_size=25,
).map("".join)  # fmt: skip
TEXTS = FRAGMENTS | st.text(max_size=120)


def run(text: str, cuts: list[int]) -> tuple[list[str], SpokenStream]:
    stream = SpokenStream()
    said = []
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(places):
        said += stream.feed(text[begin:end])
    return said + stream.finish(), stream


@settings(max_examples=400)
@given(TEXTS, st.lists(st.integers(0, 10_000), max_size=12))
def test_the_pieces_do_not_matter(text: str, cuts: list[int]) -> None:
    whole, one = run(text, [])
    pieces, other = run(text, cuts)
    letters, _ = run(text, list(range(len(text))))
    assert pieces == whole == letters
    assert one.end_requested == other.end_requested
    assert "{" not in " ".join(whole)


def test_what_is_written_before_a_pause_is_not_held_back() -> None:
    stream = SpokenStream()
    assert stream.feed("I will look") == []
    assert stream.pause() == ["I will look"]
    assert stream.feed(" We are free at nine.") == []
    assert stream.pause() == ["We are free at nine."]
    assert stream.finish() == []


@pytest.mark.parametrize(
    ("begun", "rest", "spoken"),
    [
        ('{"spoken": "One mo', 'ment."}', "One moment."),
        ("<think>Look it", " up.</think>Here you are.", "Here you are."),
        ("The user is here. I should look.", "\n\nHere you are.", "Here you are."),
    ],
)
def test_a_pause_brings_out_nothing_that_is_not_to_be_spoken(
    begun: str, rest: str, spoken: str
) -> None:
    stream = SpokenStream()
    assert [*stream.feed(begun), *stream.pause()] == []
    assert [*stream.feed(rest), *stream.finish()] == [spoken]


RUNS = st.builds(
    lambda begin, signs, times, end: begin + signs * times + end,
    st.sampled_from(["", "Well", "Yes. No"]),
    st.sampled_from([".", "!?", "\n", " ", "\n\n", ". ", '"', "*", "…", "1. "]),
    st.integers(150, 450),
    st.sampled_from(["", "Then", " then", "\nThen. And"]),
)


@settings(max_examples=50)
@given(RUNS, st.lists(st.integers(0, 1000), max_size=12))
def test_nor_do_they_where_a_model_repeats_itself(text: str, cuts: list[int]) -> None:
    whole, _ = run(text, [])
    assert run(text, cuts)[0] == run(text, list(range(len(text))))[0] == whole


def test_marks_without_end_are_not_waited_for() -> None:
    splitter = SentenceSplitter()
    given = splitter.feed("Well") + [text for _ in range(1000) for text in splitter.feed(".")]
    assert given[0].startswith("Well..")


def test_a_sentence_is_given_out_as_soon_as_the_next_begins() -> None:
    stream = SpokenStream()
    assert stream.feed('{"spo') == []
    assert stream.feed('ken": "Yes.') == []
    assert stream.feed(" ") == []
    assert stream.feed("It is") == ["Yes."]
    assert stream.feed(" noon in Lisbon now, I think. A") == ["It is noon in Lisbon now, I think."]
    assert stream.feed('nd"') == ["And"]
    assert stream.finish() == []


def test_plain_text_streams_from_its_second_sentence_on() -> None:
    stream = SpokenStream()
    assert stream.feed("Of course.") == []
    assert stream.feed(" I can help you with that.") == ["Of course."]
    assert stream.feed(" Where do you live? ") == ["I can help you with that."]
    assert stream.finish() == ["Where do you live?"]


def test_a_long_plain_beginning_is_not_held_for_ever() -> None:
    stream = SpokenStream()
    text = "our opening hours are, " * 11
    assert stream.feed(text) != []


def test_planning_is_held_and_dropped() -> None:
    stream = SpokenStream()
    assert stream.feed("The user wants to know the time. I should be brief. Very brief.") == []
    assert stream.feed("\n\nThree o'clock. Any") == ["Three o'clock."]
    assert stream.finish() == ["Any"]


def test_what_only_looked_like_planning_is_spoken() -> None:
    stream = SpokenStream()
    assert stream.feed("The user manual is online. ") == []
    assert stream.finish() == ["The user manual is online."]


def test_chatter_before_an_object_is_dropped() -> None:
    stream = SpokenStream()
    assert stream.feed("Here is my answer:\n\n```json\n") == []
    assert stream.feed('{"spoken": "Hello there. How') == ["Hello there."]
    assert stream.feed(' are you?"}\n```\nBye. Bye.') == ["How are you?"]
    assert stream.finish() == []


@pytest.mark.parametrize(
    ("output", "ends"),
    [
        ('{"spoken": "Bye.", "end": true}', True),
        ('{"end": true, "spoken": "Bye."}', True),
        ('{"spoken": "", "end": true}', True),
        ('{"spoken": "Bye.", "end": false}', False),
        ('{"spoken": "Bye.", "end": "true"}', False),
        ('{"spoken": "Bye.", "end": 1}', False),
        ('{"spoken": "Bye.", "end": true', False),
        ('{"spoken": "Bye.", "end": true,,}', False),
        ('{"spoken": "say \\"end\\": true"}', False),
        ('{"spoken": "Bye.", "x": {"end": true}}', False),
        ('{"end": true}', False),
        ("end: true", False),
    ],
)
def test_only_a_complete_object_ends_the_call(output: str, ends: bool) -> None:
    stream = SpokenStream()
    stream.feed(output)
    stream.finish()
    assert stream.end_requested is ends


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith sees you now. Please wait.", ["Dr. Smith sees you now.", "Please wait."]),
        ("It is 3.50 euros, e.g. now. Fine then.", ["It is 3.50 euros, e.g. now.", "Fine then."]),
        ("We open at 9 a.m. on Mondays.", ["We open at 9 a.m. on Mondays."]),
        ("We close at 5 p.m. Come early.", ["We close at 5 p.m.", "Come early."]),
        ("Well... let me see. Wait... Here it is.", ["Well... let me see.", "Wait... Here it is."]),
        ("Really?! Yes. No. Maybe so, who knows.", ["Really?!", "Yes. No. Maybe so, who knows."]),
        ('He said "Stop." Then he left us.', ['He said "Stop."', "Then he left us."]),
        ("J. Smith called you today.", ["J. Smith called you today."]),
        ("1. Open the door slowly.", ["1. Open the door slowly."]),
        ("It was me and I. Next one comes.", ["It was me and I.", "Next one comes."]),
        ("First line here\n\nSecond part", ["First line here", "Second part"]),
        (
            "The list is this:\n1. Milk, lots of it\n2. Eggs\n\nThat is all.",
            ["The list is this:", "1. Milk, lots of it", "2. Eggs", "That is all."],
        ),
        ("A wrapped\nline of text", ["A wrapped\nline of text"]),
        ("今日は晴れです。明日は雨です。", ["今日は晴れです。", "明日は雨です。"]),
        ("?! ...", []),
    ],
)  # fmt: skip
def test_sentences(text: str, sentences: list[str]) -> None:
    splitter = SentenceSplitter()
    assert splitter.feed(text) + splitter.flush() == sentences


def test_long_sentences_are_cut_at_commas() -> None:
    splitter = SentenceSplitter(max_chars=60)
    text = "this goes on and on, and then it goes on, and it will never ever stop at all"
    first, *rest = splitter.feed(text) + splitter.flush()
    assert first == "this goes on and on, and then it goes on,"
    assert " ".join([first, *rest]) == text
    unbroken = splitter.feed("x" * 150) + splitter.flush()
    assert [len(piece) for piece in unbroken] == [60, 60, 30]
