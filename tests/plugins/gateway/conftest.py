"""Fakes for the gateway's tests: plugins without an installation, a client of ``/rpc``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from voicecall import hookimpl
from voicecall.hosting import GatewayHost, PluginInfo, RpcMethod, Service, SetupCheck, SetupContext
from voicecall.registry import Registry
from voicecall_gateway.cli import run
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.runtime import Gateway

CONNECT = {
    "minProtocol": 4,
    "maxProtocol": 4,
    "client": {"id": "cli", "version": "1", "platform": "test", "mode": "test"},
    "role": "operator",
    "scopes": ["operator.admin"],
}


class FakePlugin:
    """A gateway plugin; what it offers is set by the test."""

    def __init__(
        self,
        plugin_id: str,
        *,
        services: Sequence[Service] = (),
        methods: Sequence[RpcMethod] = (),
        checks: Sequence[SetupCheck] = (),
        model: Any = None,
        commands: Callable[[Any], None] | None = None,
    ) -> None:
        self.id = plugin_id
        self.host: GatewayHost | None = None
        self._services = services
        self._methods = methods
        self._checks = checks
        self._model = model
        self._commands = commands

    @hookimpl
    def voicecall_plugin_info(self) -> PluginInfo:
        model = self._model
        return PluginInfo(self.id, f"Fake {self.id}", (lambda: model) if model else None)

    @hookimpl
    def voicecall_services(self, host: GatewayHost) -> Sequence[Service]:
        self.host = host
        for method in self._methods:
            host.register_rpc(method)
        return self._services

    @hookimpl
    def voicecall_setup_checks(self, context: SetupContext) -> Sequence[SetupCheck]:
        return self._checks

    @hookimpl
    def voicecall_commands(self, app: Any) -> None:
        if self._commands is not None:
            self._commands(app)


class RpcSocket:
    """An RPC client for tests: frames in, frames out."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, frame: Any) -> None:
        await self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def receive(self) -> Any:
        return json.loads(await self.socket.recv())

    async def answer(self, request_id: str) -> Any:
        """The answer to one request, passing over everything else."""
        while True:
            frame = await self.receive()
            if frame["type"] == "res" and frame["id"] == request_id:
                return frame

    async def call(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        await self.send({"type": "req", "id": method, "method": method, "params": params or {}})
        return await self.answer(method)


class Lab:
    """Makes gateways on a free port of loopback with their own state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.token = "a-token-for-tests"

    def gateway(self, *plugins: Any, tree: Mapping[str, Any] | None = None) -> Gateway:
        values = {**(tree or {})}
        values["gateway"] = {
            "port": 0,
            "auth": {"token": self.token},
            "drainSeconds": 5,
            **values.get("gateway", {}),
        }
        loaded = config_from_tree(values, environ={}, state_dir=self.state_dir)
        extra = [("voicecall.gateway", plugin.id, plugin) for plugin in plugins]
        return Gateway(loaded, Registry(entries=[], extra=extra))

    def raw(
        self, gateway: Gateway, **options: Any
    ) -> AbstractAsyncContextManager[ClientConnection]:
        url = gateway.url.replace("http", "ws", 1) + "/rpc"
        return connect(url, proxy=None, **options)

    @asynccontextmanager
    async def rpc(self, gateway: Gateway, *scopes: str) -> AsyncIterator[RpcSocket]:
        """A client after its handshake; with all scopes unless some are named."""
        async with self.raw(gateway) as socket:
            client = RpcSocket(socket)
            assert (await client.receive())["event"] == "connect.challenge"
            params = {**CONNECT, "auth": {"token": self.token}}
            if scopes:
                params["scopes"] = list(scopes)
            hello = await client.call("connect", params)
            assert hello["ok"], hello
            yield client


class Shell:
    """Runs commands and collects what they print."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.config = home / "config.json5"
        self.environ = {
            "HOME": str(home),
            "VOICECALL_CONFIG": str(self.config),
            "VOICECALL_STATE_DIR": str(home / "state"),
        }
        self.extra: list[tuple[str, str, object]] = []
        self._capsys = capsys
        self.config.write_text("{}")

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = run(arguments, Registry(entries=[], extra=self.extra), self.environ)
        output = self._capsys.readouterr()
        return code, output.out, output.err

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The one document on stdout."""
        got, out, err = self(*arguments, "--json")
        assert (got, err) == (code, "")
        document = json.loads(out)
        assert out == json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        return document


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "state")


@pytest.fixture
def fake_plugin() -> type[FakePlugin]:
    return FakePlugin


@pytest.fixture
def rpc_socket() -> type[RpcSocket]:
    return RpcSocket


@pytest.fixture
def connect_params() -> dict[str, Any]:
    return {**CONNECT}


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)
