"""A changed configuration while the gateway runs: taken up, waiting, or refused."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from voicecall import hookimpl
from voicecall.configuring import ConfigModel
from voicecall.errors import VoicecallError
from voicecall.hosting import GatewayHost, Liveness, Reconfigurable, RpcCall, RpcMethod, ToolSpec
from voicecall.registry import Registry
from voicecall_gateway import reload as reloading
from voicecall_gateway.config import load_config
from voicecall_gateway.runtime import Gateway

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.01)


class PhoneConfig(ConfigModel):
    calls: int = 1


class Plain:
    """A service that neither reports live calls nor accepts changes."""

    name = "phone"

    def __init__(self, journal: list[str], config: PhoneConfig) -> None:
        self.journal = journal
        self.config = config

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        self.journal.append(f"start {self.config.calls}")
        yield
        self.journal.append(f"stop {self.config.calls}")

    async def drain(self) -> None:
        self.journal.append("drain")

    def problems(self) -> Sequence[str]:
        return []


class Telling(Plain):
    busy: Any = 0

    def live(self) -> int:
        if isinstance(self.busy, Exception):
            raise self.busy
        return int(self.busy)


class Changing(Plain):
    answer: Any = True

    async def reconfigure(self, config: PhoneConfig) -> bool:
        self.journal.append(f"reconfigure {config.calls}")
        if isinstance(self.answer, BaseException):
            raise self.answer
        if self.answer:
            self.config = config
        return bool(self.answer)


class Both(Telling, Changing):
    pass


class House:
    """A gateway on the default file, which the test changes."""

    def __init__(self, home: Path, fake_plugin: Any, kind: type[Plain]) -> None:
        self.file = home / ".voicecall" / "config.json5"
        self.file.parent.mkdir()
        self.journal: list[str] = []
        self.service: Any = None
        self.host: GatewayHost | None = None
        self.before_loading: Callable[[], None] = lambda: None
        self.after_loading: Callable[[], None] = lambda: None
        self._home = home
        self._kind = kind
        self._plugin = fake_plugin("phone", model=PhoneConfig)

        @hookimpl
        def services(host: GatewayHost) -> Sequence[Any]:
            return self._services(host)

        self._plugin.voicecall_services = services
        self.write()

    def _services(self, host: GatewayHost) -> Sequence[Any]:
        async def answer(params: Mapping[str, Any], call: RpcCall) -> Mapping[str, Any]:
            return {"calls": host.plugin_config("phone").calls}

        async def tool(arguments: Mapping[str, Any], call: Any) -> int:
            return 1

        host.register_rpc(RpcMethod("phone.calls", "read", answer))
        host.register_tool(ToolSpec("phone", "", {}, tool))
        self.host = host
        self.service = self._kind(self.journal, host.plugin_config("phone"))
        return [self.service]

    def observe(self, ended: Callable[[Any], None]) -> None:
        """Let the plugin be told of calls that are over."""
        self._plugin.voicecall_call_ended = ended

    def write(self, calls: Any = 1, *, enabled: bool = True, **sections: Any) -> None:
        entry = {"enabled": enabled, "config": {"calls": calls}}
        gateway = {"port": 0, "auth": {"token": "t-t-t-t-t"}, **sections.pop("gateway", {})}
        tree = {"gateway": gateway, "plugins": {"entries": {"phone": entry}}, **sections}
        self.file.write_text(json.dumps(tree))

    def gateway(self, **options: Any) -> Gateway:
        environ = {"HOME": str(self._home), "VOICECALL_STATE_DIR": str(self._home / "state")}
        extra = [("voicecall.gateway", "phone", self._plugin)]

        def load() -> Any:
            self.before_loading()
            loaded = load_config(None, environ)
            self.after_loading()
            return loaded

        return Gateway(
            load(), Registry(entries=[], extra=extra), environ=environ, reload=load, **options
        )


class Desk:
    """A gateway that runs, asked through its own methods."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def call(self, method: str) -> Any:
        handler = self.gateway.host.methods[method].handler
        return await handler({}, RpcCall("test", frozenset()))

    async def reload(self) -> tuple[list[str], list[str]]:
        answer = await self.call("gateway.reload")
        return answer["applied"], answer["waiting"]

    async def calls(self) -> int:
        """What the plugin sees as its configuration."""
        return int((await self.call("phone.calls"))["calls"])

    async def ready(self) -> tuple[int, Any]:
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(f"{self.gateway.url}/readyz")
        return response.status_code, response.json()


@asynccontextmanager
async def opened(house: House, **options: Any) -> AsyncIterator[Desk]:
    async with house.gateway(**options).run() as gateway:
        assert await gateway.wait_started() == []
        yield Desk(gateway)


@pytest.fixture
def house(request: pytest.FixtureRequest, tmp_path: Path, fake_plugin: Any) -> House:
    return House(tmp_path, fake_plugin, getattr(request, "param", Both))


def kinds(*names: type[Plain]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("house", names, indirect=True)


def test_the_contracts_are_told_apart() -> None:
    config = PhoneConfig()
    assert [isinstance(kind([], config), Reconfigurable) for kind in (Plain, Telling, Both)] == [
        False,
        False,
        True,
    ]
    assert [isinstance(kind([], config), Liveness) for kind in (Plain, Changing, Both)] == [
        False,
        False,
        True,
    ]


async def test_a_denied_tool_that_is_misspelt_is_told_at_the_start_and_with_a_change(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    def told(name: str) -> int:
        text = f"{house.file}: gateway.tools.deny: there is no tool {name!r}; did you mean 'phone'?"
        return [record.getMessage() for record in caplog.records].count(text)

    house.write(gateway={"tools": {"deny": ["phon", "phone", "of-another-gateway"]}})
    async with opened(house) as desk:
        assert told("phon") == 1
        house.write(gateway={"tools": {"deny": ["phon", "fone"]}})
        await desk.reload()
        assert (told("phon"), told("fone")) == (1, 0)
        house.write(gateway={"tools": {"deny": ["phon", "phones"]}})
        await desk.reload()
        assert (told("phon"), told("phones")) == (1, 1)
    assert "of-another-gateway" not in caplog.text


@kinds(Changing, Both)
async def test_a_service_takes_the_change(house: House) -> None:
    async with opened(house) as desk:
        assert await desk.reload() == ([], [])
        house.write(2)
        assert await desk.reload() == (["phone"], [])
        assert house.journal == ["start 1", "reconfigure 2"]
        assert await desk.calls() == 2
        # A section that plugins read is a change for them too.
        house.write(2, tts={"provider": "x"})
        assert await desk.reload() == (["phone"], [])
        assert house.host is not None
        assert house.host.section("tts") == {"provider": "x"}


async def test_each_service_of_a_plugin_takes_the_change(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = house._services
    seconds: list[Both] = []

    def two(host: GatewayHost) -> Sequence[Any]:
        seconds.append(Both(house.journal, host.plugin_config("phone")))
        return [*made(host), seconds[-1]]

    monkeypatch.setattr(house, "_services", two)
    async with opened(house) as desk:
        house.write(2)
        assert await desk.reload() == (["phone"], [])
        assert house.journal == ["start 1"] * 2 + ["reconfigure 2"] * 2
        # If one service does not accept the change, all are restarted.
        seconds[-1].answer = False
        house.write(3)
        assert await desk.reload() == (["phone"], [])
        assert house.journal.count("start 3") == 2
        assert await desk.calls() == 3


@kinds(Changing)
async def test_a_service_that_cannot_use_the_change_goes_on(house: House) -> None:
    async with opened(house) as desk:
        for error, text in (
            (VoicecallError("no such carrier"), "no such carrier"),
            (VoicecallError("not with open-sesame"), "not with ***"),
            (KeyError("x"), "internal error (KeyError), see the log"),
            (SystemExit(1), "internal error (SystemExit), see the log"),
        ):
            house.service.answer = error
            house.write(2, tts={"providers": {"loud": {"apiKey": "open-sesame"}}})
            sentence = f"the changed configuration of phone is not used: {text}"
            assert await desk.reload() == ([], [sentence])
            assert (await desk.call("gateway.reload"))["refused"] == ["phone"]
            assert await desk.calls() == 1
            assert await desk.ready() == (
                200,
                {"ready": True, "reasons": [], "waiting": [sentence]},
            )
        house.service.answer = True
        assert await desk.call("gateway.reload") == {"applied": ["phone"], "waiting": []}
        assert (await desk.call("gateway.status"))["waiting"] == []


@kinds(Telling, Both)
async def test_a_service_is_started_anew_when_nothing_is_under_way(house: House) -> None:
    async with opened(house) as desk:
        house.service.answer = False
        house.write(2)
        assert await desk.reload() == (["phone"], [])
        started = [text for text in house.journal if not text.startswith("reconfigure")]
        assert started == ["start 1", "drain", "stop 1", "start 2"]
        assert await desk.calls() == 2
        assert list(desk.gateway.host.tools) == ["phone"]


async def test_a_change_waits_while_calls_are_live(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "POLL_SECONDS", 0.01)
    async with opened(house) as desk:
        house.service.answer = False
        house.service.busy = 2
        house.write(2)
        sentence = "the changed configuration of phone waits until nothing is under way there"
        assert await desk.reload() == ([], [sentence])
        assert (await desk.call("gateway.status"))["waiting"] == [sentence]
        assert (await desk.ready())[0] == 200
        assert await desk.calls() == 1
        house.service.busy = 0
        await until(lambda: "start 2" in house.journal)
        assert (await desk.ready())[1] == {"ready": True, "reasons": []}


@kinds(Plain)
async def test_a_service_that_tells_nothing_is_left_alone(house: House) -> None:
    async with opened(house) as desk:
        house.write(2)
        sentence = "the changed configuration of phone waits for a restart of the gateway"
        assert await desk.reload() == ([], [sentence])
        # Changed back: nothing waits any more.
        house.write(1)
        assert await desk.reload() == ([], [])
        assert house.journal == ["start 1"]


@kinds(Telling)
async def test_a_service_that_cannot_tell_is_left_alone(house: House) -> None:
    async with opened(house) as desk:
        house.service.busy = RuntimeError("x")
        house.write(2)
        assert "waits for a restart" in (await desk.reload())[1][0]


async def test_plugins_are_switched_off_and_on(house: House) -> None:
    async with opened(house) as desk:
        house.write(1, enabled=False)
        assert await desk.reload() == (["phone"], [])
        assert house.journal == ["start 1", "drain", "stop 1"]
        assert "phone.calls" not in desk.gateway.host.methods
        assert desk.gateway.host.tools == {}
        assert desk.gateway.problems() == []
        house.write(3)
        assert await desk.reload() == (["phone"], [])
        assert await desk.calls() == 3


async def test_a_plugin_observes_calls_while_it_is_on(house: House) -> None:
    seen: list[Any] = []

    @hookimpl
    def ended(record: Any) -> None:
        seen.append(record)

    house.observe(ended)
    async with opened(house) as desk:
        host: Any = desk.gateway.host
        host.observe_end("before")
        house.write(1, enabled=False)
        await desk.reload()
        host.observe_end("off")
        house.write(1)
        await desk.reload()
        host.observe_end("again")
    assert seen == ["before", "again"]


async def test_what_cannot_be_used_changes_nothing(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(house) as desk:
        before = desk.gateway.loaded
        for text in ("{a: }", "{gateway: {prot: 1}}"):
            house.file.write_text(text)
            with pytest.raises(VoicecallError, match=r"config\.json5"):
                await desk.reload()
        house.write("many")
        caplog.clear()
        with pytest.raises(VoicecallError, match=r"phone\.config\.calls: "):
            await desk.reload()
        errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
        assert len(errors) == 1
        assert errors[0].getMessage().startswith("the changed configuration is not used: ")
        assert desk.gateway.loaded is before
        assert await desk.calls() == 1
        assert await desk.ready() == (200, {"ready": True, "reasons": []})
        assert (await desk.call("gateway.status"))["waiting"] == [errors[0].getMessage()]
        house.write(2)
        assert await desk.reload() == (["phone"], [])
        assert (await desk.call("gateway.status"))["waiting"] == []


async def test_what_is_worth_knowing_of_a_change_is_logged_once(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name == "voicecall.gateway"]

    caplog.set_level(logging.INFO, "voicecall")
    async with opened(house) as desk:
        house.write(1, agnets={}, tts={"voice": "${NOT_SET}"})
        caplog.clear()
        await desk.reload()
        note, warning = told()
        assert "did you mean 'agents'?" in note
        assert "tts.voice: the environment variable NOT_SET is not set" in warning
        house.write(2, agnets={}, tts={"voice": "${NOT_SET}"})
        caplog.clear()
        assert await desk.reload() == (["phone"], [])
        assert told() == []


async def test_a_plugin_that_was_wrong_from_the_start_is_mended(house: House) -> None:
    house.write("many")
    async with house.gateway().run() as gateway:
        assert "phone.config.calls" in (await gateway.wait_started())[0]
        desk = Desk(gateway)
        # Untouched, it keeps nobody else from changing.
        house.write("many", gateway={"drainSeconds": 1})
        assert await desk.reload() == ([], [])
        assert gateway.loaded.gateway.drain_seconds == 1
        house.write(4)
        assert await desk.reload() == (["phone"], [])
        assert gateway.problems() == []
        assert await desk.calls() == 4


@kinds(Telling)
async def test_a_service_that_has_failed_is_started_anew(house: House) -> None:
    class Fragile(Telling):
        broken = anyio.Event()

        @asynccontextmanager
        async def run(self) -> AsyncIterator[None]:
            async with super().run(), anyio.create_task_group() as tasks:
                tasks.start_soon(self._break)
                yield
                tasks.cancel_scope.cancel()

        async def _break(self) -> None:
            await self.broken.wait()
            raise VoicecallError("the store is gone")

    house._kind = Fragile
    async with opened(house) as desk:
        assert await desk.reload() == ([], [])
        Fragile.broken.set()
        await until(lambda: bool(desk.gateway.problems()))
        assert "the store is gone" in desk.gateway.problems()[0]
        Fragile.broken = anyio.Event()
        assert await desk.reload() == (["phone"], [])
        assert desk.gateway.problems() == []
        assert await desk.reload() == ([], [])
    assert house.journal.count("start 1") == 2


async def test_the_port_and_the_token_wait_for_a_restart(house: House) -> None:
    async with opened(house) as desk:
        house.write(gateway={"port": 1, "auth": {"token": "another"}, "tools": {"deny": ["x"]}})
        applied, waiting = await desk.reload()
        assert (applied, waiting) == (
            [],
            [
                "gateway.port has changed: restart the gateway",
                "gateway.auth has changed: restart the gateway",
            ],
        )
        assert desk.gateway.loaded.gateway.tools.deny == ("x",)
        assert desk.gateway.token == "t-t-t-t-t"


async def test_the_file_is_watched(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reloading, "POLL_SECONDS", 0.01)
    async with opened(house, watch=house.file) as desk:
        house.write(2)
        os.utime(house.file, ns=(1, 1))
        await until(lambda: "reconfigure 2" in house.journal)
        house.file.unlink()
        await until(lambda: f"{house.file}: is gone" in caplog.text)
        assert (await desk.calls(), desk.gateway.problems()) == (2, [])
        house.write(3)
        await until(lambda: "reconfigure 3" in house.journal)


async def test_a_change_before_the_file_is_watched_is_seen(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change() -> None:
        house.after_loading = lambda: None
        house.write(12)

    monkeypatch.setattr(reloading, "POLL_SECONDS", 0.01)
    house.after_loading = change
    async with opened(house, watch=house.file):
        await until(lambda: "reconfigure 12" in house.journal)


async def test_secrets_that_have_changed(house: House, tmp_path: Path) -> None:
    secret = tmp_path / "calls"
    secret.write_text("11")
    secret.chmod(0o600)
    provider = {"source": "file", "path": str(secret), "mode": "singleValue"}
    reference = {"source": "file", "provider": "s", "id": "value"}
    house.write(reference, secrets={"providers": {"s": provider}})
    async with opened(house) as desk:
        assert await desk.calls() == 11
        assert await desk.reload() == ([], [])
        secret.write_text("12")
        assert await desk.reload() == (["phone"], [])
        assert await desk.calls() == 12
        secret.unlink()
        with pytest.raises(VoicecallError, match="cannot be read"):
            await desk.reload()
        assert await desk.calls() == 12


async def test_a_configuration_that_hangs_holds_up_no_stop(house: House) -> None:
    released, asked = threading.Event(), threading.Event()
    async with opened(house) as desk:

        def hangs() -> None:
            asked.set()
            released.wait()

        house.before_loading = hangs
        desk.gateway.request_reload()
        await until(asked.is_set)
    assert house.journal[-1] == "stop 1"
    released.set()


async def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(house: House) -> None:
    async with opened(house, watch=house.file) as desk:
        house.file.unlink()
        os.mkfifo(house.file)
        with pytest.raises(VoicecallError, match="is not a regular file"):
            await desk.reload()
        assert await desk.calls() == 1


async def test_who_asks_while_an_older_change_is_taken_is_told_of_the_newest(house: House) -> None:
    going_on = anyio.Event()

    class Slow(Both):
        async def reconfigure(self, config: PhoneConfig) -> bool:
            taken = await super().reconfigure(config)
            await going_on.wait()
            return taken

    house._kind = Slow
    seen: list[int] = []

    async def ask(desk: Desk) -> None:
        assert await desk.reload() == (["phone"], [])
        seen.append(await desk.calls())

    async with opened(house) as desk, anyio.create_task_group() as tasks:
        house.write(2)
        desk.gateway.request_reload()
        await until(lambda: "reconfigure 2" in house.journal)
        house.write(3)
        tasks.start_soon(ask, desk)
        await anyio.wait_all_tasks_blocked()
        going_on.set()
    assert seen == [3]


async def test_who_asks_while_the_gateway_stops_is_answered(house: House) -> None:
    answers: list[str] = []

    class Slow(Both):
        async def reconfigure(self, config: PhoneConfig) -> bool:
            self.journal.append("slow")
            await anyio.sleep_forever()
            return True

        async def drain(self) -> None:
            await ask(desk)

    house._kind = Slow

    async def ask(desk: Desk) -> None:
        try:
            await desk.reload()
        except VoicecallError as error:
            answers.append(str(error))

    async with anyio.create_task_group() as tasks:
        async with opened(house) as desk:
            house.write(2)
            tasks.start_soon(ask, desk)
            await until(lambda: "slow" in house.journal)
    assert answers == ["the gateway is stopping"] * 2
    assert house.journal[-1] == "stop 1"
