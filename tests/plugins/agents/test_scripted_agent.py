"""The scripted agent: rules, digits, history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import ValidationError

from voicecall import ProviderContext, ProviderKind
from voicecall.agent import AgentEvent, AgentTurn, EndCall, PressKeys, TextDelta
from voicecall.errors import ConfigError
from voicecall.providers import Remark
from voicecall.registry import Registry
from voicecall.selection import provider_config
from voicecall_agents import scripted
from voicecall_agents.scripted import ScriptedAgent, ScriptedConfig

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


def agent(**config: Any) -> ScriptedAgent:
    return ScriptedAgent(ScriptedConfig.model_validate(config))


def turn(text: str = "", **more: Any) -> AgentTurn:
    values = {"turn_id": "t1", "call_id": "c1", "session_key": "s1", "agent_id": "main", **more}
    return AgentTurn(text=text, **values)


async def answer(backend: ScriptedAgent, one: AgentTurn) -> tuple[str, list[AgentEvent]]:
    events = [event async for event in backend.reply(one)]
    return "".join(e.text for e in events if isinstance(e, TextDelta)), events


async def test_an_empty_configuration_makes_a_usable_assistant() -> None:
    backend = agent()
    assert (await answer(backend, turn("Hello there")))[0] == "Hello! How can I help you?"
    assert "a pizza" in (await answer(backend, turn("a pizza", turn_id="t2")))[0]
    text, events = await answer(backend, turn("ok, Bye bye.", turn_id="t3"))
    assert text.endswith("Goodbye!")
    assert events[-1] == EndCall("scripted")
    assert [e for e in events if isinstance(e, EndCall)] == events[-1:]


async def test_silence_and_what_nothing_matches() -> None:
    assert (await answer(agent(), turn("  ")))[0] == scripted.NOT_HEARD
    assert (await answer(agent(), turn("bees")))[0] == "I heard: bees. Is there anything else?"
    reply, _ = await answer(agent(), turn("Are there bees?"))
    assert reply == "I heard: Are there bees? Is there anything else?"
    assert (await answer(agent(fallback="What?"), turn("")))[0] == "What?"
    assert (await answer(agent(fallback="What?"), turn("bees")))[0] == "What?"


async def test_rules_match_in_order_by_expression_or_phrase() -> None:
    backend = agent(
        rules=[
            {"match": r"order (\d+)", "reply": "Your order is on its way."},
            {"match": ["cat", "big dog"], "reply": "An animal."},
            {"match": ".", "reply": "Something."},
        ]
    )
    assert (await answer(backend, turn("ORDER 66 please")))[0] == "Your order is on its way."
    assert (await answer(backend, turn("my Big Dog!")))[0] == "An animal."
    assert (await answer(backend, turn("concatenate")))[0] == "Something."


async def test_behind_a_voice_model_the_question_counts_not_what_was_said_before() -> None:
    backend = agent(rules=[{"match": "help|hours", "reply": "From eight until six."}])
    prompt = "You help a call.\nuser: What are your opening hours?\nRequest:\nWhere are you?"
    asked = turn(prompt, metadata={"toolPolicy": "owner", "question": "Where are you?"})
    reply, _ = await answer(backend, asked)
    assert reply == "I heard: Where are you? Is there anything else?"


async def test_a_rule_presses_keys_behind_its_reply() -> None:
    menu = {"match": "press", "reply": "Yes.", "press": "2 w#", "end": True}
    _, events = await answer(agent(rules=[menu]), turn("For sales press two."))
    assert events == [TextDelta("Yes."), PressKeys("2w#"), EndCall("scripted")]
    _, events = await answer(agent(rules=[{**menu, "reply": "", "end": False}]), turn("press two"))
    assert events == [PressKeys("2w#")]
    with pytest.raises(ValidationError, match="digits may only contain"):
        agent(rules=[{**menu, "press": "two"}])


async def test_several_replies_are_used_one_after_the_other() -> None:
    backend = agent(rules=[{"match": "joke", "reply": ["First.", "Second."]}])
    said = [(await answer(backend, turn("a joke", turn_id=f"t{n}")))[0] for n in range(3)]
    assert said == ["First.", "Second.", "Second."]


async def test_digits_and_placeholders() -> None:
    backend = agent(digits={"1": "Sales, turn {number_of_turns}."}, rules=[])
    assert (await answer(backend, turn(digits="1")))[0] == "Sales, turn 1."
    assert (await answer(backend, turn(digits="7", turn_id="t2")))[0] == "You pressed 7."
    other = agent(digits={"1": "Vertrieb."}, fallback="Keine Taste {digits}.")
    assert (await answer(other, turn(digits="1")))[0] == "Vertrieb."
    assert (await answer(other, turn(digits="7", turn_id="t2")))[0] == "Keine Taste 7."
    third = turn("{digits} {unknown}", turn_id="t3")
    assert "{digits} {unknown}" in (await answer(backend, third))[0]


async def test_the_reply_comes_word_by_word() -> None:
    _, events = await answer(agent(), turn("hello"))
    assert [e.text for e in events if isinstance(e, TextDelta)] == [
        "Hello! ", "How ", "can ", "I ", "help ", "you?",
    ]  # fmt: skip


async def test_history_and_settling() -> None:
    backend = agent()
    await answer(backend, turn("hello"))
    await answer(backend, turn("hello", session_key="other"))
    await backend.settle(turn("hello"), "Hello!")
    await backend.settle(turn("hello", turn_id="unknown"), "nothing")
    assert [(e.text, e.reply) for e in backend.history("s1")] == [("hello", "Hello!")]
    assert backend.history("other")[0].reply == "Hello! How can I help you?"
    await backend.forget("s1")
    assert backend.history("s1") == ()


async def test_a_speculative_turn_leaves_no_trace() -> None:
    backend = agent(rules=[{"match": "joke", "reply": ["First.", "Second."]}])
    assert (await answer(backend, turn("joke", speculative=True)))[0] == "First."
    assert backend.history("s1") == ()
    assert (await answer(backend, turn("joke")))[0] == "First."
    assert (await answer(backend, turn("joke")))[0] == "First."
    assert len(backend.history("s1")) == 1


async def test_a_cancelled_reply_keeps_what_went_out() -> None:
    backend = agent(word_delay_ms=600_000)
    with anyio.CancelScope() as scope:
        async for event in backend.reply(turn("hello")):
            assert event == TextDelta("Hello! ")
            scope.cancel()
    assert [e.reply for e in backend.history("s1")] == ["Hello! "]


async def test_history_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripted, "_SESSIONS", 2)
    monkeypatch.setattr(scripted, "_TURNS", 3)
    backend = agent()
    for number in range(5):
        await answer(backend, turn("x", turn_id=str(number)))
    assert [e.turn_id for e in backend.history("s1")] == ["2", "3", "4"]
    for key in ("a", "b"):
        await answer(backend, turn("x", session_key=key))
    assert backend.history("s1") == ()
    assert len(backend.history("a")) == len(backend.history("b")) == 1


async def test_it_is_found_and_made_like_any_provider(tmp_path: Path) -> None:
    info = Registry().load(ProviderKind.AGENT, "scripted")
    assert not info.demo
    config = provider_config(info, {"delayMs": 0, "wordDelayMs": 0}, {}, "agents.scripted")
    backend = info.factory(config, ProviderContext(state_dir=tmp_path))
    assert (await answer(backend, turn("hello")))[0] == "Hello! How can I help you?"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({"rules": [{"match": "("}]}, "agents.scripted.rules.0.match"),
        ({"delayMs": -1}, "agents.scripted.delayMs"),
        ({"fallbak": "x"}, "did you mean 'fallback'"),
    ],
)
async def test_a_wrong_configuration_names_the_place(raw: dict[str, Any], path: str) -> None:
    info = Registry().load(ProviderKind.AGENT, "scripted")
    with pytest.raises(ConfigError, match=path.replace(".", r"\.")):
        provider_config(info, raw, {}, "agents.scripted")


async def test_fields_that_nothing_is_filled_in_for_are_remarked() -> None:
    info = Registry().load(ProviderKind.AGENT, "scripted")
    raw = {
        "rules": [
            {"match": "a", "reply": "{text} {digits} {number_of_turns}"},
            {"match": "b", "reply": ["{text}", "{caller}, {caller}"]},
            {"match": "c", "reply": "{ text }"},
        ],
        "digits": {"1": "{Digits}"},
        "fallback": "You said {txt}",
    }
    config = provider_config(info, raw, {}, "agents.backends.scripted")
    assert info.check is not None
    remarks = info.check(config, ())
    assert all(isinstance(remark, Remark) for remark in remarks)
    path, spoken = "agents.backends.scripted", "is spoken literally"
    known = "{text}, {digits}, {number_of_turns}"
    assert remarks == [
        f"{path}.fallback: {{txt}} {spoken}; did you mean 'text'?",
        f"{path}.digits.1: {{Digits}} {spoken}; did you mean 'digits'?",
        f"{path}.rules.1.reply.1: {{caller}} {spoken} (there are {known})",
        f"{path}.rules.2.reply: {{ text }} {spoken}; did you mean 'text'?",
    ]
    assert info.check(provider_config(info, {}, {}, path), ()) == []


async def test_replies_that_no_caller_will_hear_are_remarked() -> None:
    info = Registry().load(ProviderKind.AGENT, "scripted")
    raw = {
        "rules": [{"match": "a"}, {"match": ["", " "]}, {"match": ["b", ""]}, {"match": []}],
        "digits": {"12#*": "x", "D": "x", "one": "x", "": "x"},
    }
    path = "agents.backends.scripted"
    assert info.check is not None
    remarks = info.check(provider_config(info, raw, {}, path), ())
    assert all(isinstance(remark, Remark) for remark in remarks)
    assert [text.partition(":")[0] for text in remarks] == [
        f"{path}.rules.1.match",
        f"{path}.rules.3.match",
        f"{path}.digits.one",
        f"{path}.digits.",
    ]
