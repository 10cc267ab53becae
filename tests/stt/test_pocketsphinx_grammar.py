"""PocketSphinx grammars: their sources, and the errors about wrong ones."""

from __future__ import annotations

import math
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecall import ProviderKind
from voicecall.configuring import validate
from voicecall.errors import ConfigError
from voicecall.registry import Registry
from voicecall_stt_pocketsphinx.config import MEASURED_CMN, PocketsphinxConfig
from voicecall_stt_pocketsphinx.decoding import Decoder
from voicecall_stt_pocketsphinx.grammar import load_grammar
from voicecall_stt_pocketsphinx.provider import PocketsphinxProvider

pytestmark = pytest.mark.unit

HEAD = "#JSGF V1.0;\ngrammar g;\n"


def test_phrases_become_a_grammar() -> None:
    grammar = load_grammar(PocketsphinxConfig(phrases=("Yes, please!", "it's me", "yes please")))
    assert "public <phrase> = yes please | it's me;" in grammar.jsgf
    assert ("please", "Yes, please!") in grammar.places


def test_words_of_a_grammar_are_told_from_its_signs() -> None:
    text = HEAD + "// a note\npublic <a> = /0.5/ (yes | no {tag}) [<b>]+;\n<b> = please* <NULL>;"
    grammar = load_grammar(PocketsphinxConfig(grammar=text))
    assert [word for word, _ in grammar.places] == ["yes", "no", "please"]


def test_the_text_of_a_tag_is_no_part_of_a_rule() -> None:
    text = HEAD + 'public <a> = yes {out = {"x"\\}; see("//y");} | no{/* <c> */};'
    config = PocketsphinxConfig(grammar=text, pool=1)
    assert [word for word, _ in load_grammar(config).places] == ["yes", "no"]
    anyio.run(_start, config)


def test_a_grammar_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "g.jsgf"
    path.write_text(HEAD + "public <a> = yes;")
    for written in (path, Path("~/g.jsgf")):
        assert load_grammar(PocketsphinxConfig(grammar_file=written)).key == "grammarFile"


def test_the_words_are_checked_without_listening() -> None:
    check = Registry().load(ProviderKind.TRANSCRIPTION, "pocketsphinx").check
    assert check is not None
    assert check(PocketsphinxConfig(phrases=("yes please",)), ()) == ()
    for config, words in (
        (PocketsphinxConfig(phrases=("yes xyzzyx",)), "'xyzzyx' in 'yes xyzzyx'"),
        (PocketsphinxConfig(grammar_file=Path("/nowhere/g.jsgf")), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=words):
            check(config, ())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "exactly one of grammar, grammarFile and phrases is required, not none"),
        ({"phrases": ["yes"], "grammar": "x"}, "not grammar and phrases"),
        ({"phrases": ["..."]}, r"pocketsphinx\.phrases: '\.\.\.' has no words"),
        ({"grammar": ""}, r"pocketsphinx\.grammar: does not begin with #JSGF"),
        ({"grammar": "public <a> = yes;"}, r"pocketsphinx\.grammar: does not begin with #JSGF"),
        ({"grammar": HEAD + "<a> = yes;"}, "has no public rule"),
        (
            {"grammar": HEAD + "public <a> = yes;\npublic <b> = no;"},
            r"pocketsphinx\.grammar: has more than one public rule: <a> and <b>",
        ),
        ({"grammar": HEAD + "public <a> = <b>;"}, "rule <b> is not defined"),
        ({"grammar": HEAD + "import <x.*>;\npublic <a> = yes;"}, "imports are not supported"),
        ({"grammarFile": "/nowhere/g.jsgf"}, r"pocketsphinx\.grammarFile: cannot be read"),
        ({"grammarFile": "~no-such-user/g"}, r"pocketsphinx\.grammarFile: cannot be read"),
    ],
)
def test_a_wrong_configuration_is_named(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PocketsphinxProvider(validate(PocketsphinxConfig, config, "pocketsphinx"))


async def _start(config: PocketsphinxConfig) -> None:
    async with PocketsphinxProvider(config).lifespan():
        pass


def test_words_outside_the_dictionary_are_named_with_their_phrase() -> None:
    config = PocketsphinxConfig(phrases=("yes please", "call zzxq now"))
    with pytest.raises(ConfigError, match=r"phrases: .*'zzxq' in 'call zzxq now'"):
        anyio.run(_start, config)


def test_what_only_the_decoder_understands_to_be_wrong_is_a_config_error() -> None:
    config = PocketsphinxConfig(grammar=HEAD + "public <a> = (yes;")
    with pytest.raises(ConfigError, match=r"pocketsphinx\.grammar: the decoder refuses"):
        anyio.run(_start, config)


@pytest.mark.parametrize("value", ["", "1,2,3", "a" + ",1" * 12, "nan" + ",1" * 12])
def test_the_cepstral_mean_has_thirteen_numbers(value: str) -> None:
    words = r"^pocketsphinx\.cmninit: must be 13 numbers separated by commas$"
    with pytest.raises(ConfigError, match=words):
        validate(PocketsphinxConfig, {"phrases": ["yes"], "cmninit": value}, "pocketsphinx")


def test_numbers_of_the_cepstral_mean_are_written_in_several_ways() -> None:
    mean = "40, -.5, +1e1, 2.E-1" + ",0" * 9
    assert PocketsphinxConfig(phrases=("yes",), cmninit=mean).cmninit == mean


def test_the_limit_of_scores_is_a_number() -> None:
    values = {"phrases": ["yes"], "rejectBelow": math.nan}
    with pytest.raises(ConfigError, match=r"^pocketsphinx\.rejectBelow: must be a number$"):
        validate(PocketsphinxConfig, values, "pocketsphinx")


@given(st.lists(st.text(alphabet="abc' ,;|<>", max_size=12), min_size=1, max_size=4))
def test_phrases_cannot_break_out_of_the_grammar(phrases: list[str]) -> None:
    try:
        grammar = load_grammar(PocketsphinxConfig(phrases=tuple(phrases)))
    except ConfigError as error:
        assert "has no words" in str(error)  # noqa: PT017
    else:
        assert grammar.jsgf.count(";") == 3
        assert grammar.jsgf.count("<") == 1


def test_silence_is_no_sentence() -> None:
    grammar = load_grammar(PocketsphinxConfig(phrases=("yes please",)))
    verdict = Decoder(grammar, MEASURED_CMN, -3.0).judge(bytes(32000))
    assert verdict.text == ""
