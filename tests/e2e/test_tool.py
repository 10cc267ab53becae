"""The tool ``voice_call`` over HTTP: every action, refusals, and whose identity is trusted."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import typer

from voicecall.hosting import ToolCall
from voicecall.registry import Registry
from voicecall_calls.tool import TOOL_PARAMETERS
from voicecall_gateway.cli import build_app
from voicecall_mock.exchange import Behaviour, Say, Silent
from voicecall_testing.fsk import encode

from .lab.puppets import Puppet
from .lab.town import PATIENCE_S, Town, open_town, said, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio, pytest.mark.usefixtures("backstage")]

PHONE = "+15550100009"


class Desk:
    """Whoever uses the tool over HTTP."""

    def __init__(self, town: Town, client: httpx.AsyncClient) -> None:
        self.town = town
        self._client = client

    async def post(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        # In ASCII: a model's text may hold what UTF-8 cannot.
        content = json.dumps({"tool": "voice_call", **body})
        response = await self._client.post("/tools/invoke", content=content)
        return response.status_code, response.json()

    async def use(self, action: str | None, /, **args: Any) -> dict[str, Any]:
        """An action that succeeds: its details."""
        body = {"args": args} if action is None else {"action": action, "args": args}
        status, answer = await self.post(body)
        assert (status, answer["ok"]) == (200, True), answer
        assert "isError" not in answer["result"], answer
        return details(answer)

    async def fail(self, action: str | None, /, **args: Any) -> str:
        """An action that fails in the envelope: its error."""
        body = {"args": args} if action is None else {"action": action, "args": args}
        status, answer = await self.post(body)
        assert (status, answer["ok"]) == (200, True), answer
        assert answer["result"]["isError"] is True
        found = details(answer)
        assert set(found) == {"error"}
        error: str = found["error"]
        return error


def details(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer tells; its text says the same."""
    result = answer["result"]
    [part] = result["content"]
    assert part["type"] == "text"
    found: dict[str, Any] = result["details"]
    assert json.loads(part["text"]) == found
    return found


@asynccontextmanager
async def open_desk(
    tmp_path: Path, tree: Mapping[str, Any] | None = None, /, **config: Any
) -> AsyncIterator[Desk]:
    async with open_town(tmp_path, Puppet({}), config=config, tree=tree) as town:
        headers = {"Authorization": f"Bearer {town.gateway.token}"}
        async with httpx.AsyncClient(
            trust_env=False, base_url=town.gateway.url, headers=headers, timeout=PATIENCE_S
        ) as client:
            yield Desk(town, client)


async def test_a_call_is_placed_asked_spoken_to_keyed_and_ended(tmp_path: Path) -> None:
    async with open_desk(tmp_path, toNumber=PHONE) as desk:
        town = desk.town
        town.exchange.set_phone(PHONE, (Silent(),))
        started = await desk.use("initiate_call", message="Hello there.", mode="conversation")
        call_id = started["callId"]
        assert started == {"callId": call_id, "initiated": True}
        lane = town.engine.lanes[call_id]
        await until(lambda: lane.record.transcript != ())

        async def reply() -> None:
            await until(lambda: ("bot", "How are you?", True) in said(lane.record))
            line = town.exchange.calls[lane.record.provider_call_id or ""].line
            await line.say(Say("Fine, thanks.", audio=encode("Fine, thanks.")))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reply)
            asked = await desk.use("continue_call", callId=call_id, message="How are you?")
        assert asked == {"success": True, "transcript": "Fine, thanks."}
        done = {"success": True}
        assert await desk.use("speak_to_user", callId=call_id, message="Good.") == done
        assert await desk.use("send_dtmf", callId=call_id, digits="1w2#") == done
        status = await desk.use("get_status", callId=call_id)
        assert (status["found"], status["call"]["callId"]) == (True, call_id)
        assert PHONE not in json.dumps(status)
        carrier_id = status["call"]["providerCallId"]
        await until(lambda: "#" in town.exchange.stats(carrier_id).digits_heard)
        assert town.exchange.stats(carrier_id).digits_heard.replace("w", "") == "12#"

        assert await desk.use("end_call", callId=call_id) == done
        record = await town.over(call_id)
        lines = [("bot", "Hello there.", True), ("bot", "How are you?", True)]
        assert said(record) == [
            *lines,
            ("user", "Fine, thanks.", True),
            ("bot", "Good.", True),
        ]
        assert (await desk.use("get_status", callId=call_id))["call"]["state"] == "hangup-bot"
        assert await desk.use("get_status", callId="nobody") == {"found": False}
        assert "not active" in await desk.fail("speak_to_user", callId=call_id, message="Hm?")
        await town.nothing_left()


async def test_what_is_wrong_comes_back_in_the_envelope(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        for action, given, words in (
            ("initiate_call", {}, "message is required"),
            ("initiate_call", {"message": "  "}, "message is required"),
            ("initiate_call", {"message": "Hello."}, "to is required"),
            ("initiate_call", {"message": "Hello.", "to": "12"}, "E.164"),
            ("initiate_call", {"message": "Hello.", "to": PHONE, "mode": "call"}, "mode must be"),
            ("continue_call", {"message": "Hello."}, "callId is required"),
            ("continue_call", {"callId": "x"}, "message is required"),
            ("speak_to_user", {"callId": "x", "message": "Hello."}, "x"),
            ("send_dtmf", {"callId": "x", "digits": "1;2"}, "digits may only contain"),
            ("end_call", {"callId": "x"}, "x"),
            ("get_status", {}, "callId is required"),
            (None, {"mode": "status"}, "sid is required"),
            (None, {"callId": "x", "message": "Hello."}, "action is required with callId"),
            (None, {"digits": "1", "message": "Hello."}, "action is required with digits"),
            (None, {}, "to is required"),
            ("initiate_call", {"message": "Hello.", "too": PHONE}, "'too'; did you mean 'to'?"),
            ("initiate_call", {"message": "Hello.", "brief": {"task": "x"}}, "'brief'"),
            (None, {"mode": "status", "id": "x"}, "unknown parameter 'id'"),
            ("end_call", {"callId": "x\ud83d"}, "x\ufffd"),
            ("speak_to_user", {"callId": "x\ud83d", "message": "Hello."}, "x\ufffd"),
        ):
            assert words in await desk.fail(action, **given), (action, given)
        # What the schema of the tool rules out is not asked of the tool.
        for body in (
            {"action": "order_pizza"},
            {"action": "get_status", "args": {"callId": 7}},
        ):
            status, answer = await desk.post(body)
            assert (status, answer["error"]["type"]) == (400, "invalid_request")
        assert not desk.town.engine.lanes
        for args in (
            {"action": "get_status", "callId": "x\ud83d"},
            {"mode": "status", "sid": "\ud83d"},
        ):
            assert await desk.use(None, **args) == {"found": False}


async def test_a_misspelt_number_calls_nobody_else(tmp_path: Path) -> None:
    async with open_desk(tmp_path, toNumber=PHONE) as desk:
        for action in ("initiate_call", None):
            error = await desk.fail(action, message="Hello.", too="+15550100008")
            assert error == "unknown parameter 'too'; did you mean 'to'?"
        assert not desk.town.engine.lanes


async def test_half_a_surrogate_pair_is_spoken_as_a_replacement(tmp_path: Path) -> None:
    async with open_desk(tmp_path, toNumber=PHONE) as desk:
        desk.town.exchange.set_phone(PHONE, (Silent(),))
        started = await desk.use("initiate_call", message="Hello \ud83d.", sessionKey="Key \ud83d")
        record = await desk.town.over(started["callId"])
        assert said(record) == [("bot", "Hello \ufffd.", True)]
        assert record.session_key == "agent:main:key \ufffd"
        await desk.town.nothing_left()


async def test_half_a_surrogate_pair_is_no_key(tmp_path: Path) -> None:
    async with open_desk(tmp_path, toNumber=PHONE) as desk:
        body = {"action": "initiate_call", "args": {"message": "Hello."}}
        for name in ("sessionKey", "agentId", "idempotencyKey"):
            _, answer = await desk.post({**body, name: "x\ud83d"})
            assert details(answer)["error"].startswith(f"{name} must be Unicode text")
        assert not desk.town.engine.lanes


async def test_a_phone_that_does_not_run_says_what_is_missing(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        desk.town.edit(enabled=False)
        await desk.town.reload()
        assert "enabled is false" in await desk.fail("initiate_call")
        assert "enabled is false" in await desk.fail(None)


async def test_a_caller_cannot_have_a_call_placed_with_the_history_of_somebody_else(
    tmp_path: Path,
) -> None:
    async with open_desk(tmp_path) as desk:
        desk.town.exchange.set_phone(PHONE, Behaviour((Silent(),)))
        tool = desk.town.gateway.host.find_tool("voice_call")
        assert tool is not None
        # As a voice model uses it that the configuration lets have it.
        caller = ToolCall(frozenset(), "agent:main:voice:15550100001", "main")
        wanted = {"to": PHONE, "message": "Hello there."}
        for action in ({"action": "initiate_call"}, {}):
            answer = await tool.handler(
                {**action, **wanted, "sessionKey": "voice:15550100002"}, caller
            )
            told = {"error": "sessionKey cannot be chosen during a call; leave it out"}
            assert (answer["isError"], answer["details"]) == (True, told)
        answer = await tool.handler({"action": "initiate_call", **wanted}, caller)
        record = await desk.town.over(answer["details"]["callId"])
        assert record.session_key == f"agent:main:voice:{PHONE[1:]}"


async def test_the_shape_without_an_action(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        desk.town.exchange.set_phone(PHONE, Behaviour((Silent(),)))
        plain = await desk.use(None, to=PHONE, message="Hello there.")
        assert plain["initiated"] is True
        record = await desk.town.over(plain["callId"])
        assert said(record) == [("bot", "Hello there.", True)]
        status = await desk.use(None, mode="status", sid=plain["callId"])
        assert (status["found"], status["call"]["state"]) == (True, "hangup-bot")
        named = await desk.use(None, mode="call", to=PHONE, message="Hello again.")
        assert named["callId"] != plain["callId"]
        await desk.town.over(named["callId"])


async def test_who_asked_is_told_by_the_request_and_not_by_the_model(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        town = desk.town
        town.exchange.set_phone(PHONE, Behaviour((Silent(),)))
        claims = {"requesterSessionKey": "agent:boss:main", "idempotencyKey": "same"}
        body = {
            "action": "initiate_call",
            "args": {"to": PHONE, "message": "Hello there.", **claims},
            "sessionKey": "agent:main:desk",
            "idempotencyKey": "once",
        }
        _, first = await desk.post(body)
        record = await town.over(details(first)["callId"])
        assert record.requester_session_key == "agent:main:desk"
        # The same request again is the same call.
        _, again = await desk.post(body)
        assert details(again) == details(first)
        _, other = await desk.post({**body, "idempotencyKey": "twice", "sessionKey": None})
        assert details(other)["callId"] != details(first)["callId"]
        record = await town.over(details(other)["callId"])
        assert record.requester_session_key is None


async def test_the_agent_that_asks_holds_the_call(tmp_path: Path) -> None:
    agents = {"list": [{"id": "desk", "default": True}, {"id": "sales"}]}
    async with open_desk(tmp_path, {"agents": agents}) as desk:
        desk.town.exchange.set_phone(PHONE, Behaviour((Silent(),)))
        # What the model claims to be does not count.
        args = {"to": PHONE, "message": "Hello there.", "agentId": "boss"}
        body = {"action": "initiate_call", "args": args}
        for who, agent in (
            ({}, "desk"),
            ({"agentId": "Sales"}, "sales"),
            ({"sessionKey": "agent:sales:main"}, "sales"),
            ({"sessionKey": "agent:sales:main", "agentId": "desk"}, "desk"),
            ({"sessionKey": "sales"}, "desk"),
        ):
            _, answer = await desk.post({**body, **who})
            record = await desk.town.over(details(answer)["callId"])
            digits = PHONE.removeprefix("+")
            assert (record.agent_id, record.session_key) == (
                agent,
                f"agent:{agent}:voice:{digits}",
            )
        _, answer = await desk.post({**body, "agentId": "boss"})
        assert details(answer) == {
            "error": "the agent 'boss' cannot take the call: no such agent (there are: desk, sales)"
        }


async def test_a_stranger_may_not_use_it(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        async with httpx.AsyncClient(trust_env=False, base_url=desk.town.gateway.url) as client:
            response = await client.post("/tools/invoke", json={"tool": "voice_call"})
        assert response.status_code == 401
        assert not desk.town.engine.lanes


def test_the_skill_tells_of_every_action_and_of_commands_that_exist() -> None:
    skill = files("voicecall_calls").joinpath("skills/voice-call/SKILL.md")
    text = skill.read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    assert "name: voice-call" in front
    assert "plugins.entries.voice-call.enabled" in front
    for action in TOOL_PARAMETERS["properties"]["action"]["enum"]:
        assert f"| `{action}` |" in body
    group: Any = typer.main.get_command(build_app(Registry()))
    commands = group.commands
    named = set(re.findall(r"voicecall ([a-z]+)\b", body))
    assert {"call", "status", "setup"} <= named <= set(commands)
    for name, rest in re.findall(r"^    voicecall (\S+) (.*)$", body, re.MULTILINE):
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options
