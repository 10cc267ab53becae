"""The life of a gateway in this process: plugins, services, readiness, drain, stop."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import anyio
import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from voicecall import ProviderInfo, ProviderKind, hookimpl
from voicecall.configuring import ConfigModel
from voicecall.errors import ConfigError, PluginError, VoicecallError
from voicecall.hosting import GatewayHost, PluginInfo, RpcCall, RpcMethod
from voicecall.registry import Registry
from voicecall.seam import SystemSeam
from voicecall_gateway.host import provider_context
from voicecall_gateway.pluginhost import PluginHost
from voicecall_gateway.plugins import GROUP
from voicecall_gateway.runtime import Gateway
from voicecall_gateway.sections import url_host
from voicecall_testing.offering import offered

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


class FakeService:
    """Records what happens to it."""

    def __init__(
        self,
        name: str,
        journal: list[str],
        *,
        start_error: Exception | None = None,
        hang: bool = False,
        drained: anyio.Event | None = None,
    ) -> None:
        self.name = name
        self.trouble: list[str] = []
        self.crash = anyio.Event()
        self._journal = journal
        self._start_error = start_error
        self._hang = hang
        self._drained = drained

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        self._journal.append(f"start {self.name}")
        if self._start_error is not None:
            raise self._start_error
        try:
            if self._hang:
                await anyio.sleep_forever()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._work)
                yield
                tasks.cancel_scope.cancel()
        finally:
            self._journal.append(f"stop {self.name}")

    async def _work(self) -> None:
        await self.crash.wait()
        raise RuntimeError("boom")

    async def drain(self) -> None:
        self._journal.append(f"drain {self.name}")
        if self._drained is not None:
            await self._drained.wait()

    def problems(self) -> Sequence[str]:
        return self.trouble


async def get(gateway: Any, path: str) -> tuple[int, Any]:
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(gateway.url + path)
        return response.status_code, response.json()


async def test_nobody_is_sent_to_another_host(lab: Any) -> None:
    async with lab.gateway().run() as gateway, httpx.AsyncClient(trust_env=False) as client:
        for method, path in (("GET", "/healthz/"), ("GET", "/readyz/"), ("POST", "/tools/invoke/")):
            named = {"host": "other.example"}
            response = await client.request(method, gateway.url + path, headers=named)
            assert (response.status_code, "location" in response.headers) == (404, False)


async def test_an_empty_configuration_is_ready(lab: Any) -> None:
    async with lab.gateway().run() as gateway:
        assert (await get(gateway, "/healthz"))[1]["service"] == "voicecall-gateway"
        assert await gateway.wait_started() == []
        assert await get(gateway, "/readyz") == (200, {"ready": True, "reasons": []})
        async with lab.rpc(gateway) as client:
            status = (await client.call("gateway.status"))["payload"]
    assert status["ready"] is True
    assert status["url"] == gateway.url
    assert status["stateDir"] == str(lab.state_dir)


def test_a_gateway_can_be_made_before_there_is_a_loop(lab: Any, fake_plugin: Any) -> None:
    journal: list[str] = []
    gateway = lab.gateway(fake_plugin("p", services=[FakeService("s", journal)]))

    async def body() -> None:
        async with gateway.run():
            # Left at once: the start may not even have begun.
            assert gateway.problems() == ["the gateway is starting"]

    anyio.run(body)
    assert gateway.problems()[0] == "the gateway is stopping"


async def test_a_gateway_runs_once(lab: Any) -> None:
    gateway = lab.gateway()
    async with gateway.run():
        with pytest.raises(RuntimeError, match="a gateway runs once"):
            async with gateway.run():
                raise AssertionError("it ran twice at once")
        assert await gateway.wait_started() == []
    with pytest.raises(RuntimeError, match="a gateway runs once"):
        async with gateway.run():
            raise AssertionError("it ran twice")


async def test_services_start_in_order_and_stop_in_reverse(lab: Any, fake_plugin: Any) -> None:
    journal: list[str] = []
    services = [FakeService(name, journal) for name in ("one", "two", "three")]
    async with lab.gateway(fake_plugin("p", services=services)).run() as gateway:
        assert await gateway.wait_started() == []
        assert journal == ["start one", "start two", "start three"]
        journal.clear()
    assert sorted(journal[:3]) == ["drain one", "drain three", "drain two"]
    assert journal[3:] == ["stop three", "stop two", "stop one"]


async def test_no_reason_quotes_a_secret(lab: Any, fake_plugin: Any) -> None:
    refused = FakeService("tunnel", [], start_error=VoicecallError("wrong token: a-tunnel-token"))
    stuck = FakeService("phone", [])
    stuck.trouble = ["a-tunnel-token is not accepted"]
    entry = {"config": {"authToken": "a-tunnel-token"}}
    tree = {"plugins": {"entries": {"p": entry}}}
    async with lab.gateway(fake_plugin("p", services=[refused, stuck]), tree=tree).run() as gateway:
        reasons = ["tunnel cannot start: wrong token: ***", "*** is not accepted"]
        assert await gateway.wait_started() == reasons
        assert await get(gateway, "/readyz") == (503, {"ready": False, "reasons": reasons})
        async with lab.rpc(gateway) as client:
            assert (await client.call("gateway.status"))["payload"]["reasons"] == reasons


async def test_no_error_of_a_plugin_quotes_a_secret(lab: Any, fake_plugin: Any) -> None:
    plugin = fake_plugin("p")

    @hookimpl
    def services(host: GatewayHost) -> NoReturn:
        raise VoicecallError("wrong token: a-tunnel-token")

    plugin.voicecall_services = services
    tree = {"plugins": {"entries": {"p": {"config": {"authToken": "a-tunnel-token"}}}}}
    async with lab.gateway(plugin, tree=tree).run() as gateway:
        assert await gateway.wait_started() == ["wrong token: ***"]
        async with lab.rpc(gateway) as client:
            [state] = (await client.call("gateway.status"))["payload"]["plugins"]
            assert state["error"] == "wrong token: ***"


async def test_a_service_that_cannot_start_is_reported(lab: Any, fake_plugin: Any) -> None:
    journal: list[str] = []
    group = ExceptionGroup("x", [VoicecallError("port 3334 is in use")])
    broken = FakeService("broken", journal, start_error=VoicecallError("the store is locked"))
    grouped = FakeService("grouped", journal, start_error=group)
    bug = FakeService("bug", journal, start_error=KeyError("x"))
    fine = FakeService("fine", journal)
    plugin = fake_plugin("p", services=[broken, grouped, bug, fine])
    async with lab.gateway(plugin).run() as gateway:
        reasons = [
            "broken cannot start: the store is locked",
            "grouped cannot start: port 3334 is in use",
            "bug cannot start: internal error (KeyError), see the log",
        ]
        assert await gateway.wait_started() == reasons
        assert await get(gateway, "/readyz") == (503, {"ready": False, "reasons": reasons})
        assert (await get(gateway, "/healthz"))[0] == 200
        async with lab.rpc(gateway) as client:
            error = (await client.call("p.method"))["error"]
            assert error["message"] == f"unknown method: p.method ({reasons[0]})"
    assert journal[-1] == "stop fine"


async def test_not_ready_while_a_service_starts_and_stopping_does_not_wait_for_it(
    lab: Any, fake_plugin: Any
) -> None:
    journal: list[str] = []
    services = [FakeService("slow", journal, hang=True), FakeService("next", journal)]
    async with lab.gateway(fake_plugin("p", services=services)).run() as gateway:
        while not journal:
            await anyio.sleep(0.01)
        status, body = await get(gateway, "/readyz")
        assert status == 503
        assert "slow is starting" in body["reasons"]
    assert journal == ["start slow", "stop slow"]


async def test_a_service_that_breaks_later_is_reported_and_others_go_on(
    lab: Any, fake_plugin: Any
) -> None:
    journal: list[str] = []
    fragile, sound = FakeService("fragile", journal), FakeService("sound", journal)
    async with lab.gateway(fake_plugin("p", services=[fragile, sound])).run() as gateway:
        assert await gateway.wait_started() == []
        sound.trouble.append("no carrier is configured")
        assert gateway.problems() == ["no carrier is configured"]
        fragile.crash.set()
        while "stop fragile" not in journal:
            await anyio.sleep(0.01)
        assert gateway.problems() == [
            "fragile stopped: internal error (ExceptionGroup), see the log",
            "no carrier is configured",
        ]
        assert "stop sound" not in journal


async def test_drain_waits_for_requests_and_services(lab: Any, fake_plugin: Any) -> None:
    journal: list[str] = []
    drained, entered = anyio.Event(), anyio.Event()

    async def wait(params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        entered.set()
        await drained.wait()
        journal.append("answered")
        return {}

    service = FakeService("s", journal, drained=drained)
    plugin = fake_plugin("p", services=[service], methods=[RpcMethod("wait", "read", wait)])

    async def ask(gateway: Any) -> None:
        async with lab.rpc(gateway) as client:
            assert (await client.call("wait"))["ok"]

    async def release() -> None:
        while "drain s" not in journal:
            await anyio.sleep(0.01)
        drained.set()

    async with anyio.create_task_group() as tasks:
        async with lab.gateway(plugin).run() as gateway:
            await gateway.wait_started()
            tasks.start_soon(ask, gateway)
            await entered.wait()
            tasks.start_soon(release)
    assert journal == ["start s", "drain s", "answered", "stop s"]


async def test_drain_is_bounded(lab: Any, fake_plugin: Any) -> None:
    journal: list[str] = []
    service = FakeService("s", journal, drained=anyio.Event())
    tree = {"gateway": {"drainSeconds": 0.05}}
    async with lab.gateway(fake_plugin("p", services=[service]), tree=tree).run() as gateway:
        await gateway.wait_started()
    assert journal == ["start s", "drain s", "stop s"]


STILL = "stopping with work still under way: "


@pytest.mark.parametrize("seconds", [0, 0.05])
async def test_what_a_stop_cuts_short_is_named(
    lab: Any, fake_plugin: Any, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    entered, never = anyio.Event(), anyio.Event()

    async def wait(params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        entered.set()
        await never.wait()
        return {}

    services = [FakeService("quiet", []), FakeService("busy", [], drained=never)]
    plugin = fake_plugin("p", services=services, methods=[RpcMethod("wait", "read", wait)])
    tree = {"gateway": {"drainSeconds": seconds}}

    async def ask(gateway: Any) -> None:
        async with lab.rpc(gateway) as client:
            await client.send({"type": "req", "id": "1", "method": "wait", "params": {}})
            with suppress(ConnectionClosed):
                while True:
                    await client.receive()

    async with anyio.create_task_group() as tasks:
        async with lab.gateway(plugin, tree=tree).run() as gateway:
            await gateway.wait_started()
            tasks.start_soon(ask, gateway)
            await entered.wait()
    assert [r.message for r in caplog.records if STILL in r.message] == [
        f"{STILL}busy, RPC requests (1)"
    ]


@pytest.mark.parametrize("seconds", [0, 0.05])
async def test_a_stop_that_cuts_nothing_short_says_nothing(
    lab: Any, fake_plugin: Any, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    plugin = fake_plugin("p", services=[FakeService("quiet", []), FakeService("still", [])])
    tree = {"gateway": {"drainSeconds": seconds}}
    async with lab.gateway(plugin, tree=tree).run() as gateway:
        await gateway.wait_started()
    assert not [r for r in caplog.records if STILL in r.message]


async def test_an_error_in_the_body_comes_out_as_it_is(lab: Any, fake_plugin: Any) -> None:
    journal: list[str] = []
    plugin = fake_plugin("p", services=[FakeService("s", journal)])

    async def body() -> None:
        async with lab.gateway(plugin).run() as gateway:
            await gateway.wait_started()
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await body()
    assert journal == ["start s", "stop s"]


async def test_a_gateway_that_is_cancelled_stops_its_services(lab: Any, fake_plugin: Any) -> None:
    journal: list[str] = []
    plugin = fake_plugin("p", services=[FakeService("s", journal)])
    with anyio.CancelScope() as scope:
        async with lab.gateway(plugin).run() as gateway:
            await gateway.wait_started()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert journal == ["start s", "stop s"]
    again = lab.gateway(tree={"gateway": {"port": gateway.port}})
    async with again.run():
        assert await again.wait_started() == []


# --- plugins ----------------------------------------------------------------------------------


class FakeConfig(ConfigModel):
    max_calls: int = 3


async def test_plugin_configuration_is_validated(lab: Any, fake_plugin: Any) -> None:
    tree = {
        "tts": {"auto": "off"},
        "plugins": {
            "entries": {
                "good": {"config": {"maxCalls": 7}},
                "bad": {"config": {"maxCals": 7}},
                "off": {"enabled": False, "config": {"nonsense": 1}},
                "gone": {"config": {}},
            }
        },
    }
    journal: list[str] = []
    plugins = [
        fake_plugin(name, model=FakeConfig, services=[FakeService(name, journal)])
        for name in ("good", "bad", "off")
    ]
    async with lab.gateway(*plugins, tree=tree).run() as gateway:
        problems = await gateway.wait_started()
        path = "plugins.entries.bad.config.maxCals"
        assert problems == [f"configuration: {path}: unknown key; did you mean 'maxCalls'?"]
        host = PluginHost(gateway.host, gateway.loaded)
        assert host.plugin_config("good") == FakeConfig(max_calls=7)
        assert host.section("tts") == {"auto": "off"}
        assert host.section("agents") == {}
        with pytest.raises(PluginError, match=r"no voicecall\.gateway provider 'gone'"):
            host.plugin_config("gone")
    assert journal == ["start good", "drain good", "stop good"]


async def test_an_entry_without_a_plugin_warns_once(
    lab: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with lab.gateway(tree={"plugins": {"entries": {"gone": {}}}}).run() as gateway:
        assert await gateway.wait_started() == []
    assert caplog.text.count("plugins.entries.gone: no plugin of this name is installed") == 1


async def test_a_block_with_a_misspelt_name_warns(
    lab: Any, caplog: pytest.LogCaptureFixture
) -> None:
    info = ProviderInfo(
        kind=ProviderKind.TTS, id="speaker", label="Speaker", factory=lambda config, context: None
    )
    loaded = lab.gateway(tree={"tts": {"providers": {"speeker": {}}}}).loaded
    gateway = Gateway(loaded, Registry(entries=[], extra=[offered(info)]))
    async with gateway.run():
        assert await gateway.wait_started() == []
    assert caplog.text.count("tts.providers.speeker: no tts provider of this name") == 1


async def test_a_plugin_under_another_name_or_with_a_broken_hook(
    lab: Any, fake_plugin: Any
) -> None:
    class Broken:
        id = "broken"

        @hookimpl
        def voicecall_services(self, host: Any) -> Any:
            raise ZeroDivisionError("oops")

    alias = fake_plugin("alias")
    gateway = lab.gateway(Broken(), SimpleNamespace(id="plain"), alias)
    alias.id = "other"
    async with gateway.run():
        assert await gateway.wait_started() == [
            "the plugin 'alias' calls itself 'other'; its entry point must have the same name",
            "the plugin 'broken' failed: ZeroDivisionError: oops",
        ]


async def test_a_method_that_is_registered_twice_or_with_a_wrong_scope(
    lab: Any, fake_plugin: Any
) -> None:
    async def nothing(params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
        return {}

    names = ("mine", "gateway.status")
    twice = fake_plugin("twice", methods=[RpcMethod(name, "read", nothing) for name in names])
    scope = fake_plugin("scope", methods=[RpcMethod("x", "root", nothing)])
    async with lab.gateway(twice, scope).run() as gateway:
        problems = await gateway.wait_started()
        assert "the RPC method 'gateway.status' is registered twice" in problems
        assert any("unknown scope 'root'" in problem for problem in problems)
        # Nothing is left of a plugin that has failed, and everything of the others.
        assert set(gateway.host.methods) == {"gateway.status", "gateway.reload"}


# --- the host ---------------------------------------------------------------------------------


async def test_listeners(lab: Any) -> None:
    gateway = lab.gateway()
    host: Any = PluginHost(gateway.host, gateway.loaded)
    heard: list[tuple[str, Any]] = []

    def broken(event: str, payload: Mapping[str, Any]) -> None:
        raise RuntimeError("listener")

    host.subscribe(broken)
    undo: Callable[[], None] = host.subscribe(lambda event, payload: heard.append((event, payload)))
    host.publish("one", {"a": 1})
    undo()
    undo()
    host.publish("two", {})
    assert heard == [("one", {"a": 1})]

    async def awaited(event: str, payload: Mapping[str, Any]) -> None: ...

    with pytest.raises(PluginError, match="a listener of events is async"):
        host.subscribe(awaited)
    assert host.logger("x").name == "voicecall.x"
    assert host.logger("voicecall.y").name == "voicecall.y"


async def test_plugins_that_are_off_or_broken_observe_no_calls(lab: Any) -> None:
    told: list[tuple[str, Any]] = []

    class Observer:
        def __init__(self, plugin_id: str, name: str | None = None) -> None:
            self.id = plugin_id
            self._name = name or plugin_id

        @hookimpl
        def voicecall_plugin_info(self) -> PluginInfo:
            return PluginInfo(self._name, self._name)

        @hookimpl
        def voicecall_call_event(self, event: Any) -> None:
            told.append((self.id, event))

        @hookimpl
        def voicecall_call_ended(self, record: Any) -> None:
            told.append((self.id, record))

    names = ("denied", "off", "on")
    plugins = [Observer("alias", "other"), *(Observer(name) for name in names)]
    tree = {"plugins": {"deny": ["denied"], "entries": {"off": {"enabled": False}}}}
    gateway = lab.gateway(*plugins, tree=tree)
    # As the command line does, which asks all plugins for their commands.
    for plugin in plugins:
        gateway.registry.module(GROUP, plugin.id)
    async with gateway.run():
        await gateway.wait_started()
        gateway.host.observe_event("record", "event")
        gateway.host.observe_end("record")
    assert told == [("on", "event"), ("on", "record")]


async def test_a_payload_is_made_only_where_somebody_listens(lab: Any) -> None:
    host = lab.gateway().host
    made: list[str] = []
    heard: list[Any] = []

    def payload() -> Mapping[str, Any]:
        made.append("payload")
        return {"a": 1}

    host.publish("one", payload)
    assert made == []
    undone = [host.subscribe(lambda event, payload: heard.append(payload)) for _ in range(2)]
    host.publish("one", payload)
    assert (made, heard) == (["payload"], [{"a": 1}, {"a": 1}])
    for undo in undone:
        undo()
    host.publish("one", payload)
    assert made == ["payload"]


async def test_providers_are_made_with_their_configuration(tmp_path: Path) -> None:
    class Voice(ConfigModel):
        api_key: str

    info = ProviderInfo(
        kind=ProviderKind.TTS,
        id="fake",
        label="Fake",
        factory=lambda config, context: (config, context),
        config_model=lambda: Voice,
        secrets={"apiKey": "FAKE_KEY"},
        required=("apiKey",),
    )
    registry = Registry(entries=[], extra=[offered(info)])

    def context(environ: dict[str, str]) -> Any:
        return provider_context(
            registry=registry,
            environ=environ,
            state_dir=tmp_path,
            seam=SystemSeam(),
            path="tts.providers",
        )

    made, within = context({"FAKE_KEY": "k"}).create(ProviderKind.TTS, "fake", {})
    assert made == Voice(api_key="k")
    assert within.state_dir == tmp_path
    with pytest.raises(ConfigError, match=r"tts\.providers\.fake\.apiKey.*FAKE_KEY"):
        context({}).create(ProviderKind.TTS, "fake", {})
    with pytest.raises(PluginError, match="'nobody' is installed"):
        context({}).create(ProviderKind.TTS, "nobody", {})


# --- the port ---------------------------------------------------------------------------------


async def test_the_port_of_another_gateway(lab: Any) -> None:
    async with lab.gateway().run() as gateway:
        second = lab.gateway(tree={"gateway": {"port": gateway.port}})
        expected = f"a voicecall gateway is already running on 127.0.0.1:{gateway.port}"
        with pytest.raises(VoicecallError, match=expected):
            async with second.run():
                pass


class _Other(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (named there too)
        return


async def test_the_port_of_another_program(lab: Any) -> None:
    with HTTPServer(("127.0.0.1", 0), _Other) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            with pytest.raises(VoicecallError, match="in use by another program"):
                async with lab.gateway(tree={"gateway": {"port": other.server_port}}).run():
                    pass
        finally:
            other.shutdown()
            thread.join()


async def test_an_address_of_another_machine(lab: Any) -> None:
    with pytest.raises(VoicecallError, match=r"cannot listen on 192\.0\.2\.1"):
        async with lab.gateway(tree={"gateway": {"bind": "192.0.2.1"}}).run():
            pass


@pytest.mark.parametrize(
    ("bind", "host"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")],
)
async def test_the_host_in_the_url(bind: str, host: str) -> None:
    assert url_host(bind) == host
