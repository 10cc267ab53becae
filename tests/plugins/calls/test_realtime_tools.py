"""Tools of a voice model: hanging up, consulting the agent, and those of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.agent import EndCall, Recollection
from voicecall.errors import ProviderUnavailable
from voicecall.hosting import ToolCall as ToolUse
from voicecall.hosting import ToolSpec
from voicecall.model import EndDetail
from voicecall.realtime import (
    Delegation,
    Interrupted,
    RealtimeCapabilities,
    RealtimeEvent,
    ResponseDone,
    ResponseStarted,
    SessionLost,
    SessionReset,
    ToolCall,
    ToolCancelled,
    Transcript,
)
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.harness import Phone

from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

END = "voicecall_end_call"
CONSULT = "voicecall_agent_consult"
PRESS = "voicecall_press_keys"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


@asynccontextmanager
async def on_the_phone(
    directory: Path, model: ScriptedRealtime, **options: Any
) -> AsyncIterator[Phone]:
    async with open_realtime(directory, model, **options) as phone:
        await phone.dial()
        await phone.answer()
        await phone.settle(0.1)
        yield phone


def consult(call_id: str, question: str = "What is the weather like?", **more: Any) -> ToolCall:
    return ToolCall(call_id, CONSULT, {"question": question, **more})


@pytest.mark.parametrize("name", [END, "openclaw_end_call"])
async def test_the_farewell_is_heard_before_the_call_ends(tmp_path: Path, name: str) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        model.current.speak("Goodbye now.", 2000)
        model.current.tell(ToolCall("t1", name, {}))
        await phone.settle(1.5)
        assert phone.engine.lanes
        assert model.current.results == []
        await phone.settle(1.5)
        assert phone.record.end_detail is EndDetail.AGENT
        assert phone.said == [("bot", "Goodbye now.")]
        assert model.sessions[0].results == [("t1", {"ended": True}, False)]


async def test_a_long_farewell_is_heard_to_its_end(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        # A model makes its words faster than they are heard.
        model.current.speak("To sum it all up. Goodbye now.", 25_000)
        model.current.tell(ToolCall("t1", END, {}))
        await phone.settle(24.5)
        assert phone.engine.lanes
        await phone.settle(1.5)
        assert phone.record.end_detail is EndDetail.AGENT
        assert phone.said == [("bot", "To sum it all up. Goodbye now.")]


@pytest.mark.parametrize("comes", [True, False])
async def test_a_farewell_behind_the_end_that_it_asks_for_is_heard(
    tmp_path: Path, comes: bool
) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        model.current.tell(ResponseStarted("r"), ToolCall("t1", END, {}))
        await phone.settle(0.5)
        assert phone.record.ending is None
        if comes:
            model.current.write("x", 3000)
            model.current.tell(Transcript("assistant", "x", "Goodbye now.", final=True))
            model.current.tell(ResponseDone("r", "completed", items=("x",)))
            await phone.settle(2.5)
            assert phone.record.ending is None
        await phone.settle(2)
        assert phone.record.end_detail is EndDetail.AGENT
        assert phone.said == ([("bot", "Goodbye now.")] if comes else [])


async def test_an_end_without_a_farewell_is_not_waited_for(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        model.current.tell(ResponseStarted("r"), ToolCall("t1", END, {}))
        await phone.settle(0.1)
        model.current.tell(ResponseDone("r", "completed"))
        await phone.settle(0.1)
        assert phone.record.end_detail is EndDetail.AGENT


async def test_an_interrupted_farewell_keeps_the_call(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        model.current.speak("Goodbye now.", 2000)
        model.current.tell(ToolCall("t1", END, {}))
        await phone.settle(1)
        model.current.tell(Interrupted())
        await phone.settle(5)
        assert phone.engine.lanes
        ((_, result, _),) = model.current.results
        assert result["ended"] is False


async def test_the_agent_is_consulted(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then('{"spoken": "Sunny, ', 'and mild."}')
        model.current.hears("I am in Bern.")
        model.current.tell(consult("t1", context="in Bern", responseStyle="short"))
        await phone.settle(1)
        assert model.current.results == [("t1", {"answer": "Sunny, and mild."}, False)]
        (turn,) = phone.agent.turns
        for part in ("I am in Bern.", "What is the weather like?", "in Bern", "short"):
            assert part in turn.text
        question = "What is the weather like?"
        assert turn.metadata == {"toolPolicy": "safe-read-only", "question": question}
        assert (turn.model, turn.thinking, turn.fast, turn.owner) == (None, None, None, False)


async def test_the_agent_gets_no_half_of_a_surrogate_pair(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then("Sunny.")
        model.current.tell(consult("t1", "Is it \ud83d today?", context="in \ud83d"))
        await phone.settle(1)
        assert model.current.results == [("t1", {"answer": "Sunny."}, False)]
        (turn,) = phone.agent.turns
        assert "Is it \ufffd today?" in turn.text
        assert "in \ufffd" in turn.text


async def test_the_agent_is_told_how_to_think(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    config = {"consultThinkingLevel": "low", "consultFastMode": True, "toolPolicy": "owner"}
    async with on_the_phone(tmp_path, model, brain_model="vendor:big", realtime=config) as phone:
        model.current.tell(consult("t1"))
        await phone.settle(0.5)
        (turn,) = phone.agent.turns
        assert (turn.model, turn.thinking, turn.fast) == ("vendor:big", "low", True)
        assert turn.owner


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        (("All done.", EndCall()), "All done."),
        ((EndCall(),), ""),
        (('{"spoken": "All done.", "end": true}',), "All done."),
    ],
)
async def test_an_agent_that_ends_the_call_has_the_model_say_goodbye(
    tmp_path: Path, script: tuple[str | EndCall, ...], answer: str
) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then(*script)
        model.current.tell(ToolCall("t1", "openclaw_agent_consult", {"prompt": "Anything else?"}))
        await phone.settle(1)
        ((_, result, _),) = model.current.results
        assert result["answer"] == answer
        assert END in result["then"]


async def test_consults_that_overlap_share_one_run(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then(1.0, "Sunny.")
        model.current.tell(consult("t1"), consult("t2"))
        await phone.settle(2)
        assert len(phone.agent.turns) == 1
        assert model.current.results == [
            ("t1", {"answer": "Sunny."}, False),
            ("t2", {"answer": "Sunny."}, False),
        ]


async def test_a_long_consult_gives_an_interim_result(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then(4.0, "Sunny.")
        model.current.tell(consult("t1"))
        await phone.settle(2)
        ((_, interim, will_continue),) = model.current.results
        assert interim["status"] == "working"
        assert will_continue
        await phone.settle(3)
        assert model.current.results[1:] == [("t1", {"answer": "Sunny."}, False)]


@pytest.mark.parametrize(
    "step", [60.0, "", ProviderUnavailable("down", provider="agent"), KeyError(), SystemExit(3)]
)
async def test_an_agent_that_fails_gives_an_error(
    tmp_path: Path, step: float | str | Exception | SystemExit
) -> None:
    model = ScriptedRealtime()
    config = {"responseTimeoutMs": 3000, "fillerAfterMs": 0}
    async with on_the_phone(tmp_path, model, **config) as phone:
        phone.agent.then(step)
        model.current.tell(consult("t1"))
        await phone.settle(4)
        ((_, result, _),) = model.current.results
        assert "error" in result
        assert phone.engine.lanes


async def test_an_agent_that_cannot_be_stopped_is_left(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model, responseTimeoutMs=5000, fillerAfterMs=0) as phone:
        phone.agent.stops = False
        phone.agent.then(3600.0, "Never heard.")
        model.current.tell(consult("t1"))
        await phone.settle(8)
        ((_, result, _),) = model.current.results
        assert result == {"error": "the agent gave no answer within 5 s"}
        phone.agent.then(3600.0, "Never heard.")
        model.current.tell(consult("t2"))
        await phone.settle(1)
        await phone.hang_up()
        await phone.settle(3)
        assert not phone.engine.lanes


@pytest.mark.parametrize(
    "told", [(ToolCancelled("t1"), ToolCancelled("unknown")), (SessionReset(),)]
)
async def test_a_consult_that_is_cancelled_or_void_by_a_reset_gives_no_result(
    tmp_path: Path, told: tuple[RealtimeEvent, ...]
) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model, fillerAfterMs=0) as phone:
        phone.agent.then(2.0, "Sunny.")
        model.current.tell(consult("t1"))
        await phone.settle(1)
        model.current.tell(*told)
        await phone.settle(3)
        assert model.current.results == []
        assert [heard for _, heard in phone.agent.settled] == [""]


async def test_a_question_is_needed_and_a_short_one_is_repaired(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        model.current.tell(ToolCall("t1", CONSULT, {"question": " "}))
        await phone.settle(0.5)
        assert "error" in model.current.results[0][1]
        model.current.hears("When does the last train to Bern leave tonight?")
        model.current.tell(consult("t2", "last train"))
        await phone.settle(0.5)
        (turn,) = phone.agent.turns
        assert turn.text.endswith("When does the last train to Bern leave tonight?")
        assert "Asked as: last train" in turn.text


@pytest.mark.parametrize("arguments", [None, [], "", '{"question": "How late is it?"}'])
@pytest.mark.parametrize("name", [CONSULT, "make_coffee"])
async def test_arguments_that_are_no_object_give_an_error(
    tmp_path: Path, name: str, arguments: Any
) -> None:
    model = ScriptedRealtime()
    config = {"tools": [COFFEE]}
    async with on_the_phone(tmp_path, model, tools=[coffee_tool()], realtime=config) as phone:
        model.current.tell(ToolCall("t1", name, arguments))
        await phone.settle(0.5)
        assert model.current.results == [
            ("t1", {"error": "the arguments are not a JSON object"}, False)
        ]
        assert phone.agent.turns == []


async def test_tool_policy_none_hides_the_agent(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model, realtime={"toolPolicy": "none"}) as phone:
        assert [tool.name for tool in model.current.options.tools] == [END, PRESS]
        assert CONSULT not in model.current.options.instructions
        model.current.tell(consult("t1"))
        await phone.settle(0.5)
        assert "not available" in model.current.results[0][1]["error"]
        assert phone.agent.turns == []


async def test_an_unknown_tool_gives_an_error(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        model.current.tell(ToolCall("t1", "make_coffee", {}))
        await phone.settle(0.5)
        assert model.current.results == [
            ("t1", {"error": 'Tool "make_coffee" not available'}, False)
        ]


async def test_a_tool_in_a_loop_is_refused_for_a_while(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        for number in range(21):
            model.current.tell(consult(f"t{number}"))
            await phone.settle(0.2)
        assert len(phone.agent.turns) == 20
        assert "too often" in model.current.results[-1][1]["error"]
        await phone.socket.speak(b"\xff" * 8000 * 10)
        await phone.settle(20)
        await phone.socket.speak(b"\xff" * 8000 * 10)
        await phone.settle(25)
        model.current.tell(consult("later"))
        await phone.settle(0.5)
        assert model.current.results[-1] == ("later", {"answer": "Yes."}, False)


async def test_a_model_that_delegates_has_no_tools_and_asks_the_agent(tmp_path: Path) -> None:
    model = ScriptedRealtime(RealtimeCapabilities(delegation=True))
    async with on_the_phone(tmp_path, model) as phone:
        assert model.current.options.tools == ()
        model.current.tell(Delegation("d1", "Find out what the weather is like"))
        await phone.settle(0.5)
        assert model.current.results == [("d1", {"answer": "Yes."}, False)]


@pytest.mark.parametrize(("policy", "part"), [("always", "every answer"), ("auto", "deeper")])
async def test_the_instructions_follow_the_configuration(
    tmp_path: Path, policy: str, part: str
) -> None:
    model = ScriptedRealtime()
    config = {"instructions": "You are Max.", "consultPolicy": policy}
    async with on_the_phone(tmp_path, model, realtime=config):
        text = model.current.options.instructions
        assert text.startswith("You are Max.")
        assert part in text
        assert END in text


# --- tools of the configuration -----------------------------------------------------------------

COFFEE = {
    "type": "function",
    "name": "make_coffee",
    "description": "Make coffee.",
    "parameters": {
        "type": "object",
        "properties": {"cups": {"type": "integer"}},
        "required": ["cups"],
    },
}


def coffee_tool(
    *uses: dict[str, Any] | bytes | BaseException | float,
    seen: list[tuple[Any, ToolUse]] | None = None,
) -> ToolSpec:
    """A tool of the gateway: returns, raises or takes so many seconds, one after another."""
    waiting = list(uses)

    async def handler(arguments: Mapping[str, Any], use: ToolUse) -> Any:
        if seen is not None:
            seen.append((arguments, use))
        outcome = waiting.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, float):
            await anyio.sleep(outcome)
        return outcome

    return ToolSpec("make_coffee", "Coffee.", {"type": "object"}, handler)


async def test_a_declared_tool_is_carried_out_by_the_gateways(tmp_path: Path) -> None:
    model, seen = ScriptedRealtime(), list[tuple[Any, ToolUse]]()
    tool = coffee_tool({"ready": True}, seen=seen)
    async with on_the_phone(tmp_path, model, tools=[tool], realtime={"tools": [COFFEE]}) as phone:
        declared = model.current.options.tools[-1]
        assert declared.name == "make_coffee"
        assert dict(declared.parameters) == {
            "type": "object",
            "properties": {"cups": {"type": "integer"}},
            "required": ("cups",),
        }
        model.current.tell(ToolCall("t1", "make_coffee", {"cups": 2}))
        await phone.settle(0.5)
        assert model.current.results == [("t1", {"result": {"ready": True}}, False)]
        ((arguments, use),) = seen
        assert arguments == {"cups": 2}
        assert use.session_key == phone.record.session_key
        assert use.scopes == frozenset()
        # Another call, or the next session of this one, may have the same id for a tool call.
        assert use.idempotency_key == f"{phone.record.call_id}:1:t1"


async def test_the_same_id_in_the_next_session_is_another_tool_call(tmp_path: Path) -> None:
    model, seen = ScriptedRealtime(), list[tuple[Any, ToolUse]]()
    tool = coffee_tool({"ready": True}, {"ready": False}, seen=seen)
    async with on_the_phone(tmp_path, model, tools=[tool], realtime={"tools": [COFFEE]}) as phone:
        model.current.tell(ToolCall("t1", "make_coffee", {"cups": 2}))
        await phone.settle(0.5)
        model.current.tell(SessionLost("gone", fatal=True))
        await phone.settle(1)
        model.current.tell(ToolCall("t1", "make_coffee", {"cups": 1}))
        await phone.settle(0.5)
        assert model.current.results == [("t1", {"result": {"ready": False}}, False)]
        keys = [use.idempotency_key for _, use in seen]
        assert len(set(keys)) == 2


async def test_only_what_is_declared_and_there_can_be_used(tmp_path: Path) -> None:
    model, tool = ScriptedRealtime(), coffee_tool({})
    async with on_the_phone(tmp_path, model, tools=[tool]) as phone:
        assert [one.name for one in model.current.options.tools] == [END, CONSULT, PRESS]
        model.current.tell(ToolCall("t1", "make_coffee", {}))
        await phone.settle(0.5)
        assert "not available" in model.current.results[0][1]["error"]


async def test_our_own_tools_cannot_be_replaced(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    names = (END, "openclaw_end_call", CONSULT, PRESS)
    tools = [{**COFFEE, "name": name} for name in names]
    async with on_the_phone(tmp_path, model, realtime={"tools": tools}):
        assert [one.name for one in model.current.options.tools] == [END, CONSULT, PRESS]
        assert "coffee" not in model.current.options.tools[0].description


async def test_a_tool_that_fails_gives_an_error(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    refused = ProviderUnavailable("no beans", provider="coffee")
    tool = coffee_tool(refused, KeyError("x"), SystemExit(2), 60.0)
    config = {"tools": [COFFEE]}
    async with on_the_phone(
        tmp_path, model, tools=[tool], realtime=config, responseTimeoutMs=2000
    ) as phone:
        for number in range(4):
            model.current.tell(ToolCall(f"t{number}", "make_coffee", {}))
            await phone.settle(0.5)
        await phone.settle(2)
        first, *failed, last = (result["error"] for _, result, _ in model.current.results)
        assert "no beans" in first
        assert failed == ["the tool failed"] * 2
        assert "2 s" in last


async def test_a_tool_that_cannot_be_stopped_is_left(tmp_path: Path) -> None:
    async def handler(arguments: Mapping[str, Any], use: ToolUse) -> Any:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3600)

    model = ScriptedRealtime()
    tool = ToolSpec("make_coffee", "Coffee.", {"type": "object"}, handler)
    config = {"tools": [COFFEE]}
    async with on_the_phone(
        tmp_path, model, tools=[tool], realtime=config, responseTimeoutMs=2000
    ) as phone:
        model.current.tell(ToolCall("t1", "make_coffee", {}))
        await phone.settle(5)
        assert model.current.results == [("t1", {"error": "no result within 2 s"}, False)]
        model.current.tell(ToolCall("t2", "make_coffee", {}))
        await phone.settle(0.5)
        model.current.end()
        await phone.settle(4)
        assert len(model.sessions) == 2
        model.current.tell(ToolCall("t1", "make_coffee", {}))
        await phone.settle(0.5)
        await phone.hang_up()
        await phone.settle(3)
        assert not phone.engine.lanes


@pytest.mark.parametrize("result", [b"\x00", {"at": object()}, {"cups": float("nan")}])
async def test_a_result_that_is_no_json_counts_as_a_failure(
    tmp_path: Path, result: bytes | dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    model, tool = ScriptedRealtime(), coffee_tool(result)
    async with on_the_phone(tmp_path, model, tools=[tool], realtime={"tools": [COFFEE]}) as phone:
        model.current.tell(ToolCall("t1", "make_coffee", {}))
        await phone.settle(0.5)
        assert model.current.results == [("t1", {"error": "the tool failed"}, False)]
    assert "tool make_coffee failed" in caplog.text


# --- what is known already ----------------------------------------------------------------------


async def test_what_is_known_needs_no_run_of_the_agent(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    fast = {"enabled": True, "maxResults": 2, "sources": ["sessions"]}
    async with on_the_phone(tmp_path, model, realtime={"fastContext": fast}) as phone:
        phone.agent.known = [Recollection("sessions", f"fact {n}") for n in range(3)]
        model.current.tell(consult("t1"))
        await phone.settle(0.5)
        ((_, result, _),) = model.current.results
        assert result["known"] == ["fact 0", "fact 1"]
        assert phone.agent.turns == []
        ((turn, sources, limit),) = phone.agent.recalled
        assert (turn.text, sources, limit) == ("What is the weather like?", ("sessions",), 2)
        assert turn.session_key == phone.record.session_key


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("why", ["nothing", "too slow", "broken", "left"])
async def test_what_is_not_known_is_asked_or_said_to_be_unknown(
    tmp_path: Path, fallback: bool, why: str
) -> None:
    model = ScriptedRealtime()
    fast = {"enabled": True, "timeoutMs": 300, "fallbackToConsult": fallback}
    async with on_the_phone(tmp_path, model, realtime={"fastContext": fast}) as phone:
        if why != "nothing":
            phone.agent.known = [Recollection("memory", "too late")]
        phone.agent.recall_takes_s = 1.0 if why == "too slow" else 0.0
        errors: dict[str, Exception | SystemExit]
        errors = {"broken": KeyError("index"), "left": SystemExit(3)}
        phone.agent.recall_error = errors.get(why)
        model.current.tell(consult("t1"))
        await phone.settle(0.6)
        ((_, result, _),) = model.current.results
        if fallback:
            assert result == {"answer": "Yes."}
        else:
            assert "Nothing is known" in result["answer"]
        assert len(phone.agent.turns) == fallback


async def test_a_forced_consultation_asks_the_agent_itself(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    config = {"fastContext": {"enabled": True}, "consultPolicy": "always"}
    async with on_the_phone(tmp_path, model, realtime=config) as phone:
        phone.agent.known = [Recollection("sessions", "a note, not a sentence to speak")]
        model.current.hears("What is the weather like?")
        await phone.settle(1)
        assert ("say", "Yes.") in model.current.asked
        assert phone.agent.recalled == []


@pytest.mark.parametrize("again_after_s", [0.0, 0.5, 3.0])
async def test_a_call_that_comes_twice_is_carried_out_once(
    tmp_path: Path, again_after_s: float
) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then(1.0, "Sunny.")
        model.current.tell(consult("t1"))
        await phone.settle(again_after_s)
        model.current.tell(consult("t1"))
        await phone.settle(5)
        assert phone.record.live
        assert model.current.results == [("t1", {"answer": "Sunny."}, False)]
        assert len(phone.agent.turns) == 1


@pytest.mark.parametrize("reset", [True, False])
async def test_another_session_may_number_its_calls_anew(tmp_path: Path, reset: bool) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        model.current.tell(consult("t1"))
        await phone.settle(2)
        if reset:
            model.current.tell(SessionReset())
        else:
            model.current.end()
        await phone.settle(3)
        model.current.tell(consult("t1"))
        await phone.settle(2)
        assert len(phone.agent.turns) == 2
        assert model.current.results[-1] == ("t1", {"answer": "Yes."}, False)
