"""``POST /tools/invoke``: who may use which tool, and the answer to every mistake."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.websockets import WebSocket

from voicecall.errors import CallNotFound, ConfigError, PluginError, ProviderUnavailable
from voicecall.hosting import ToolCall, ToolSpec
from voicecall.seam import SystemSeam
from voicecall_gateway import throttle, toolhttp
from voicecall_gateway.rpc import RpcServer
from voicecall_gateway.throttle import Throttle

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

SCHEMA = {
    "type": "object",
    "properties": {"action": {"enum": ["call", "end"]}, "to": {"type": "string"}},
    "required": ["action"],
}


class ToolBox:
    """Tools that record how they were used."""

    def __init__(self) -> None:
        self.used: list[tuple[Mapping[str, Any], ToolCall]] = []
        self.outcome: Any = {"done": True}
        self.gate: anyio.Event | None = None
        self.entered = anyio.Event()

    async def handle(self, arguments: Mapping[str, Any], call: ToolCall) -> Any:
        self.used.append((arguments, call))
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def specs(self) -> list[ToolSpec]:
        return [
            ToolSpec("phone", "Calls", SCHEMA, self.handle),
            ToolSpec("other", "Anything", {"type": "object"}, self.handle),
        ]


@asynccontextmanager
async def opened(
    lab: Any, fake_plugin: Any, box: ToolBox, **section: Any
) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    gateway = lab.gateway(fake_plugin("p"), tree={"gateway": section})
    for spec in box.specs():
        gateway.host.register_tool(spec)
    async with gateway.run():
        await gateway.wait_started()
        headers = {"Authorization": f"Bearer {lab.token}"}
        async with httpx.AsyncClient(
            trust_env=False, base_url=gateway.url, headers=headers
        ) as client:
            yield gateway, client


async def post(client: httpx.AsyncClient, body: Any, **options: Any) -> tuple[int, Any]:
    response = await client.post("/tools/invoke", json=body, **options)
    return response.status_code, response.json()


async def test_a_tool_is_used(lab: Any, fake_plugin: Any) -> None:
    box = ToolBox()
    async with opened(lab, fake_plugin, box) as (_, client):
        body = {
            "tool": "nobody",
            "name": "phone",
            "action": "call",
            "args": {"action": "end", "to": "x"},
            "sessionKey": "s",
            "agentId": "a",
            "idempotencyKey": "i",
        }
        assert await post(client, body) == (200, {"ok": True, "result": {"done": True}})
        arguments, call = box.used.pop()
        assert arguments == {"action": "call", "to": "x"}
        assert (call.session_key, call.agent_id, call.idempotency_key) == ("s", "a", "i")
        assert "operator.admin" in call.scopes
        dry = await post(client, {**body, "dryRun": True})
        assert dry == (
            200,
            {
                "ok": True,
                "result": {
                    "dryRun": True,
                    "tool": "phone",
                    "args": {"action": "call", "to": "x"},
                },
            },
        )
        assert box.used == []


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        ({}, 400, "invalid_request", "tool is required"),
        ([], 400, "invalid_request", "body: "),
        ({"tool": "phone", "arg": {}}, 400, "invalid_request", "arg: "),
        ({"tool": "phone", "args": []}, 400, "invalid_request", "args: "),
        ({"tool": "phone"}, 400, "invalid_request", "args: 'action' is a required property"),
        ({"tool": "phone", "action": "fly"}, 400, "invalid_request", "args.action: 'fly'"),
        ({"tool": "nobody"}, 404, "not_found", "tool not available: nobody"),
        ({"tool": "other"}, 404, "not_found", "tool not available: other"),
    ],
)
async def test_requests_that_are_refused(
    lab: Any, fake_plugin: Any, body: Any, status: int, kind: str, words: str
) -> None:
    box = ToolBox()
    async with opened(lab, fake_plugin, box, tools={"deny": ["other"]}) as (_, client):
        got, answer = await post(client, body)
    assert (got, answer["ok"], answer["error"]["type"]) == (status, False, kind)
    assert words in answer["error"]["message"]
    assert box.used == []


async def test_what_json_alone_can_carry(lab: Any, fake_plugin: Any) -> None:
    box = ToolBox()
    async with opened(lab, fake_plugin, box) as (_, client):

        async def send(arguments: str) -> tuple[int, Any]:
            body = f'{{"tool": "other", "args": {arguments}, "dryRun": true}}'
            response = await client.post("/tools/invoke", content=body)
            return response.status_code, response.json()

        status, answer = await send('{"half": "\\ud83d"}')
        assert (status, answer["result"]["args"]) == (200, {"half": "\ud83d"})
        status, answer = await send('{"number": NaN}')
        assert (status, answer["error"]["message"]) == (400, "the body is not valid JSON")
        for number in ("1e999", "-1e999", f"1{'0' * 400}.5"):
            status, answer = await send(f'{{"a": [{number}]}}')
            message = f"the number {number[:32]} is too large"
            error = {"type": "invalid_request", "message": message}
            assert (status, answer) == (400, {"ok": False, "error": error})
        status, answer = await send('{"a": [1e308, 1e-999]}')
        assert (status, answer["result"]["args"]) == (200, {"a": [1e308, 0.0]})
        box.outcome = {"said": "\ud83d"}
        answer = await post(client, {"tool": "other"})
        assert answer == (200, {"ok": True, "result": {"said": "\ud83d"}})


async def test_arguments_are_written_or_refused_however_deep_they_are(
    lab: Any, fake_plugin: Any
) -> None:
    box = ToolBox()
    refused = {"type": "invalid_request", "message": "the body is nested too deeply"}
    async with opened(lab, fake_plugin, box) as (_, client):
        seen = set()
        # Around the depth that Python's stack allows, and beyond any.
        for depth in (1, *range(850, 1010, 2), 100_000):
            arguments = f'{{"a": {"[" * depth}{"]" * depth}}}'
            body = f'{{"tool": "other", "args": {arguments}, "dryRun": true}}'
            response = await client.post("/tools/invoke", content=body)
            seen.add(response.status_code)
            if response.status_code == 400:
                assert response.json() == {"ok": False, "error": refused}
    assert seen == {200, 400}


@pytest.mark.parametrize(
    ("outcome", "status", "kind", "message"),
    [
        (CallNotFound("x"), 400, "tool_error", "call not found: x"),
        (ConfigError("fromNumber is required"), 500, "tool_error", "fromNumber is required"),
        (KeyError("sesame"), 500, "internal_error", "the tool failed, see the log"),
        (SystemExit(2), 500, "internal_error", "the tool failed, see the log"),
        (object(), 500, "internal_error", "the tool failed, see the log"),
        (float("nan"), 500, "internal_error", "the tool failed, see the log"),
    ],
)
async def test_tools_that_fail(
    lab: Any,
    fake_plugin: Any,
    caplog: pytest.LogCaptureFixture,
    outcome: Any,
    status: int,
    kind: str,
    message: str,
) -> None:
    box = ToolBox()
    box.outcome = outcome
    async with opened(lab, fake_plugin, box) as (_, client):
        answer = await post(client, {"tool": "other"})
    assert answer == (status, {"ok": False, "error": {"type": kind, "message": message}})
    assert ("the tool other failed" in caplog.text) is (kind == "internal_error")


@pytest.mark.parametrize(
    "schema",
    [{"type": "text"}, {"$ref": "#/nowhere"}, {"properties": {"to": {"pattern": "("}}}, None],
)
async def test_parameters_that_are_no_schema_are_the_tools_fault(
    lab: Any, fake_plugin: Any, caplog: pytest.LogCaptureFixture, schema: Any
) -> None:
    box = ToolBox()
    async with opened(lab, fake_plugin, box) as (gateway, client):
        gateway.host.register_tool(ToolSpec("odd", "Odd", schema, box.handle))
        status, answer = await post(client, {"tool": "odd", "args": {"to": "x"}})
    error = {"type": "internal_error", "message": "the tool failed, see the log"}
    assert (status, answer) == (500, {"ok": False, "error": error})
    assert "the parameters of the tool odd are not a valid JSON schema" in caplog.text
    assert box.used == []


async def test_an_error_quotes_no_credential(lab: Any, fake_plugin: Any) -> None:
    box = ToolBox()
    box.outcome = ProviderUnavailable("wrong key sk-123456", provider="acme")
    async with opened(lab, fake_plugin, box) as (gateway, client):
        gateway.loaded.secrets.resolve({"apiKey": "sk-123456"}, "acme")
        _, answer = await post(client, {"tool": "other"})
    assert answer["error"]["message"] == "acme: wrong key ***"


async def test_who_may_use_tools(lab: Any, fake_plugin: Any) -> None:
    box = ToolBox()
    async with opened(lab, fake_plugin, box) as (_, client):
        for wrong in ("", "Bearer", "Bearer wrong", f"Basic {lab.token}"):
            response = await client.post(
                "/tools/invoke", json={"tool": "other"}, headers={"Authorization": wrong}
            )
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
            assert response.json()["error"]["type"] == "unauthorized"
        foreign = {"Origin": "https://example.com"}
        assert (await post(client, {"tool": "other"}, headers=foreign))[0] == 403
        assert (await client.get("/tools/invoke")).status_code == 405
    assert box.used == []
    async with opened(lab, fake_plugin, box, auth={"mode": "none"}) as (_, client):
        del client.headers["Authorization"]
        assert (await post(client, {"tool": "other"}))[0] == 200
        assert (await post(client, {"tool": "other"}, headers=foreign))[0] == 403


async def test_bodies_are_bounded(
    lab: Any, fake_plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1024 * 1024

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await anyio.sleep(0.5)

    box = ToolBox()
    async with opened(lab, fake_plugin, box) as (_, client):

        async def send(content: Any) -> int:
            return (await client.post("/tools/invoke", content=content)).status_code

        assert await send(b"x" * (toolhttp.MAX_BODY + 1)) == 413
        assert await send(chunks()) == 413
        assert await send(b"{") == 400
        assert await send(b"[" * 100_000) == 400
        assert await send(b"\xff") == 400
        monkeypatch.setattr(toolhttp, "BODY_SECONDS", 0.05)
        assert await send(slow()) == 408


@pytest.mark.parametrize("behind", [False, True])
async def test_heads_and_what_comes_behind_them_are_bounded(lab: Any, behind: bool) -> None:
    gateway = lab.gateway()
    async with gateway.run():
        port = int(gateway.url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"POST /tools/invoke HTTP/1.1\r\nhost: a\r\n")
            if behind:
                await stream.send(b"transfer-encoding: chunked\r\n\r\n0\r\n")
                assert (await stream.receive()).startswith(b"HTTP/1.1 401 ")
            sent, headers = 0, b"a:\r\n" * 16_000
            with suppress(anyio.BrokenResourceError):
                while sent < 16_000_000:
                    await stream.send(headers)
                    sent += len(headers)
            assert sent < 16_000_000


async def test_a_head_that_does_not_come_is_not_waited_for(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicecall_gateway.server.HEAD_SECONDS", 0.1)
    gateway = lab.gateway()
    async with gateway.run():
        port = int(gateway.url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"GET /healthz HTTP/1.1\r\n")
            with anyio.fail_after(5):
                assert (await stream.receive()).startswith(b"HTTP/1.1 408 ")


async def test_a_stop_waits_for_a_tool_and_takes_no_other(lab: Any, fake_plugin: Any) -> None:
    box = ToolBox()
    gate = box.gate = anyio.Event()
    answers: list[tuple[int, Any]] = []
    with anyio.fail_after(30):
        async with (
            anyio.create_task_group() as tasks,
            opened(lab, fake_plugin, box, drainSeconds=60) as (gateway, client),
        ):

            async def use() -> None:
                async with httpx.AsyncClient(
                    trust_env=False, base_url=gateway.url, headers=client.headers
                ) as own:
                    answers.append(await post(own, {"tool": "other"}))

            tasks.start_soon(use)
            await box.entered.wait()
            # Leaving the block drains the gateway; the tool ends only after that has begun.
            tasks.start_soon(_open_later, gateway, gate)
    assert answers == [(200, {"ok": True, "result": {"done": True}})]


async def _open_later(gateway: Any, gate: anyio.Event) -> None:
    await gateway.wait_stop_requested()
    await anyio.sleep(0.05)
    gate.set()


async def test_at_most_so_many_at_once(
    lab: Any, fake_plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolhttp, "MAX_IN_FLIGHT", 1)
    box = ToolBox()
    gate = box.gate = anyio.Event()
    async with opened(lab, fake_plugin, box) as (_, client), anyio.create_task_group() as tasks:
        tasks.start_soon(post, client, {"tool": "other"})
        await box.entered.wait()
        response = await client.post("/tools/invoke", json={"tool": "other"})
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
        gate.set()


async def test_requests_whose_bodies_come_late_are_counted_too(
    lab: Any, fake_plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolhttp, "MAX_IN_FLIGHT", 1)
    box = ToolBox()
    gate = box.gate = anyio.Event()
    statuses: list[int] = []
    whole = anyio.Event()

    async def late() -> AsyncIterator[bytes]:
        yield b'{"tool": '
        await whole.wait()
        yield b'"other"}'

    async with opened(lab, fake_plugin, box) as (_, client):

        async def use() -> None:
            response = await client.post("/tools/invoke", content=late())
            statuses.append(response.status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(use)
            await anyio.sleep(0.1)
            whole.set()
            while len(statuses) < 2:
                await anyio.sleep(0.005)
            gate.set()
    assert (statuses, len(box.used)) == ([429, 429, 200], 1)


async def test_a_name_is_taken_once(lab: Any) -> None:
    host = lab.gateway().host
    spec = ToolBox().specs()[0]
    host.register_tool(spec)
    with pytest.raises(PluginError, match="'phone' is registered twice"):
        host.register_tool(spec)


# --- who tries tokens -------------------------------------------------------------------------


class Clock(SystemSeam):
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


async def test_wrong_tokens_are_slowed_down() -> None:
    clock = Clock()
    limit = Throttle(clock)
    for _ in range(throttle.FAILURES):
        assert limit.wait("192.0.2.1") == 0
        limit.failed("192.0.2.1")
    assert limit.wait("192.0.2.1") == throttle.WINDOW_SECONDS
    assert limit.wait("192.0.2.2") == 0
    clock.now += 59.5
    assert limit.wait("192.0.2.1") == 1
    clock.now += 0.5
    assert limit.wait("192.0.2.1") == 0


async def test_this_machine_is_never_locked_out_and_memory_is_bounded() -> None:
    limit = Throttle(Clock())
    for _ in range(throttle.FAILURES):
        limit.failed("127.0.0.1")
        limit.failed("192.0.2.1")
        limit.failed("not an address")
    assert (limit.wait("127.0.0.1"), limit.wait("not an address")) == (0, 0)
    assert limit.wait("192.0.2.1") > 0
    for number in range(throttle.MAX_CLIENTS):
        limit.failed(f"198.51.{number // 256}.{number % 256}")
    assert limit.wait("192.0.2.1") == 0


async def test_wrong_tokens_over_http_count_for_their_address(lab: Any) -> None:
    clock = Clock()
    endpoint = toolhttp.ToolEndpoint(
        lab.gateway().host,
        token="right",
        throttle=Throttle(clock),
        bind="0.0.0.0",
        denied=lambda name: False,
    )
    app = Starlette(routes=[Route("/tools/invoke", endpoint.answer, methods=["POST"])])

    async def tried(token: str, address: str = "192.0.2.1") -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(address, 5000))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            headers = {"authorization": f"Bearer {token}"}
            return await client.post("/tools/invoke", json={"tool": "none"}, headers=headers)

    for _ in range(throttle.FAILURES):
        assert (await tried("wrong")).status_code == 401
    answer = await tried("right")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert (await tried("right", "192.0.2.2")).status_code == 404
    clock.now += 60
    assert (await tried("right")).status_code == 404


async def test_wrong_tokens_of_both_doors_count_together(lab: Any, connect_params: Any) -> None:
    clock = Clock()
    limit = Throttle(clock)
    host = lab.gateway().host

    async def tried(tasks: anyio.abc.TaskGroup, token: str) -> tuple[Any, int | None]:
        """The answer to ``connect`` from an address of the network, and how the socket closed."""
        rpc = RpcServer(host, tasks, token="right", throttle=limit, version="1", absent=list)
        params = {**connect_params, "auth": {"token": token}}
        frame = json.dumps({"type": "req", "id": "1", "method": "connect", "params": params})
        coming = [
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": frame},
            {"type": "websocket.disconnect", "code": 1000},
        ]
        sent: list[Any] = []

        async def receive() -> Any:
            return coming.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "headers": [], "client": ("192.0.2.1", 5000)}
        await rpc.serve(WebSocket(scope, receive, send))
        answer = next(m for m in map(_frame, sent) if m.get("type") == "res")
        return answer, next((m["code"] for m in sent if m["type"] == "websocket.close"), None)

    async with anyio.create_task_group() as tasks:
        for _ in range(throttle.FAILURES - 1):
            limit.failed("192.0.2.1")
        assert (await tried(tasks, "right"))[0]["ok"]
        answer, code = await tried(tasks, "wrong")
        assert (answer["error"]["details"]["code"], code) == ("AUTH_TOKEN_MISMATCH", 1008)
        answer, code = await tried(tasks, "right")
        assert (answer["error"]["details"]["code"], code) == ("AUTH_RATE_LIMITED", 1008)
        assert answer["error"]["message"] == "unauthorized: too many wrong tokens, wait 60 s"
        clock.now += 60
        assert (await tried(tasks, "right"))[0]["ok"]


def _frame(message: Mapping[str, Any]) -> Any:
    return json.loads(message.get("text", "{}"))
