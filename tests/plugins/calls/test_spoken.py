"""Which parts of a model's whole answer are spoken, and how text is cleaned and cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall_calls.spoken import SentenceSplitter, SpokenStream, clean
from voicecall_calls.spoken.pieces import pieces

pytestmark = pytest.mark.unit


def spoken_of(output: str) -> str | None:
    """What is spoken of a whole answer; None for silence."""
    stream = SpokenStream()
    return " ".join(stream.feed(output) + stream.finish()) or None


@pytest.mark.parametrize(
    ("output", "spoken"),
    [
        ('{"spoken":"It is  noon."}', "It is noon."),
        ('```json\n{"spoken":"Done."}\n```', "Done."),
        ('Sure! {"spoken":"On it."} bye', "On it."),
        ('{"spoken":"Yes, today","note":', "Yes, today"),
        ('{"Spoken":"Hi"}', "Hi"),
        ('{"spoken":""}', None),
        (
            "The user wants a time. I should be brief.\n\nThree o'clock.",
            "Three o'clock.",
        ),
        ("Reasoning: caller is angry.", None),
        ('{"spoken":"A"}{"spoken":"B"}', "A B"),
        ('{"spoken":"line one\nline two"}', "line one line two"),
        ('{"spoken":"It is fi', "It is fi"),
        ('{"spoken":5}', None),
        ('{"text":"hi"}', "hi"),
        ("**Bold** see https://x.example", "Bold see"),
    ],
)
def test_the_examples_of_the_specification(output: str, spoken: str | None) -> None:
    assert spoken_of(output) == spoken


@pytest.mark.parametrize(
    ("output", "spoken"),
    [
        ('{"response":{"spoken":"Nested."}}', "Nested."),
        ('[{"spoken":"One."},{"spoken":"Two."}]', "One. Two."),
        ('{"spoken":["One.","Two."]}', "One. Two."),
        ('{"spoken":"caf\\u00e9 \\ud83d\\ude00 \\u201cyes\\u201d"}', "café “yes”"),
        ('{"spoken":"lone \\ud83d half"}', "lone half"),
        ('{"spoken":"other \\ude00 half, no \\uwxyz sign"}', "other half, no sign"),
        ('{"spoken":"a \\"quoted\\" word\\nand more"}', 'a "quoted" word and more'),
        ('{spoken: "Unquoted key."}', "Unquoted key."),
        ("{'spoken': 'single quotes'}", None),
        ('{{"spoken":"Twice."}}', "Twice."),
        ('{"spoken":"First.","spoken":"Again."}', "First."),
        ('{"name":"tool","text":"hi"}', None),
        ('{"text":"hi', None),
        ('{"other":"hi"}', None),
        ('{"spoken":"{\\"spoken\\":\\"Inner\\"}"}', '"Inner"'),
        ("```python\nprint(1)\n```\nThat is it.", "That is it."),
        ("<think>The caller is rude.</think>Of course.", "Of course."),
        ("The caller is rude, be kind.</think>Of course.", "Of course."),
        ("<think>never closed", None),
        ("Five < six, and a <b>tag</b>.", "Five < six, and a tag."),
        ("Analysis: long.\n\nReasoning: longer.\n\nYes.", "Yes."),
        ("I will naturally continue the chat.\n\nSo, tell me.", "So, tell me."),
        ("Let us keep the conversation flowing! What else?",) * 2,
        ("Keeping the conversation flowing\n\nSo, tell me.", "So, tell me."),
        ("Keep the conversation flowing",) * 2,
        ("Sure\n\nSo, tell me.", "Sure So, tell me."),
        ("The user guide is on our site.", "The user guide is on our site."),
        ("Use {name} here.", "Use name here."),
        ("First I look that up </think>Yes.", "Yes."),
        ("This is what I am going to say to that " * 3 + '{"spoken":"Yes."}', "Yes."),
        ('{"say":{"spoken":"Yes."},"text":"No."}', "Yes."),
        ("```\n<think>\n```\nYes.", "Yes."),
        ("[[tts:voice=nova speed=1.1]] Good morning.", "Good morning."),
        ("[[reply_to_current]] It is [[tts:text]]noon[[/tts:text]].", "It is noon."),
        ("[[tts]]", None),
        ("", None),
        ("```", None),
        ("{", None),
        ("...", None),
    ],
)
def test_what_models_also_write(output: str, spoken: str | None) -> None:
    assert spoken_of(output) == spoken


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Let me see... It is ten past nine.", "Let me see..."),
        ("Let me see… It is ten past nine.", "Let me see…"),
        ("There are about… 5 of them left.", "There are about…"),
        ("I thought of… (you know) something.", "I thought of… (you know) something."),
        ("I thought of... something else.", "I thought of... something else."),
        ("Let us take plan b. It works for us all.", "Let us take plan b."),
        ("I met J. Smith there yesterday.", "I met J. Smith there yesterday."),
        ("You need these things:\n- some milk\n- eggs", "You need these things:"),
    ],
)
def test_where_a_sentence_ends(text: str, first: str) -> None:
    stream = SpokenStream()
    assert (stream.feed(text) + stream.finish())[0] == first


def test_what_is_told_behind_a_whole_text_is_cut_as_well() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("One two three four five six seven") == []
    assert splitter.flush() == ["One two three four five six seven"]
    assert splitter.feed("Yes. ") == []
    assert splitter.feed("That is the whole of it. And") == ["Yes. That is the whole of it."]


@pytest.mark.parametrize(
    ("text", "longest", "parts"),
    [
        ("abc", 3, ["abc"]),
        ("One. Two.", 4, ["One.", "Two."]),
        ("Yes! No, not at all.", 8, ["Yes!", "No, not", "at all."]),
        ("abc def", 3, ["abc", "def"]),
        ("abcdef", 3, ["abc", "def"]),
        (" abcd", 3, [" ab", "cd"]),
    ],
)
def test_where_a_long_text_is_parted(text: str, longest: int, parts: list[str]) -> None:
    assert list(pieces(text, longest)) == parts


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("# Title\nText", "Title Text"),
        ("- milk\n- eggs\n* bread", "milk, eggs, bread"),
        ("Options:\n- one\n- two", "Options: one, two"),
        ("[the docs](https://x.example/a_b) help", "the docs help"),
        ("![logo](x.png) hi", "logo hi"),
        ("Go to https://x.example/a?b=c.", "Go to."),
        ("www.x.example is down", "is down"),
        ("so __bold__ and ~~gone~~ and `code`", "so bold and gone and code"),
        ("snake_case", "snake case"),
        ("It is 20°C 😀👍🏽 today ❤️.", "It is 20°C today."),
        ("family 👨‍👩‍👧 here", "family here"),
        ("bell\x07 and\x00 null\u200b", "bell and null"),
        ("fact [1] here", "fact here"),
        ("---\nText\n***", "Text"),
        ("Milk\n\n1. one\n  2. two", "Milk, 1. one, 2. two"),
        ("| a | b |\n|---|:--|\n| 1 | 2 |", "a b 1 2"),
        ("> quoted", "quoted"),
        ("C# and 3 < 4", "C# and 3 < 4"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
        ("?!", ""),
        ("$5.00, 100% (sure)", "$5.00, 100% (sure)"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@settings(max_examples=200)
@given(st.text(alphabet=st.sampled_from("ab \n*_`{}[]()#<>!.\"'\\~|-https://www.x😀"), max_size=60))
def test_clean_never_leaves_markup(text: str) -> None:
    result = clean(text)
    assert not set(result) & set("*`{}|\\\n")
    assert result == result.strip()


@settings(max_examples=300)
@given(st.text(max_size=200))
def test_no_text_makes_it_raise(text: str) -> None:
    for output in (text, '{"spoken":"' + text, "<think>" + text, "```" + text):
        spoken = spoken_of(output)
        assert spoken is None or (spoken and "{" not in spoken and "}" not in spoken)
