"""A client written from docs/reference/rpc.md alone, against a gateway in another process."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .lab.process import Home

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "rpc.md").read_text(encoding="utf-8")
PHONE = "+15555550123"
PATIENCE_S = 60
RANKS = ["read", "write", "admin"]
LIVE = {"initiated", "ringing", "answered", "active", "speaking", "listening"}
CALL_KEYS = {
    "callId",
    "providerCallId",
    "provider",
    "direction",
    "state",
    "startedAt",
    "answeredAt",
    "endedAt",
    "endReason",
    "endDetail",
}
LONG = "This is a rather long sentence that takes a while until all of it was heard. " * 3


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, without its head."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


METHODS = {name: scope for name, scope, _ in table("Methods")}
PARAMETERS = [row for row in table("Parameters") if row[2].startswith("string")]
EVENTS = {row[0] for row in table("Events")}


class Refused(Exception):
    def __init__(self, error: dict[str, Any]) -> None:
        self.code: str = error["code"]
        self.message: str = error["message"]
        self.details: dict[str, Any] = error.get("details", {})
        super().__init__(f"{self.code}: {self.message}")


class Client:
    """Concurrent requests, with events in a list."""

    def __init__(self, socket: ClientConnection) -> None:
        self.hello: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        self._socket = socket
        self._last = 0
        self._waiting: dict[str, tuple[anyio.Event, list[dict[str, Any]]]] = {}

    async def read(self) -> None:
        with suppress(ConnectionClosed):
            async for text in self._socket:
                frame = json.loads(text)
                if frame["type"] == "event":
                    assert set(frame) <= {"type", "event", "payload", "seq"}
                    self.events.append(frame)
                    continue
                assert frame["type"] == "res"
                arrived, frames = self._waiting.pop(frame["id"])
                frames.append(frame)
                arrived.set()

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        request_id = str(self._last)
        request = {"type": "req", "id": request_id, "method": method, "params": params}
        return await self.send(request)

    async def send(self, request: dict[str, Any]) -> dict[str, Any]:
        arrived = anyio.Event()
        frames: list[dict[str, Any]] = []
        self._waiting[request["id"]] = arrived, frames
        await self._socket.send(json.dumps(request))
        with anyio.fail_after(PATIENCE_S):
            await arrived.wait()
        [frame] = frames
        if not frame["ok"]:
            assert set(frame["error"]) <= {"code", "message", "details", "retryable"}
            raise Refused(frame["error"])
        payload: dict[str, Any] = frame["payload"]
        return payload

    async def refused(self, method: str, **params: Any) -> Refused:
        with pytest.raises(Refused) as caught:
            await self.call(method, **params)
        return caught.value

    async def state(self, call_id: str, *wanted: str) -> dict[str, Any]:
        """Ask for a call until it is in one of the states."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                answer = await self.call("voicecall.status", callId=call_id)
                call: dict[str, Any] = answer["call"]
                if call["state"] in wanted:
                    return call
                await anyio.sleep(0.05)

    async def event(self, name: str, **payload: Any) -> dict[str, Any]:
        """Wait for an event with these members."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                for frame in self.events:
                    found: dict[str, Any] = frame["payload"]
                    if frame["event"] == name and payload.items() <= found.items():
                        return found
                await anyio.sleep(0.02)


class Server:
    def __init__(self, home: Home) -> None:
        self.home = home
        self.http = home.url
        self.url = home.url.replace("http", "ws", 1) + "/rpc"
        self.token = (home.state_dir / "gateway-token").read_text(encoding="utf-8").strip()

    def hello(self, *scopes: str, **changes: Any) -> dict[str, Any]:
        params = {
            "minProtocol": 4,
            "maxProtocol": 4,
            "client": {"id": "reader", "version": "1", "platform": "any", "mode": "backend"},
            "role": "operator",
            "scopes": [f"operator.{scope}" for scope in scopes],
            "auth": {"token": self.token},
        }
        return {"type": "req", "id": "hello", "method": "connect", "params": {**params, **changes}}

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[ClientConnection]:
        """A socket after its challenge."""
        async with connect(self.url, proxy=None) as socket:
            challenge = json.loads(await socket.recv())
            assert challenge["event"] == "connect.challenge"
            assert set(challenge["payload"]) == {"nonce", "ts"}
            yield socket

    @asynccontextmanager
    async def client(self, *scopes: str) -> AsyncIterator[Client]:
        async with self.raw() as socket, anyio.create_task_group() as tasks:
            client = Client(socket)
            tasks.start_soon(client.read)
            client.hello = await client.send(self.hello(*(scopes or RANKS)))
            yield client
            tasks.cancel_scope.cancel()

    async def post(self, body: Any, *, token: str | None = "", **more: Any) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token or self.token}"}
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
            url = f"{self.http}/tools/invoke"
            return await client.post(url, json=body, headers=headers, **more)

    async def tool(self, action: str, **arguments: Any) -> dict[str, Any]:
        """``details`` of the tool's result."""
        reply = await self.post({"tool": "voice_call", "action": action, "args": arguments})
        assert reply.status_code == 200, reply.text
        result = reply.json()["result"]
        assert json.loads(result["content"][0]["text"]) == result["details"]
        assert result.get("isError", False) == ("error" in result["details"])
        details: dict[str, Any] = result["details"]
        return details


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = Home(tmp_path_factory.mktemp("home"))
    hold = {"outbound": {"notifyHangupDelaySec": 0}}
    phone = {"serve": {"port": 0}, "toNumber": PHONE, **hold}
    home.configure({"plugins": {"entries": {"voice-call": {"config": phone}}}})
    with home.gateway():
        yield Server(home)


# --- what the page promises ---------------------------------------------------------------------


async def test_hello_is_as_described(server: Server) -> None:
    async with server.client("write") as client:
        hello = client.hello
        assert (hello["type"], hello["protocol"]) == ("hello-ok", 4)
        assert hello["features"]["methods"] == sorted(METHODS)
        assert {"tick", "shutdown"} <= set(hello["features"]["events"])
        assert set(hello["features"]["events"]) - {"connect.challenge"} <= EVENTS
        assert hello["auth"] == {"role": "operator", "scopes": ["operator.read", "operator.write"]}
        assert hello["policy"] == {
            "maxPayload": 1048576,
            "maxBufferedBytes": 52428800,
            "tickIntervalMs": 15000,
        }
        assert set(hello["server"]) == {"version", "connId"}


async def test_every_method_asks_for_the_scope_of_the_table(server: Server) -> None:
    async with server.client("nobody") as client:
        assert client.hello["auth"]["scopes"] == []
        error = await client.refused("voicecall.status")
        assert error.details["missingScope"] == "operator.read"
    for scope in RANKS:
        async with server.client(scope) as client:
            for method, needed in METHODS.items():
                if RANKS.index(needed) <= RANKS.index(scope):
                    continue
                error = await client.refused(method)
                assert (error.code, error.message) == (
                    "FORBIDDEN",
                    f"missing scope: operator.{needed}",
                )
                assert error.details == {
                    "code": "MISSING_SCOPE",
                    "missingScope": f"operator.{needed}",
                    "requiredScopes": [f"operator.{needed}"],
                }


async def test_every_parameter_is_checked_as_the_table_says(server: Server) -> None:
    required = {(row[0], row[1]) for row in PARAMETERS if "required" in row[2]}
    assert len(required) > 10
    async with server.client() as client:
        for method, name, *_ in PARAMETERS:
            params: dict[str, Any] = {key: "x" for one, key in required if one == method}
            error = await client.refused(method, **{**params, name: 5})
            assert (error.code, error.message) == ("INVALID_REQUEST", f"{name} must be a string")
        for method, name in required:
            params = {key: "x" for one, key in required if one == method and key != name}
            for blank in ({}, {name: None}, {name: "  "}):
                error = await client.refused(method, **params, **blank)
                assert (error.code, error.message) == ("INVALID_REQUEST", f"{name} is required")
        for last in (0, "x", 1.5, True):
            error = await client.refused("voicecall.latency", last=last)
            assert "last must be" in error.message


# --- everything the commands do -----------------------------------------------------------------


async def test_a_conversation(server: Server) -> None:
    async with server.client("write") as client:
        opening = {"to": PHONE, "message": "Hello there.", "mode": "conversation"}
        answer = await client.call("voicecall.start", **opening, idempotencyKey="once")
        call_id = answer["callId"]
        assert answer == {"callId": call_id, "initiated": True}
        assert await client.call("voicecall.start", **opening, idempotencyKey="once") == answer
        error = await client.refused("voicecall.initiate", message="Me too.")
        assert error.message == "Maximum concurrent calls (1) reached"
        call = await client.state(call_id, "listening")
        assert set(call) <= CALL_KEYS
        ours = {"callId": call_id}

        asked = await client.call("voicecall.continue", **ours, message="How are you?")
        assert asked["success"] is True
        assert asked["transcript"]
        assert await client.call("voicecall.speak", **ours, message="Fine.") == {"success": True}
        assert await client.call("voicecall.dtmf", **ours, digits="1w2#") == {"success": True}
        error = await client.refused("voicecall.dtmf", **ours, digits="A")
        assert error.code == "INVALID_REQUEST"

        started = await client.call("voicecall.continue.start", **ours, message=LONG)
        assert set(started) == {"operationId", "status", "pollTimeoutMs"}
        assert started["status"] == "pending"
        error = await client.refused("voicecall.continue", **ours, message="And?")
        assert (error.code, error.message) == ("INVALID_REQUEST", "Already waiting for transcript")
        operation = {"operationId": started["operationId"]}
        with anyio.fail_after(PATIENCE_S):
            while (result := await client.call("voicecall.continue.result", **operation))[
                "status"
            ] == "pending":
                await anyio.sleep(0.05)
        assert result == {
            **operation,
            "status": "completed",
            "result": {"success": True, "transcript": result["result"]["transcript"]},
        }
        assert await client.call("voicecall.continue.result", **operation) == result

        [live] = (await client.call("voicecall.status"))["calls"]
        assert live["callId"] == call_id
        assert live["state"] in LIVE
        by_carrier = await client.call("voicecall.status", sid=live["providerCallId"])
        assert by_carrier["call"]["callId"] == call_id

        assert await client.call("voicecall.end", **ours) == {"success": True}
        assert await client.call("voicecall.end", **ours) == {"success": True}
        over = (await client.call("voicecall.status", **ours))["call"]
        assert (over["state"], over["endReason"]) == ("hangup-bot", "hangup-bot")
        assert over["endDetail"] == "requested"

        for method, more in (("speak", {"message": "x"}), ("dtmf", {"digits": "1"})):
            error = await client.refused(f"voicecall.{method}", **ours, **more)
            assert error.code == "INVALID_REQUEST"
            assert "call is not active" in error.message
        for method in ("continue", "continue.start"):
            error = await client.refused(f"voicecall.{method}", **ours, message="x")
            assert "call is not active" in error.message

        ended = await client.event("voicecall.ended")
        assert ended["call"] == over
        assert PHONE not in json.dumps(ended)
        heard = await client.event("voicecall.transcript", callId=call_id, speaker="user")
        assert set(heard) == {"callId", "at", "speaker", "text", "complete"}
        turn = await client.event("voicecall.turn", callId=call_id, kind="continue")
        keys = {"callId", "turnId", "kind", "latencyMs", "bargeInStopMs", "filler", "failed"}
        assert set(turn) == keys
        opened = await client.event("voicecall.call", event="CallOpened")
        assert opened["call"]["callId"] == call_id
        numbers = [frame["seq"] for frame in client.events]
        assert numbers == list(range(1, len(numbers) + 1))

        report = await client.call("voicecall.latency", last=50)
        assert report.pop("recordsScanned") >= 2
        assert all(isinstance(report.pop(name), int) for name in ("failedTurns", "fillers"))
        assert set(report) == {
            "turnLatency",
            "listenWait",
            "agentFirstToken",
            "speechFirstByte",
            "bargeInStop",
        }
        series = {"count", "minMs", "maxMs", "avgMs", "p50Ms", "p90Ms", "p95Ms", "p99Ms"}
        assert all(set(values) == series for values in report.values())


async def test_a_notice(server: Server) -> None:
    async with server.client("write") as client:
        call_id = (await client.call("voicecall.initiate", message="Dinner is ready."))["callId"]
        error = await client.refused("voicecall.start", to=PHONE)
        assert "message is required" in error.message
        over = await client.state(call_id, "hangup-bot")
        assert over["endDetail"] == "notified"


async def test_the_program_of_the_page(server: Server) -> None:
    [program] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    command = [sys.executable, "-c", program]
    with anyio.fail_after(PATIENCE_S):
        done = await anyio.run_process(command, env=server.home.environ, check=False)
    assert (done.stderr, done.stdout) == (b"", b"hangup-bot\n")


async def test_pairing_and_the_gateway_itself(server: Server) -> None:
    async with server.client("admin") as client:
        assert await client.call("voicecall.pairing.list") == {"callers": []}
        approved = (await client.call("voicecall.pairing.approve", caller=PHONE))["caller"]
        assert set(approved) == {"number", "status", "code", "at", "expiresAt"}
        assert (approved["number"], approved["status"]) == (PHONE, "approved")
        assert await client.call("voicecall.pairing.list") == {"callers": [approved]}
        revoked = (await client.call("voicecall.pairing.revoke", number=PHONE))["caller"]
        assert revoked["status"] == "revoked"
        error = await client.refused("voicecall.pairing.approve", caller="000000")
        assert "no caller waits with the code" in error.message
        error = await client.refused("voicecall.pairing.revoke", number="+15550007777")
        assert "is neither approved nor waiting" in error.message

        status = await client.call("gateway.status")
        described = next(row[2] for row in table("Methods") if row[0] == "gateway.status")
        assert set(status) == set(re.findall(r"\w+", described))
        assert (status["ready"], status["reasons"]) == (True, [])
        assert await client.call("gateway.reload") == {"applied": [], "waiting": []}


# --- refusals -----------------------------------------------------------------------------------


async def test_requests_that_are_refused(server: Server) -> None:
    async with server.client() as client:
        error = await client.refused("voicecall.sing")
        assert (error.code, error.message) == ("INVALID_REQUEST", "unknown method: voicecall.sing")
        for method in ("continue", "continue.start", "speak"):
            error = await client.refused(f"voicecall.{method}", callId="nobody", message="x")
            assert (error.code, error.message) == ("INVALID_REQUEST", "call not found: nobody")
        error = await client.refused("voicecall.dtmf", callId="nobody", digits="1")
        assert "call not found" in error.message
        assert "call not found" in (await client.refused("voicecall.end", callId="nobody")).message
        assert await client.call("voicecall.status", callId="nobody") == {"found": False}
        error = await client.refused("voicecall.continue.result", operationId="nobody")
        assert error.message == "unknown operationId"
        error = await client.refused("voicecall.start", to="12", message="x")
        assert "to must be a phone number" in error.message
        error = await client.refused("voicecall.start", to=PHONE, message="x", mode="shout")
        assert "mode must be" in error.message
        error = await client.refused("voicecall.start", to=PHONE, message="x", dtmfSequence="1")
        assert "dtmfSequence requires conversation mode" in error.message
        frame = {"type": "req", "id": "odd", "method": "voicecall.status", "surprise": 1}
        with pytest.raises(Refused, match="INVALID_REQUEST: invalid frame: surprise"):
            await client.send(frame)


@pytest.mark.parametrize(
    ("changes", "code", "words", "details"),
    [
        ({"auth": {}}, "FORBIDDEN", "gateway token missing", {"code": "AUTH_TOKEN_MISSING"}),
        (
            {"auth": {"token": "wrong"}},
            "FORBIDDEN",
            "gateway token mismatch",
            {"code": "AUTH_TOKEN_MISMATCH"},
        ),
        (
            {"minProtocol": 1, "maxProtocol": 3},
            "INVALID_REQUEST",
            "protocol mismatch",
            {"expectedProtocol": 4},
        ),
        ({"role": "node"}, "INVALID_REQUEST", "unknown role", None),
        ({"client": {"id": "x"}}, "INVALID_REQUEST", "invalid connect params", None),
    ],
)
async def test_a_client_that_is_not_admitted(
    server: Server, changes: dict[str, Any], code: str, words: str, details: Any
) -> None:
    async with server.raw() as socket:
        await socket.send(json.dumps(server.hello("read", **changes)))
        answer = json.loads(await socket.recv())
        assert (answer["id"], answer["ok"], answer["error"]["code"]) == ("hello", False, code)
        assert words in answer["error"]["message"]
        assert answer["error"].get("details") == details
        assert await close_code(socket) == 1008


async def close_code(socket: ClientConnection) -> int | None:
    with anyio.fail_after(PATIENCE_S), suppress(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("not json", 1008),
        (json.dumps({"type": "event"}), 1008),
        (b"binary", 1003),
        (json.dumps({"type": "req", "id": "1", "method": "x" * 70_000}), 1009),
    ],
)
async def test_frames_that_close_the_connection(
    server: Server, frame: str | bytes, code: int
) -> None:
    async with server.raw() as socket:
        await socket.send(frame)
        assert await close_code(socket) == code


async def test_the_first_request_must_be_connect(server: Server) -> None:
    async with server.raw() as socket:
        await socket.send(json.dumps({"type": "req", "id": "1", "method": "voicecall.status"}))
        assert "the first request must be connect" in str(await socket.recv())
        assert await close_code(socket) == 1008


async def test_a_frame_of_more_than_a_mebibyte(server: Server) -> None:
    async with server.raw() as socket:
        await socket.send(json.dumps(server.hello("write")))
        assert json.loads(await socket.recv())["ok"] is True
        fits = {"type": "req", "id": "2", "method": "voicecall.speak"}
        call = {"callId": "nobody", "message": "x" * 1_000_000}
        await socket.send(json.dumps({**fits, "params": call}))
        assert "call not found" in str(await socket.recv())
        await socket.send("x" * (1024 * 1024 + 1))
        assert await close_code(socket) == 1009


async def test_pages_of_other_origins_are_refused(server: Server) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(server.url, proxy=None, origin="https://evil.example"):  # type: ignore[arg-type]
            raise AssertionError("let in")
    assert caught.value.response.status_code == 403


async def test_a_phone_that_cannot_start_names_what_is_missing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.configure({"plugins": {"entries": {"voice-call": {"config": {"provider": "nobody"}}}}})
    process = home.popen("gateway", "run")
    try:
        with anyio.fail_after(PATIENCE_S):
            async with httpx.AsyncClient(trust_env=False) as client:
                while True:
                    with suppress(httpx.HTTPError):
                        reasons = (await client.get(f"{home.url}/readyz")).json()["reasons"]
                        if any("nobody" in reason for reason in reasons):
                            break
                    await anyio.sleep(0.1)
        async with Server(home).client() as rpc:
            error = await rpc.refused("voicecall.initiate", message="x", to=PHONE)
            assert error.code == "UNAVAILABLE"
            assert "nobody" in error.message
            process.send_signal(signal.SIGTERM)
            assert set(await rpc.event("shutdown")) == {"reason"}
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


# --- tools over HTTP ----------------------------------------------------------------------------


async def test_the_tool_holds_a_conversation(server: Server) -> None:
    opening = {"to": PHONE, "message": "Hello.", "mode": "conversation"}
    started = await server.tool("initiate_call", **opening)
    ours = {"callId": started["callId"]}
    assert started == {**ours, "initiated": True}
    with anyio.fail_after(PATIENCE_S):
        while (await server.tool("get_status", **ours))["call"]["state"] != "listening":
            await anyio.sleep(0.05)
    asked = await server.tool("continue_call", **ours, message="How are you?")
    assert asked["transcript"]
    assert await server.tool("speak_to_user", **ours, message="Good.") == {"success": True}
    assert await server.tool("send_dtmf", **ours, digits="12") == {"success": True}
    assert await server.tool("end_call", **ours) == {"success": True}
    over = await server.tool("speak_to_user", **ours, message="Gone?")
    assert "call is not active" in over["error"]
    assert await server.tool("get_status", callId="nobody") == {"found": False}
    assert "call not found" in (await server.tool("end_call", callId="nobody"))["error"]
    assert (await server.tool("end_call"))["error"] == "callId is required"


async def test_every_action_of_the_table_is_one(server: Server) -> None:
    section = PAGE.partition("\n## Tools over HTTP\n")[2].partition("\n## ")[0]
    described = re.findall(r"^\| `(\w+_\w+)` \| `", section, re.MULTILINE)
    assert len(described) == 6
    for action in described:
        body = {"name": "voice_call", "action": action, "dryRun": True}
        reply = await server.post(body)
        arguments = {"action": action}
        result = {"dryRun": True, "tool": "voice_call", "args": arguments}
        assert (reply.status_code, reply.json()) == (200, {"ok": True, "result": result})


@pytest.mark.parametrize(
    ("body", "token", "status", "kind"),
    [
        ({"tool": "voice_call", "action": "sing"}, "", 400, "invalid_request"),
        ({"tool": "voice_call", "args": 5}, "", 400, "invalid_request"),
        ({"surprise": 1}, "", 400, "invalid_request"),
        ({}, "", 400, "invalid_request"),
        ({"tool": "voice_call"}, "wrong", 401, "unauthorized"),
        ({"tool": "voice_call"}, None, 401, "unauthorized"),
        ({"tool": "no_such_tool"}, "", 404, "not_found"),
        ({"tool": "x" * (2 * 1024 * 1024)}, "", 413, "too_large"),
    ],
)
async def test_tools_that_are_refused(
    server: Server, body: Any, token: str | None, status: int, kind: str
) -> None:
    reply = await server.post(body, token=token)
    assert (reply.status_code, reply.json()["ok"]) == (status, False)
    assert reply.json()["error"]["type"] == kind
