"""The client of ``/rpc``, and ``voicecall gateway status``, which uses it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute, SocketStream
from websockets.asyncio.server import ServerConnection, serve

from voicecall.hosting import RpcCall, RpcMethod
from voicecall_gateway.client import (
    GatewayClient,
    GatewayTimeout,
    GatewayUnreachable,
    RpcError,
)

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


async def in_thread(function: Any, *arguments: Any) -> Any:
    return await anyio.to_thread.run_sync(function, *arguments)


async def test_status_without_a_gateway(shell: Any, free_tcp_port: int) -> None:
    shell.config.write_text(f"{{gateway: {{port: {free_tcp_port}}}}}")
    code, out, err = shell("gateway", "status")
    assert (code, out) == (1, "")
    assert err == (
        f"ws://127.0.0.1:{free_tcp_port} has no voicecall gateway running; start one with"
        " `voicecall gateway run`\n"
    )


async def test_status_of_a_gateway(shell: Any, lab: Any) -> None:
    async with lab.gateway().run() as gateway:
        await gateway.wait_started()
        shell.config.write_text(
            json.dumps({"gateway": {"port": gateway.port, "auth": {"token": lab.token}}})
        )
        document = await in_thread(shell.json, "gateway", "status")
        assert document["ready"] is True
        code, out, _ = await in_thread(shell, "gateway", "status")
        assert (code, out.endswith(f"on {gateway.url}: ready\n")) == (0, True)
        shell.environ["VOICECALL_GATEWAY_URL"] = gateway.url
        shell.environ["VOICECALL_GATEWAY_TOKEN"] = "wrong"
        advice = (
            "; name that gateway's configuration (--config) and state directory"
            " (VOICECALL_STATE_DIR), or set VOICECALL_GATEWAY_TOKEN to its token\n"
        )
        address = gateway.url.replace("http:", "ws:")
        told = f"unauthorized: gateway token mismatch: {address} does not accept the token from "
        assert await in_thread(shell, "gateway", "status") == (
            1,
            "",
            f"{told}VOICECALL_GATEWAY_TOKEN{advice}",
        )
        # Another gateway's file, and none.
        del shell.environ["VOICECALL_GATEWAY_TOKEN"], shell.environ["VOICECALL_GATEWAY_URL"]
        shell.config.write_text(json.dumps({"gateway": {"port": gateway.port}}))
        file = shell.home / "state" / "gateway-token"
        file.parent.mkdir(exist_ok=True)
        file.write_text("wrong")
        assert (await in_thread(shell, "gateway", "status"))[2] == f"{told}{file}{advice}"
        file.unlink()
        assert (await in_thread(shell, "gateway", "status"))[2] == (
            f"unauthorized: gateway token missing: {address} requires a token, and this command has"
            f" none{advice}"
        )


async def test_the_token_of_this_machine_is_told_to_no_other(shell: Any, lab: Any) -> None:
    state = shell.home / "state"
    state.mkdir()
    (state / "gateway-token").write_text(lab.token)
    for url in ("ws://192.0.2.1:18790", "https://gateway.example"):
        shell.environ["VOICECALL_GATEWAY_URL"] = url
        code, out, err = shell("gateway", "status")
        assert (code, out) == (1, "")
        assert err == (
            "VOICECALL_GATEWAY_URL names another machine: set VOICECALL_GATEWAY_TOKEN to the token"
            " of its gateway; the one in the state directory is not sent there\n"
        )
    async with lab.gateway().run() as gateway:
        await gateway.wait_started()
        for host in ("127.0.0.1", "localhost"):
            shell.environ["VOICECALL_GATEWAY_URL"] = f"ws://{host}:{gateway.port}"
            code, _, err = await in_thread(shell, "gateway", "status")
            assert (code, err) == (0, "")
    # A token that was given explicitly is sent to the given gateway.
    shell.environ["VOICECALL_GATEWAY_URL"] = "ws://192.0.2.1:18790"
    shell.environ["VOICECALL_GATEWAY_TOKEN"] = "of-that-machine"
    assert GatewayClient.connect(None, shell.environ).url == "ws://192.0.2.1:18790/rpc"
    del shell.environ["VOICECALL_GATEWAY_TOKEN"]
    shell.config.write_text("{gateway: {bind: '192.0.2.1'}}")
    assert GatewayClient.connect(None, shell.environ).url == "ws://192.0.2.1:18790/rpc"
    shell.config.write_text("{gateway: {auth: {token: 'of-both'}}}")
    assert GatewayClient.connect(None, shell.environ).url == "ws://192.0.2.1:18790/rpc"


async def test_a_gateway_that_is_not_ready_is_no_success(
    shell: Any, lab: Any, fake_plugin: Any
) -> None:
    class Empty:
        name = "phone"

        @asynccontextmanager
        async def run(self) -> AsyncIterator[None]:
            yield

        async def drain(self) -> None:
            return None

        def problems(self) -> Sequence[str]:
            return ["no number is set"]

    async with lab.gateway(fake_plugin("p", services=[Empty()])).run() as gateway:
        await gateway.wait_started()
        shell.config.write_text(
            json.dumps({"gateway": {"port": gateway.port, "auth": {"token": lab.token}}})
        )
        code, out, err = await in_thread(shell, "gateway", "status")
        assert (code, err) == (1, "")
        assert out.endswith(f"on {gateway.url}: not ready\n  no number is set\n")
        code, out, err = await in_thread(shell, "gateway", "status", "--json")
        assert (code, err, json.loads(out)["ready"]) == (1, "", False)


async def test_the_client(lab: Any, fake_plugin: Any, shell: Any) -> None:
    release = anyio.Event()

    async def echo(params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        return dict(params)

    async def wait(params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        await release.wait()
        return {}

    methods = [RpcMethod("p.echo", "write", echo), RpcMethod("p.wait", "write", wait)]
    async with lab.gateway(fake_plugin("p", methods=methods)).run() as gateway:
        await gateway.wait_started()
        environ = {
            **shell.environ,
            "VOICECALL_GATEWAY_URL": gateway.url,
            "VOICECALL_GATEWAY_TOKEN": lab.token,
        }

        def use() -> list[Any]:
            seen: list[Any] = []
            with GatewayClient.connect(None, environ, timeout=10) as client:
                seen.append(client.call("p.echo", {"a": 1}))
                try:
                    client.call("p.none")
                except RpcError as error:
                    seen.append((error.code, error.message))
                try:
                    client.call("p.wait", timeout=0.01)
                except GatewayTimeout:
                    seen.append("timeout")
                anyio.from_thread.run_sync(gateway.host.publish, "news", {"n": 1})
                anyio.from_thread.run_sync(release.set)
                anyio.from_thread.run_sync(gateway.request_stop)
                seen.append(next(client.events())["payload"])
            return seen

        assert await in_thread(use) == [
            {"a": 1},
            ("INVALID_REQUEST", "unknown method: p.none"),
            "timeout",
            {"n": 1},
        ]


async def test_a_client_that_is_not_connected_says_so(shell: Any) -> None:
    client = GatewayClient.connect(None, shell.environ)
    with pytest.raises(GatewayUnreachable, match="use it in a with statement"):
        client.call("gateway.status")
    with pytest.raises(GatewayUnreachable, match="use it in a with statement"):
        next(client.events())


async def test_a_connection_that_breaks_is_told_from_one_that_never_was(
    lab: Any, shell: Any
) -> None:
    environ = {**shell.environ, "VOICECALL_GATEWAY_TOKEN": lab.token}
    started, leave = anyio.Event(), anyio.Event()
    urls: list[str] = []

    async def host() -> None:
        async with lab.gateway().run() as gateway:
            urls.append(gateway.url)
            started.set()
            await leave.wait()

    def lose() -> None:
        with GatewayClient.connect(None, environ, timeout=10) as client:
            anyio.from_thread.run_sync(leave.set)
            assert [frame["event"] for frame in client.events()] == ["shutdown"]
            client.call("gateway.status")

    def miss() -> None:
        with GatewayClient.connect(None, environ, timeout=10):
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host)
        await started.wait()
        environ["VOICECALL_GATEWAY_URL"] = urls[0]
        with pytest.raises(GatewayUnreachable) as lost:
            await in_thread(lose)
    with pytest.raises(GatewayUnreachable) as missed:
        await in_thread(miss)
    assert (lost.value.lost, lost.value.remote) == (True, True)
    assert (missed.value.lost, missed.value.remote) == (False, True)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:18790",
        "ws://127.0.0.1:99999",
        "ws://127.0.0.1:0",
        "ws://a..b",
        "ws://a:b",
        "ws://[::1",
    ],
)
async def test_a_wrong_gateway_url(shell: Any, url: str) -> None:
    shell.environ["VOICECALL_GATEWAY_URL"] = url
    code, _, err = shell("gateway", "status")
    assert code == 1
    assert err.startswith("VOICECALL_GATEWAY_URL: must be a URL")
    assert err.count("\n") == 1


CHALLENGE = json.dumps({"type": "event", "event": "connect.challenge", "payload": {}})


def answer(**values: Any) -> str:
    return json.dumps({"type": "res", "id": "1", **values})


@pytest.mark.parametrize(
    "frames",
    [
        ["[]"],
        ["[" * 100_000],
        [CHALLENGE, answer(ok=True, payload=[1])],
        [CHALLENGE, answer(ok=True, payload="text")],
        [CHALLENGE, answer(ok=False, error="text")],
    ],
)
async def test_whoever_is_no_gateway_is_told_from_one(shell: Any, frames: Sequence[str]) -> None:
    async def speak(socket: ServerConnection) -> None:
        for number, frame in enumerate(frames):
            if number:
                await socket.recv()
            await socket.send(frame)
        await socket.wait_closed()

    async with serve(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        shell.config.write_text(f"{{gateway: {{port: {port}}}}}")
        code, out, err = await in_thread(shell, "gateway", "status")
    assert (code, out) == (1, "")
    assert err == (
        f"ws://127.0.0.1:{port} does not speak the gateway's protocol; another program may have its"
        " port: stop that one, or set gateway.port\n"
    )


@pytest.mark.parametrize(
    ("status", "remote", "told", "lost"),
    [
        (503, False, "the gateway on {} is stopping; try again in a moment", True),
        (404, True, "; VOICECALL_GATEWAY_URL may name another program", False),
        (
            404,
            False,
            "; another program may have its port: stop that one, or set gateway.port",
            False,
        ),
    ],
)
async def test_whoever_refuses_the_connection_is_told_from_nobody(
    shell: Any, status: int, remote: bool, told: str, lost: bool
) -> None:
    async def refuse(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    shell.config.write_text(f"{{gateway: {{port: {port}}}}}")
    if remote:
        shell.environ["VOICECALL_GATEWAY_URL"] = f"ws://127.0.0.1:{port}"

    def connect() -> None:
        with GatewayClient.connect(shell.config, shell.environ, 10):
            raise AssertionError("it is let in")

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, refuse)
        with pytest.raises(GatewayUnreachable) as caught:
            await in_thread(connect)
        tasks.cancel_scope.cancel()
    assert told.format(f"ws://127.0.0.1:{port}") in str(caught.value)
    assert (caught.value.lost, caught.value.remote) == (lost, remote)


@pytest.mark.parametrize("same", [True, False])
async def test_a_gateway_of_another_version_is_named_where_it_lacks_something(
    shell: Any, same: bool
) -> None:
    ours = version("voicecall-gateway")
    theirs = ours if same else "0.0.1"

    async def speak(socket: ServerConnection) -> None:
        await socket.send(CHALLENGE)
        await socket.recv()
        await socket.send(answer(ok=True, payload={"server": {"version": theirs}}))
        await socket.recv()
        error = {"code": "INVALID_REQUEST", "message": "unknown method: gateway.status"}
        await socket.send(json.dumps({"type": "res", "id": "2", "ok": False, "error": error}))
        await socket.wait_closed()

    async with serve(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        shell.config.write_text(f"{{gateway: {{port: {port}}}}}")
        code, out, err = await in_thread(shell, "gateway", "status")
    advice = (
        f"; ws://127.0.0.1:{port} runs version 0.0.1, and this command is version {ours}: restart"
        " the gateway with the version that is installed"
    )
    told = f"unknown method: gateway.status{'' if same else advice}\n"
    assert (code, out, err) == (1, "", told)


async def test_who_cannot_be_reached_is_told_from_who_is_not_there(shell: Any) -> None:
    async def speak(stream: SocketStream) -> None:
        # No TLS. What comes is read, as a close would be a reset otherwise.
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await stream.receive()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, speak)
        port = listener.extra(SocketAttribute.local_port)
        shell.environ["VOICECALL_GATEWAY_URL"] = f"wss://127.0.0.1:{port}"
        code, out, err = await in_thread(shell, "gateway", "status")
        tasks.cancel_scope.cancel()
    await listener.aclose()
    assert (code, out) == (1, "")
    assert err.startswith(f"wss://127.0.0.1:{port} cannot be reached: [SSL")
    assert err.count("\n") == 1


@pytest.mark.parametrize("details", [[1], "text"])
async def test_details_that_are_none_do_not_hide_an_error(shell: Any, details: Any) -> None:
    async def speak(socket: ServerConnection) -> None:
        await socket.send(CHALLENGE)
        await socket.recv()
        error = {"code": "FORBIDDEN", "message": "go away", "details": details}
        await socket.send(answer(ok=False, error=error))
        await socket.wait_closed()

    async with serve(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        shell.config.write_text(f"{{gateway: {{port: {port}}}}}")
        assert await in_thread(shell, "gateway", "status") == (1, "", "go away\n")
