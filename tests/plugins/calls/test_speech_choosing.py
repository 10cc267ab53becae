"""Which speech providers a ``tts`` block selects, in which order, and notes about the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from voicecall import ProviderKind
from voicecall.configuring import validate
from voicecall.errors import ConfigError
from voicecall.registry import Registry
from voicecall.selection import Selection
from voicecall_calls.speech.choosing import PassedOver, SpeechChoice, choose_speech, voice_of
from voicecall_calls.speechconfig import TtsConfig
from voicecall_testing.offering import offered

from .phone_registry import info

pytestmark = pytest.mark.unit

TTS = ProviderKind.TTS
INFOS = (
    info(TTS, "late", key=True, auto_select_order=30),
    info(TTS, "early", key=True, auto_select_order=10, aliases=("dawn",)),
    info(TTS, "middle", key=True, auto_select_order=20),
    info(TTS, "toy", auto_select_order=1, demo=True),
)
REGISTRY = Registry(entries=[], extra=[offered(one) for one in INFOS])
ALL = {"LATE_KEY": "k", "EARLY_KEY": "k", "MIDDLE_KEY": "k"}


def choose(environ: Mapping[str, str] = ALL, **tts: Any) -> SpeechChoice:
    return choose_speech(validate(TtsConfig, tts, "tts"), REGISTRY, environ)


def test_the_chosen_one_then_the_others_in_order() -> None:
    assert choose(provider="late").labels == ["Late", "Early", "Middle"]
    assert choose(provider="early").labels == ["Early", "Middle", "Late"]
    assert choose().labels == ["Early", "Middle", "Late"]
    assert choose(provider="dawn").labels == ["Early", "Middle", "Late"]
    assert choose(provider="late").passed_over == ()


def test_what_cannot_speak_is_passed_over() -> None:
    choice = choose({"LATE_KEY": "k"}, provider="middle", providers={"early": {"voice": "eve"}})
    assert choice.labels == ["Late"]
    middle, early = choice.passed_over
    assert "tts.providers.middle.apiKey (or set MIDDLE_KEY)" in middle.message
    assert "tts.providers.early.apiKey (or set EARLY_KEY)" in early.message
    assert (middle.asked, early.asked) == (True, True)
    unknown = choose({"LATE_KEY": "k"}, provider="midle")
    assert unknown.labels == ["Late"]
    assert "did you mean 'middle'" in unknown.passed_over[0].message
    assert [over.asked for over in unknown.passed_over] == [True, False, False]


def test_where_nobody_can_speak_the_chosen_one_is_told() -> None:
    choice = choose({}, provider="middle")
    assert choice.selected.outcome is Selection.PROVIDER_NOT_CONFIGURED
    assert "MIDDLE_KEY" in choice.selected.message
    assert (choice.chain, choice.labels) == ((), [])
    assert "EARLY_KEY" in choose({}).selected.message


def test_a_toy_speaks_only_where_it_is_named() -> None:
    assert "Toy" not in choose().labels
    assert choose(providers={"toy": {}}).labels == ["Early", "Middle", "Late", "Toy"]
    assert choose(provider="toy").labels == ["Toy", "Early", "Middle", "Late"]
    # It may take over; alone it would have been chosen by nobody.
    assert choose({}, providers={"toy": {}}).chain == ()
    assert choose({}, provider="late", providers={"toy": {}}).labels == ["Toy"]


def test_a_mistake_in_a_block_counts_where_it_is_chosen() -> None:
    blocks = {"late": {"voise": "anna"}}
    with pytest.raises(ConfigError, match=r"tts\.providers\.late\.voise"):
        choose(provider="late", providers=blocks)
    choice = choose(provider="early", providers=blocks)
    assert choice.labels == ["Early", "Middle"]
    assert "tts.providers.late.voise" in choice.passed_over[0].message


def test_broken_code_is_passed_over_as_if_it_were_not_installed() -> None:
    def broken() -> Any:
        raise ModuleNotFoundError("No module named 'vendor'")

    infos = [replace(one, config_model=broken) if one.id == "early" else one for one in INFOS]
    registry = Registry(entries=[], extra=[offered(one) for one in infos])
    words = "cannot be used: ModuleNotFoundError: No module named 'vendor'"

    def chosen(**tts: Any) -> SpeechChoice:
        return choose_speech(validate(TtsConfig, tts, "tts"), registry, ALL)

    passed_over = (PassedOver(f"the tts provider 'early' {words}", asked=True),)
    for tts, labels in (
        ({"provider": "late"}, ["Late", "Middle"]),
        ({"provider": "dawn"}, ["Middle", "Late"]),
        ({}, ["Middle", "Late"]),
    ):
        choice = chosen(**tts)
        assert choice.labels == labels, tts
        assert choice.passed_over == passed_over


def test_each_has_the_voice_of_its_own_block() -> None:
    blocks = {"late": {"voice": "lea"}, "dawn": {"voice": " dan "}, "middle": {"voice": ""}}
    choice = choose(provider="late", providers=blocks)
    assert [voice_of(choice.tts, one) for one in choice.chain] == ["lea", "dan", None]
    # Without a provider of our own it is that of the carrier's voice.
    carrier = validate(
        TtsConfig, {"provider": "x", "providers": {"x": {"speakerVoice": "c"}}}, "tts"
    )
    assert voice_of(carrier, choose({}, provider="middle").selected) == "c"
