"""The phone's RPC methods: parameters, scopes, payloads, and long-running questions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.errors import (
    CallNotFound,
    CallNotReady,
    ConfigError,
    InvalidRequest,
    MissingScope,
    OutcomeUnknown,
    RequestRejected,
)
from voicecall.hosting import RpcCall
from voicecall.model import EndDetail
from voicecall_calls.operations import CallOperations
from voicecall_calls.rpc import PhoneRpc
from voicecall_testing.clock import VirtualSeam, virtual_backend
from voicecall_testing.harness import CALLEE, CALLER, Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

WHO = RpcCall("connection-1", frozenset({"operator.write"}))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Rpc:
    def __init__(self, rpc: PhoneRpc, phone: Phone) -> None:
        self.methods = {method.name: method for method in rpc.methods()}
        self.phone = phone

    async def __call__(self, name: str, **params: Any) -> Mapping[str, Any]:
        return await self.methods[f"voicecall.{name}"].handler(params, WHO)


@asynccontextmanager
async def open_rpc(directory: Path, **config: Any) -> AsyncIterator[Rpc]:
    async with open_phone(directory, config=config, agents=("main", "sales")) as phone:
        rpc = PhoneRpc(lambda: phone.operations, phone.seam)
        async with anyio.create_task_group() as tasks:
            rpc.tasks = tasks
            yield Rpc(rpc, phone)
            tasks.cancel_scope.cancel()


def test_reading_needs_less_than_calling() -> None:
    def operations() -> CallOperations:
        raise ConfigError("not here")

    rpc = PhoneRpc(operations, VirtualSeam())
    scopes = {method.name: method.scope for method in rpc.methods()}
    reading = {name for name, scope in scopes.items() if scope == "operator.read"}
    assert {"voicecall.status", "voicecall.continue.result"} <= reading
    for name in ("initiate", "start", "continue", "continue.start", "speak", "dtmf", "end"):
        assert scopes[f"voicecall.{name}"] == "operator.write"


async def test_a_call_is_placed_and_shown(tmp_path: Path) -> None:
    async with open_rpc(tmp_path) as rpc:
        placed = await rpc("initiate", to=CALLEE, message=" Hello. ", mode="conversation")
        assert placed == {"callId": placed["callId"], "initiated": True}
        await rpc.phone.settle()
        for name in ("callId", "sid"):
            status = await rpc("status", **{name: placed["callId"]})
            assert status["found"]
            assert status["call"]["state"] == "initiated"
            assert status["call"]["direction"] == "outbound"
        assert rpc.phone.record.message is not None
        assert rpc.phone.record.message.text == "Hello."
        ended = await rpc("end", callId=placed["callId"])
        assert ended == {"success": True}
        assert await rpc("end", callId=placed["callId"]) == {"success": True}
        status = await rpc("status", callId=placed["callId"])
        assert CALLEE not in repr(status)
        assert await rpc("status", callId="nobody") == {"found": False}
        assert (await rpc("status"))["calls"] == []


async def test_a_call_that_the_carrier_refuses_is_an_error_with_its_reason(tmp_path: Path) -> None:
    async with open_rpc(tmp_path) as rpc:
        refused = RequestRejected("21210: not a number of this account", provider="scripted")
        rpc.phone.carrier.dial_errors.append(refused)
        params = {"to": CALLEE, "message": "Hello.", "idempotencyKey": "once"}
        for _ in range(2):
            with pytest.raises(RequestRejected, match=r"^scripted: 21210: not a number of this"):
                await rpc("initiate", **params)
        assert len(rpc.phone.carrier.dialled) == 1
        assert (await rpc("status"))["calls"] == []
        (record,) = rpc.phone.watcher.ends
        assert record.end_detail is EndDetail.DIAL_FAILED
        assert (await rpc("start", to=CALLEE, mode="conversation"))["initiated"]


async def test_a_carrier_that_does_not_answer_is_waited_for_a_while(tmp_path: Path) -> None:
    async with open_rpc(tmp_path) as rpc:
        rpc.phone.carrier.delay_s = 60.0
        begun = rpc.phone.now()
        assert (await rpc("start", to=CALLEE, mode="conversation"))["initiated"]
        assert rpc.phone.now() - begun == pytest.approx(10_000, abs=100)


async def test_a_call_that_is_taken_up_again_is_not_waited_for(tmp_path: Path) -> None:
    params = {"to": CALLEE, "mode": "conversation", "idempotencyKey": "once"}
    async with open_rpc(tmp_path) as rpc:
        rpc.phone.carrier.delay_s = 5.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(rpc, "start", **params))
            await rpc.phone.settle(1)
            # The gateway dies before the carrier has answered.
            tasks.cancel_scope.cancel()
    async with open_rpc(tmp_path) as rpc:
        begun = rpc.phone.now()
        assert (await rpc("start", **params))["initiated"]
        assert rpc.phone.now() - begun < 100
        assert rpc.phone.carrier.dialled == []


async def test_a_call_of_unknown_outcome_is_no_error(tmp_path: Path) -> None:
    async with open_rpc(tmp_path) as rpc:
        rpc.phone.carrier.dial_errors.append(OutcomeUnknown("who knows", provider="scripted"))
        assert (await rpc("start", to=CALLEE, mode="conversation"))["initiated"]


async def test_an_agent_is_chosen_by_an_administrator_only(tmp_path: Path) -> None:
    async with open_rpc(tmp_path, maxConcurrentCalls=2) as rpc:
        params = {"to": CALLEE, "message": "Hi.", "agentId": "sales"}
        for method in ("start", "initiate"):
            with pytest.raises(MissingScope, match=r"operator\.admin \(for agentId\)"):
                await rpc(method, **params)
        assert rpc.phone.carrier.dialled == []
        admin = RpcCall("connection-1", frozenset({"operator.write", "operator.admin"}))
        placed = await rpc.methods["voicecall.start"].handler(params, admin)
        record = rpc.phone.engine.lanes[placed["callId"]].record
        assert (record.agent_id, record.session_key) == ("sales", "agent:sales:voice:15550001111")
        with pytest.raises(InvalidRequest, match="boss"):
            await rpc.methods["voicecall.start"].handler({**params, "agentId": "boss"}, admin)
        # Blank is absent.
        blank = await rpc("start", **{**params, "agentId": " "})
        assert rpc.phone.engine.lanes[blank["callId"]].record.agent_id == "main"


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("initiate", {"to": CALLEE}, "message is required"),
        ("initiate", {"to": CALLEE, "message": " "}, "message is required"),
        ("initiate", {"message": "Hi."}, "to is required"),
        ("initiate", {"to": 15550001111, "message": "Hi."}, "to must be a string"),
        ("start", {"message": "Hi."}, "to is required"),
        ("start", {"to": CALLEE, "mode": "chat"}, "mode must be notify or conversation"),
        ("continue", {"callId": "x"}, "message is required"),
        ("continue", {"message": "Hi?"}, "callId is required"),
        ("continue.start", {"callId": " ", "message": "Hi?"}, "callId is required"),
        ("continue.result", {}, "operationId is required"),
        ("continue.result", {"operationId": "x"}, "unknown operationId"),
        ("speak", {"callId": "x"}, "message is required"),
        ("dtmf", {"callId": "x"}, "digits is required"),
        ("dtmf", {"callId": "x", "digits": "abc"}, "digits may only contain"),
        ("end", {}, "callId is required"),
    ],
)
async def test_what_is_missing_is_named(
    tmp_path: Path, method: str, params: dict[str, Any], words: str
) -> None:
    async with open_rpc(tmp_path) as rpc:
        with pytest.raises(InvalidRequest, match=words):
            await rpc(method, **params)
        assert rpc.phone.carrier.dialled == []


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("initiate", {"to": CALLEE, "mesage": "Hi."}, "'mesage'; did you mean 'message'?"),
        ("initiate", {"message": "Hi.", "brief": {"task": "x"}}, "'brief'"),
        ("start", {"to": CALLEE, "agentid": "x"}, "'agentid'; did you mean 'agentId'?"),
        ("speak", {"callid": "x", "message": "Hi."}, "'callid'; did you mean 'callId'?"),
        ("continue", {"callId": "x", "text": "Hi?"}, "'text'"),
        ("continue.result", {"id": "x"}, "'id'; did you mean 'operationId'?"),
        ("end", {"callId": "x", "reason": None}, "'reason'"),
        ("status", {"call_id": "x"}, "'call_id'; did you mean 'callId'?"),
        ("pairing.list", {"status": "pending"}, "'status'"),
        ("latency", {"x" * 1_000_000: 1}, f"'{'x' * 64}'"),
    ],
)
async def test_a_parameter_that_a_method_does_not_take_is_refused(
    tmp_path: Path, method: str, params: dict[str, Any], words: str
) -> None:
    async with open_rpc(tmp_path) as rpc:
        with pytest.raises(InvalidRequest) as caught:
            await rpc(method, **params)
        assert str(caught.value) == f"unknown parameter {words}"
        assert rpc.phone.carrier.dialled == []


async def test_a_phone_that_does_not_run_says_what_is_missing(tmp_path: Path) -> None:
    def operations() -> CallOperations:
        raise ConfigError("is required to place calls", path="fromNumber")

    rpc = PhoneRpc(operations, VirtualSeam())
    methods = {method.name: method.handler for method in rpc.methods()}
    with pytest.raises(ConfigError, match="fromNumber"):
        await methods["voicecall.start"]({"to": CALLEE}, WHO)


async def test_speak_keys_and_a_question(tmp_path: Path) -> None:
    async with open_rpc(tmp_path) as rpc:
        await rpc.phone.call_in()
        await rpc.phone.settle(3)
        call = rpc.phone.record.call_id
        assert await rpc("speak", callId=call, message="A word.") == {"success": True}
        # What the clients of OpenClaw send.
        spoken = {"callId": call, "message": "More.", "allowTwimlFallback": False}
        assert await rpc("speak", **spoken) == {"success": True}
        assert await rpc("dtmf", callId=call, digits="1#") == {"success": True}
        assert rpc.phone.socket.digits == ["1#"]
        answers: list[Mapping[str, Any]] = []

        async def ask() -> None:
            answers.append(await rpc("continue", callId=call, message="Your name?"))

        async with anyio.create_task_group() as asking:
            asking.start_soon(ask)
            await rpc.phone.settle(2)
            rpc.phone.hears("Anna.")
        assert answers == [{"success": True, "transcript": "Anna."}]


async def test_a_question_in_two_steps(tmp_path: Path) -> None:
    async with open_rpc(tmp_path) as rpc:
        await rpc.phone.call_in(from_number=CALLER)
        await rpc.phone.settle(3)
        begun = await rpc("continue.start", callId=rpc.phone.record.call_id, message="Your name?")
        operation = begun["operationId"]
        assert begun == {
            "operationId": operation,
            "status": "pending",
            "pollTimeoutMs": 218_000 + len("Your name?") * 125,
        }
        assert await rpc("continue.result", operationId=operation) == begun
        await rpc.phone.settle(2)
        rpc.phone.hears("Anna.")
        await rpc.phone.settle()
        done = await rpc("continue.result", operationId=operation)
        assert done == {
            "operationId": operation,
            "status": "completed",
            "result": {"success": True, "transcript": "Anna."},
        }
        # The answer can be fetched again for a while, even if the wall clock is set.
        await rpc.phone.settle(200)
        rpc.phone.seam.set_wall_clock(3_600_000)
        assert await rpc("continue.result", operationId=operation) == done
        await rpc.phone.settle(200)
        with pytest.raises(InvalidRequest, match="unknown operationId"):
            await rpc("continue.result", operationId=operation)


async def test_a_long_question_in_two_steps_is_waited_for(tmp_path: Path) -> None:
    async with open_rpc(tmp_path, transcriptTimeoutMs=5000, maxDurationSeconds=900) as rpc:
        await rpc.phone.call_in()
        await rpc.phone.settle(3)
        began = rpc.phone.now()
        question = {"callId": rpc.phone.record.call_id, "message": "A word. " * 500}
        state = await rpc("continue.start", **question)
        longest_ms = state["pollTimeoutMs"]
        while state["status"] == "pending":
            await rpc.phone.settle(1)
            state = await rpc("continue.result", operationId=state["operationId"])
        assert state["error"] == "Timed out waiting for transcript after 5000ms"
        assert 60_000 < rpc.phone.now() - began < longest_ms


async def test_a_question_has_the_time_of_a_changed_configuration(tmp_path: Path) -> None:
    async with open_rpc(tmp_path) as rpc:
        await rpc.phone.call_in()
        await rpc.phone.settle(3)
        call = rpc.phone.record.call_id
        before = await rpc("continue.start", callId=call, message="Your name?")
        await rpc.phone.settle(2)
        rpc.phone.hears("Anna.")
        await rpc.phone.settle()
        config = rpc.phone.config.model_copy(update={"transcript_timeout_ms": 600_000})
        rpc.phone.engine.reconfigure(config, "main", one_for_all=False)
        then = await rpc("continue.start", callId=call, message="Your name?")
        assert then["pollTimeoutMs"] - before["pollTimeoutMs"] == 420_000


async def test_a_question_in_two_steps_that_fails(tmp_path: Path) -> None:
    async with open_rpc(tmp_path) as rpc:
        with pytest.raises(CallNotFound):
            await rpc("continue.start", callId="nobody", message="Your name?")
        await rpc.phone.call_in()
        await rpc.phone.settle(3)
        call = rpc.phone.record.call_id
        first = await rpc("continue.start", callId=call, message="Your name?")
        await rpc.phone.settle(1)
        # Before an id is given out.
        carrier_id = rpc.phone.record.aliases[0]
        for id_ in (call, carrier_id):
            with pytest.raises(CallNotReady, match="Already waiting for transcript"):
                await rpc("continue.start", callId=id_, message="Your age?")
        await rpc.phone.hang_up()
        failed = await rpc("continue.result", operationId=first["operationId"])
        assert failed["status"] == "failed"
        assert failed["error"] == "Call ended: hangup-user"


async def test_two_questions_in_two_steps_at_the_same_time(tmp_path: Path) -> None:
    async with open_rpc(tmp_path) as rpc:
        await rpc.phone.call_in()
        await rpc.phone.settle(3)
        call = rpc.phone.record.call_id
        first, second = [
            await rpc("continue.start", callId=call, message=text) for text in ("Name?", "Age?")
        ]
        await rpc.phone.settle(2)
        failed = await rpc("continue.result", operationId=second["operationId"])
        assert (failed["status"], failed["error"]) == ("failed", "Already waiting for transcript")
        rpc.phone.hears("Anna.")
        await rpc.phone.settle()
        done = await rpc("continue.result", operationId=first["operationId"])
        assert done["result"] == {"success": True, "transcript": "Anna."}
        # And then there is room for the next one.
        again = await rpc("continue.start", callId=call, message="Age?")
        assert again["status"] == "pending"
        await rpc.phone.settle(2)
        await rpc.phone.hang_up()


class Broken:
    """Operations whose questions fail with an unexpected error."""

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    async def check_ask(self, call_id: str, message: str) -> int:
        return 1000

    async def ask(self, call_id: str, message: str) -> str:
        if self._error is not None:
            raise self._error
        await anyio.sleep_forever()
        raise AssertionError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("no such phrase"), "internal error"),
        (SystemExit(3), "internal error"),
        (None, "the phone was stopped"),
    ],
)
async def test_a_question_in_two_steps_fails_alone_and_is_never_left_open(
    error: BaseException | None, told: str
) -> None:
    operations: Any = Broken(error)
    rpc = PhoneRpc(lambda: operations, VirtualSeam())
    methods = {method.name: method.handler for method in rpc.methods()}
    async with anyio.create_task_group() as tasks:
        rpc.tasks = tasks
        asked = {"callId": "c-1", "message": "Your name?"}
        begun = await methods["voicecall.continue.start"](asked, WHO)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    operation = {"operationId": begun["operationId"]}
    state = await methods["voicecall.continue.result"](operation, WHO)
    assert state == {**operation, "status": "failed", "error": told}


async def test_times_of_turns_are_reported(tmp_path: Path) -> None:
    async with open_rpc(tmp_path) as rpc:
        await rpc.phone.call_in()
        await rpc.phone.settle(3)
        rpc.phone.agent.then(0.4, "Yes.")
        rpc.phone.hears("Hello?")
        await rpc.phone.settle(3)
        report = await rpc("latency")
        assert report["recordsScanned"] == 2
        assert report["turnLatency"]["count"] == 1
        assert report["turnLatency"]["p50Ms"] == pytest.approx(400, abs=5)
        with pytest.raises(InvalidRequest, match="last"):
            await rpc("latency", last=0)


async def test_how_many_questions_wait_depends_on_the_calls_only(tmp_path: Path) -> None:
    async with open_rpc(tmp_path, transcriptTimeoutMs=5000) as rpc:
        await rpc.phone.call_in()
        await rpc.phone.settle(3)
        with pytest.raises(CallNotReady, match="Timed out"):
            await rpc("continue", callId=rpc.phone.record.call_id, message="Your name?")
