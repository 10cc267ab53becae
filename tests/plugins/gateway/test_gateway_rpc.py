"""The WebSocket protocol of ``/rpc`` over a real socket."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.backstage import closed_backstage
from websockets.exceptions import ConnectionClosed, InvalidStatus

from voicecall.errors import CallNotFound, MissingScope, ProviderUnavailable, StoreError
from voicecall.hosting import RpcCall, RpcMethod
from voicecall_gateway.connection import MAX_UNANSWERED
from voicecall_gateway.frames import FrameError, parse_connect, parse_request

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]


class Methods:
    """Handlers that answer, fail, and wait."""

    def __init__(self) -> None:
        self.release = anyio.Event()
        self.entered = anyio.Event()
        self.finished = anyio.Event()
        self.calls: list[RpcCall] = []

    async def echo(self, params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        self.calls.append(call)
        return {"params": dict(params)}

    async def wait(self, params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        self.entered.set()
        await self.release.wait()
        self.finished.set()
        return {"waited": True}

    async def fail(self, params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        errors: dict[str, BaseException] = {
            "call": CallNotFound("c1"),
            "scope": MissingScope("operator.admin", "agentId"),
            "store": StoreError("the disk is full"),
            "provider": ProviderUnavailable("no answer", provider="acme"),
            "bug": RuntimeError("secret detail"),
            "exit": SystemExit(2),
        }
        raise errors[params["kind"]]

    async def unsendable(self, params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        return {"object": object()}

    def all(self) -> list[RpcMethod]:
        return [
            RpcMethod("fake.echo", "operator.read", self.echo),
            RpcMethod("fake.wait", "write", self.wait),
            RpcMethod("fake.fail", "read", self.fail),
            RpcMethod("fake.unsendable", "read", self.unsendable),
        ]


@pytest.fixture
def methods() -> Methods:
    return Methods()


@pytest.fixture
async def gateway(lab: Any, fake_plugin: Any, methods: Methods) -> Any:
    plugin = fake_plugin("fake", methods=methods.all())
    async with closed_backstage(lab.gateway(plugin).run()) as running:
        assert await running.wait_started() == []
        yield running


async def closed(socket: Any) -> int:
    """Read until the connection is closed; its close code."""
    with suppress(ConnectionClosed):
        while True:
            await socket.recv()
    code: int = socket.close_code
    return code


# --- handshake --------------------------------------------------------------------------------


async def test_handshake(gateway: Any, lab: Any, rpc_socket: Any, connect_params: Any) -> None:
    async with lab.raw(gateway) as socket:
        client = rpc_socket(socket)
        challenge = await client.receive()
        assert challenge["type"] == "event"
        assert challenge["event"] == "connect.challenge"
        assert set(challenge["payload"]) == {"nonce", "ts"}
        answer = await client.call("connect", {**connect_params, "auth": {"token": lab.token}})
        hello = answer["payload"]
        assert set(answer) == {"type", "id", "ok", "payload"}
        assert (hello["type"], hello["protocol"]) == ("hello-ok", 4)
        assert hello["features"]["methods"] == [
            "fake.echo",
            "fake.fail",
            "fake.unsendable",
            "fake.wait",
            "gateway.reload",
            "gateway.status",
        ]
        assert {"tick", "shutdown"} <= set(hello["features"]["events"])
        assert hello["auth"]["role"] == "operator"
        assert hello["policy"]["tickIntervalMs"] == 15000
        assert hello["policy"]["maxPayload"] >= 64 * 1024


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"auth": {"token": "wrong"}}, "FORBIDDEN", "unauthorized: gateway token mismatch"),
        ({"auth": {}}, "FORBIDDEN", "unauthorized: gateway token missing"),
        ({"minProtocol": 5, "maxProtocol": 9}, "INVALID_REQUEST", "protocol mismatch"),
        ({"role": "node"}, "INVALID_REQUEST", "unknown role"),
        ({"surprise": 1}, "INVALID_REQUEST", "invalid connect params: surprise"),
        ({"client": {"id": "x"}}, "INVALID_REQUEST", "invalid connect params: client.version"),
        ({"auth": {"token": "\ud800"}}, "FORBIDDEN", "unauthorized: gateway token mismatch"),
        ({"role": "\ud800"}, "INVALID_REQUEST", "unknown role"),
        ({"role": "\u00e9" * 100}, "INVALID_REQUEST", "unknown role"),
        ({"\u00e9" * 200: 1}, "INVALID_REQUEST", "invalid connect params: \u00e9"),
    ],
)
async def test_a_handshake_that_is_refused(
    gateway: Any,
    lab: Any,
    rpc_socket: Any,
    connect_params: Any,
    change: Any,
    code: str,
    message: str,
) -> None:
    async with lab.raw(gateway) as socket:
        client = rpc_socket(socket)
        await client.receive()
        params = {**connect_params, "auth": {"token": lab.token}, **change}
        answer = await client.call("connect", params)
        assert answer["ok"] is False
        assert answer["error"]["code"] == code
        assert message in answer["error"]["message"]
        assert await closed(socket) == 1008


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("garbage", 1008),
        ("[1]", 1008),
        ("[" * 5000, 1008),
        (json.dumps({"type": "req", "id": "1", "method": "gateway.status"}), 1008),
        (json.dumps({"type": "req", "id": "1", "method": "connect", "extra": 1}), 1008),
        ('"' + "x" * 70_000 + '"', 1009),
        ('"' + "\u00e9" * 40_000 + '"', 1009),
        ("x" * 2_000_000, 1009),
        (b"\x00\x01", 1003),
    ],
)
async def test_before_authentication_the_connection_is_closed(
    gateway: Any, lab: Any, frame: str | bytes, code: int
) -> None:
    async with lab.raw(gateway) as socket:
        await socket.recv()
        await socket.send(frame)
        assert await closed(socket) == code
    async with lab.rpc(gateway) as client:
        assert (await client.call("gateway.status"))["ok"]


async def test_a_page_of_another_host_is_refused(gateway: Any, lab: Any) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with lab.raw(gateway, origin="http://evil.example"):
            pass
    assert caught.value.response.status_code == 403
    async with lab.raw(gateway, origin="http://localhost:8080") as socket:
        assert "connect.challenge" in await socket.recv()


async def test_what_is_refused_is_no_error_in_the_log(
    gateway: Any, lab: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidStatus):
        async with lab.raw(gateway, origin="http://evil.example"):
            pass
    for pieces in ([b"\xff\xfe"], [b"\xc3", b"("]):
        async with lab.raw(gateway) as socket:
            await socket.send(pieces, text=True)
            assert await closed(socket) == 1007
    async with lab.raw(gateway) as socket:
        await socket.recv()
        await socket.send([b"{\xc3", b"\xa9}"], text=True)
        assert await closed(socket) == 1008
    # The connection is closed for the second one before the first is answered.
    for answered in ('{"type": "req", "id": "1", "method": "gateway.status"}', "garbage"):
        async with lab.raw(gateway) as socket:
            await socket.recv()
            await socket.send(answered)
            await socket.send([b"\xff\xfe"], text=True)
            assert await closed(socket) == 1007
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("text", [b"\x81\x81\0\0\0\0\xff", b"\x01\x81\0\0\0\0\xff\x80\x80\0\0\0\0"])
async def test_a_goodbye_right_behind_text_that_is_no_utf_8_is_no_error_in_the_log(
    gateway: Any, lab: Any, caplog: pytest.LogCaptureFixture, text: bytes
) -> None:
    async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
        await stream.send(
            b"GET /rpc HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await stream.receive()).startswith(b"HTTP/1.1 101 ")
        await stream.send(text + b"\x88\x82\0\0\0\0\x03\xe8")
        answer = b""
        with suppress(anyio.EndOfStream):
            while True:
                answer += await stream.receive()
    assert answer.endswith(b"\x88\x02\x03\xe8")
    async with lab.rpc(gateway) as client:
        assert (await client.call("gateway.status"))["ok"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_client_that_says_nothing_is_closed(
    gateway: Any, lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicecall_gateway.connection.HANDSHAKE_SECONDS", 0.05)
    async with lab.raw(gateway) as socket:
        assert await closed(socket) == 1008


async def test_a_client_that_pings_and_does_not_read_is_cut_off(gateway: Any, lab: Any) -> None:
    pings = (b"\x89\xfd\0\0\0\0" + b"x" * 125) * 1000
    async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
        await stream.send(
            b"GET /rpc HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await stream.receive()).startswith(b"HTTP/1.1 101 ")
        sent = 0
        with suppress(anyio.BrokenResourceError):
            while sent < 64_000_000:
                await stream.send(pings)
                sent += len(pings)
        assert sent < 64_000_000
    async with lab.rpc(gateway) as client:
        assert (await client.call("gateway.status"))["ok"]


async def test_a_client_that_reads_nothing_is_cut_off(
    lab: Any, fake_plugin: Any, methods: Methods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicecall_gateway.server.PING_SECONDS", 0.5)
    gateway = lab.gateway(fake_plugin("fake", methods=methods.all()))
    async with closed_backstage(gateway.run()):
        await gateway.wait_started()
        frame = {"type": "req", "method": "fake.echo", "params": {"text": "x" * 500_000}}
        left = 2
        # A slow test client is cut off too, and tries again.
        with anyio.fail_after(60):
            while left > 1:
                with suppress(ConnectionClosed):
                    async with lab.rpc(gateway) as stuck:
                        for number in range(60):
                            await stuck.send({**frame, "id": str(number)})
                        while left > 1:
                            left = await _connections(lab, gateway)
                            await anyio.sleep(0.05)
                        # It need not read all that it was sent.
                        stuck.socket.transport.abort()


async def _connections(lab: Any, gateway: Any) -> int:
    """The number of clients, including this one."""
    while True:
        with suppress(ConnectionClosed):
            async with lab.rpc(gateway) as client:
                count: int = (await client.call("gateway.status"))["payload"]["connections"]
                return count


# --- requests ---------------------------------------------------------------------------------


async def test_a_request_and_its_answer(gateway: Any, lab: Any, methods: Methods) -> None:
    async with lab.rpc(gateway, "operator.write") as client:
        answer = await client.call("fake.echo", {"text": "zwölf \ud83d"})
        assert answer["payload"] == {"params": {"text": "zwölf \ud83d"}}
    assert methods.calls[0].scopes == {"operator.read", "operator.write"}


async def test_a_blocked_request_does_not_block_the_next(
    gateway: Any, lab: Any, methods: Methods
) -> None:
    async with lab.rpc(gateway) as client:
        await client.send({"type": "req", "id": "slow", "method": "fake.wait"})
        await methods.entered.wait()
        assert (await client.call("gateway.status"))["payload"]["ready"] is True
        methods.release.set()
        assert (await client.answer("slow"))["payload"] == {"waited": True}


async def test_a_request_outlives_its_connection(gateway: Any, lab: Any, methods: Methods) -> None:
    async with lab.rpc(gateway) as client:
        await client.send({"type": "req", "id": "slow", "method": "fake.wait"})
        await methods.entered.wait()
    async with lab.rpc(gateway) as client:
        while (await client.call("gateway.status"))["payload"]["connections"] > 1:
            await anyio.sleep(0.01)
    assert not methods.finished.is_set()
    methods.release.set()
    await methods.finished.wait()


async def test_an_unknown_method(gateway: Any, lab: Any) -> None:
    async with lab.rpc(gateway) as client:
        error = (await client.call("nobody.knows"))["error"]
        assert error == {"code": "INVALID_REQUEST", "message": "unknown method: nobody.knows"}


async def test_an_unknown_method_where_a_plugin_is_off(lab: Any, fake_plugin: Any) -> None:
    tree = {"plugins": {"entries": {"a": {"enabled": False}}, "deny": ["b"]}}
    plugins = [fake_plugin(name) for name in ("a", "b", "c")]
    async with lab.gateway(*plugins, tree=tree).run() as gateway:
        assert await gateway.wait_started() == []
        async with lab.rpc(gateway) as client:
            error = (await client.call("a.method"))["error"]
    assert error["message"] == "unknown method: a.method (plugins that are off: a, b)"


@pytest.mark.parametrize(
    ("granted", "allowed"),
    [("operator.read", False), ("operator.write", True), ("operator.admin", True)],
)
async def test_scopes(
    gateway: Any, lab: Any, methods: Methods, granted: str, allowed: bool
) -> None:
    methods.release.set()
    async with lab.rpc(gateway, granted) as client:
        assert (await client.call("fake.echo"))["ok"]
        answer = await client.call("fake.wait")
        assert answer["ok"] is allowed
        if not allowed:
            assert answer["error"]["code"] == "FORBIDDEN"
            assert answer["error"]["details"] == {
                "code": "MISSING_SCOPE",
                "missingScope": "operator.write",
                "requiredScopes": ["operator.write"],
            }


async def test_no_scope_reaches_nothing(gateway: Any, lab: Any) -> None:
    async with lab.rpc(gateway, "operator.pairing") as client:
        assert (await client.call("gateway.status"))["error"]["code"] == "FORBIDDEN"


async def test_errors_of_handlers(gateway: Any, lab: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with lab.rpc(gateway) as client:

        async def error(kind: str) -> Any:
            return (await client.call("fake.fail", {"kind": kind}))["error"]

        assert await error("call") == {
            "code": "INVALID_REQUEST",
            "message": "call not found: c1",
        }
        assert await error("scope") == {
            "code": "FORBIDDEN",
            "message": "missing scope: operator.admin (for agentId)",
            "details": {
                "code": "MISSING_SCOPE",
                "missingScope": "operator.admin",
                "requiredScopes": ["operator.admin"],
            },
        }
        assert await error("store") == {"code": "UNAVAILABLE", "message": "the disk is full"}
        assert await error("provider") == {
            "code": "UNAVAILABLE",
            "message": "acme: no answer",
            "retryable": True,
        }
        gateway.loaded.secrets.resolve({"apiKey": "no answer"}, "acme")
        assert (await error("provider"))["message"] == "acme: ***"
        for bug in ("bug", "exit"):
            assert await error(bug) == {"code": "UNAVAILABLE", "message": "internal error"}
        assert "secret detail" in caplog.text
        answer = await client.call("fake.unsendable")
        assert answer["error"] == {"code": "UNAVAILABLE", "message": "internal error"}


async def test_a_malformed_request_is_answered_where_it_has_an_id(gateway: Any, lab: Any) -> None:
    async with lab.rpc(gateway) as client:
        await client.send({"type": "req", "id": "7", "method": "fake.echo", "extra": 1})
        error = (await client.answer("7"))["error"]
        assert error["code"] == "INVALID_REQUEST"
        assert "extra" in error["message"]
        await client.send("{}")
        assert await closed(client.socket) == 1008


async def test_a_client_may_ask_as_often_as_it_is_answered(gateway: Any, lab: Any) -> None:
    async with lab.rpc(gateway) as client:
        for _ in range(MAX_UNANSWERED + 1):
            assert (await client.call("gateway.status"))["ok"]
            await client.send({"type": "req", "id": "wrong", "method": 7})
            assert (await client.answer("wrong"))["error"]["code"] == "INVALID_REQUEST"


async def test_too_many_unanswered_requests(gateway: Any, lab: Any, methods: Methods) -> None:
    async with lab.rpc(gateway) as client:
        for number in range(129):
            await client.send({"type": "req", "id": str(number), "method": "fake.wait"})
        assert await closed(client.socket) == 1008
    methods.release.set()


@given(
    st.one_of(
        st.text(max_size=40),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["type", "id", "method", "params", "x"]), inner, max_size=4
                )
            ),
            max_leaves=8,
        ).map(json.dumps),
    )
)
def test_any_text_is_a_request_or_a_frame_error(text: str) -> None:
    try:
        reached = bool(parse_connect(parse_request(text).params))
    except FrameError as error:
        reached = bool(str(error))
    assert reached


# --- events -----------------------------------------------------------------------------------


async def test_events_reach_those_who_may_read(gateway: Any, lab: Any) -> None:
    async with (
        lab.rpc(gateway, "operator.read") as reader,
        lab.rpc(gateway, "operator.pairing") as stranger,
        lab.rpc(gateway, "operator.write") as writer,
    ):
        gateway.host.publish("call.state", {"n": 1})
        gateway.host.publish("plugin.fake", {"n": 2})
        gateway.host.publish("call.state", {"n": 3})

        async def numbers(client: Any, count: int) -> list[tuple[int, int]]:
            frames = [await client.receive() for _ in range(count)]
            return [(frame["seq"], frame["payload"]["n"]) for frame in frames]

        assert await numbers(writer, 3) == [(1, 1), (2, 2), (3, 3)]
        assert await numbers(reader, 2) == [(1, 1), (2, 3)]
        # The next frame for the other client is the answer to its own request.
        await stranger.send({"type": "req", "id": "1", "method": "x"})
        assert (await stranger.receive())["type"] == "res"


async def test_ticks_reach_every_client(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voicecall_gateway.rpc.TICK_SECONDS", 0.01)
    async with lab.gateway().run() as running, lab.rpc(running, "operator.pairing") as client:
        first, second = await client.receive(), await client.receive()
    assert (first["event"], second["event"]) == ("tick", "tick")
    assert second["payload"]["ts"] >= first["payload"]["ts"]
    assert second["seq"] == first["seq"] + 1


async def test_a_client_that_does_not_read_loses_the_oldest_events(gateway: Any, lab: Any) -> None:
    async with lab.rpc(gateway) as client:
        for number in range(1000):
            gateway.host.publish("news", {"n": number})
        frames = [await client.receive()]
        while frames[-1]["payload"]["n"] != 999:
            frames.append(await client.receive())
    assert len(frames) <= 257
    assert frames[-1]["seq"] == 1000


async def test_the_gateway_says_goodbye(lab: Any) -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(lab.gateway().run())
        async with lab.rpc(running, "operator.pairing") as client:
            await stack.aclose()
            farewell = await client.receive()
            assert (farewell["event"], set(farewell["payload"])) == ("shutdown", {"reason"})
            assert await closed(client.socket) == 1001


async def test_a_stop_takes_no_longer_than_its_connections(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicecall_gateway.runtime.FLUSH_SECONDS", 60)
    with anyio.fail_after(30):
        async with AsyncExitStack() as stack:
            running = await stack.enter_async_context(lab.gateway().run())
            async with lab.rpc(running) as client:
                await stack.aclose()
                assert await closed(client.socket) == 1001


async def test_a_stop_takes_no_longer_than_the_requests_it_waits_for(
    lab: Any, fake_plugin: Any, methods: Methods
) -> None:
    plugin = fake_plugin("fake", methods=methods.all())
    gateway = lab.gateway(plugin, tree={"gateway": {"drainSeconds": 60}})

    async def release() -> None:
        await gateway.wait_stop_requested()
        await anyio.sleep(0.05)
        methods.release.set()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
            running = await stack.enter_async_context(gateway.run())
            await running.wait_started()
            tasks.start_soon(release)
            async with lab.rpc(running) as client:
                await client.send({"type": "req", "id": "1", "method": "fake.wait"})
                assert (await client.call("gateway.status"))["ok"]
                await stack.aclose()
                assert (await client.answer("1"))["ok"]


@pytest.mark.parametrize("method", ["gateway.status", "gateway.reload"])
async def test_the_gateways_own_methods_take_no_parameters(
    gateway: Any, lab: Any, method: str
) -> None:
    async with lab.rpc(gateway) as client:
        error = (await client.call(method, {"plugin": "fake"}))["error"]
    assert error == {"code": "INVALID_REQUEST", "message": "unknown parameter 'plugin'"}


async def test_reloading_needs_a_file_and_an_administrator(gateway: Any, lab: Any) -> None:
    async with lab.rpc(gateway) as client:
        error = (await client.call("gateway.reload"))["error"]
        assert error["code"] == "UNAVAILABLE"
        assert "has no configuration to read again" in error["message"]
    async with lab.rpc(gateway, "operator.write") as client:
        error = (await client.call("gateway.reload"))["error"]
        assert error["details"]["missingScope"] == "operator.admin"
