"""The key ``store``: a directory or an object that names a provider, and mistakes in it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import structs

from voicecall.configuring import ConfigModel, validate
from voicecall.errors import ConfigError, PluginError
from voicecall.hosting import SetupCheck, SetupContext
from voicecall.model import CallRecord, CallState, Direction
from voicecall.providers import ProviderContext, ProviderKind
from voicecall.registry import Registry
from voicecall.seam import SystemSeam
from voicecall.store import Commit
from voicecall_calls import plugin as phone_plugin
from voicecall_calls.checks import setup_checks
from voicecall_calls.commands import offline
from voicecall_calls.commands.offline import answer
from voicecall_calls.config import StoreConfig, VoiceCallConfig
from voicecall_calls.store import SqliteStore
from voicecall_calls.store.postgres import PostgresStore
from voicecall_calls.storing import selected_store, store_directory
from voicecall_calls.wiring import require, resolve
from voicecall_gateway.config import config_from_tree
from voicecall_testing.offering import offered

from .phone_registry import KeyConfig, info

pytestmark = pytest.mark.unit

URL = "postgresql://phone:secret@db.example/calls"
STATE = Path("/state")
RECORD = CallRecord(
    call_id="c-1",
    provider="mock",
    direction=Direction.OUTBOUND,
    state=CallState.COMPLETED,
    from_number="+15550000000",
    to_number="+15550001111",
    started_at=1,
    ended_at=2,
)


def config(store: Any = None) -> VoiceCallConfig:
    return validate(VoiceCallConfig, {} if store is None else {"store": store}, "here")


def made(store: Any, **environ: str) -> Any:
    info, values = require(selected_store(config(store), Registry(), environ, STATE))
    return info.factory(values, ProviderContext(STATE))


@pytest.mark.parametrize(
    ("store", "directory"),
    [
        (None, "/state/voice-calls"),
        ("", "/state/voice-calls"),
        ("/calls", "/calls"),
        ({"provider": "sqlite"}, "/state/voice-calls"),
        ({"provider": "sqlite", "directory": "/calls"}, "/calls"),
    ],
)
def test_sqlite_is_the_default(store: Any, directory: str) -> None:
    assert store_directory(config(store), STATE) == Path(directory)
    found = made(store)
    assert isinstance(found, SqliteStore)
    assert repr(found) == f"SqliteStore('{directory}/calls.db')"


def test_a_directory_below_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/phone")
    assert store_directory(config("~/calls"), STATE) == Path("/home/phone/calls")


@pytest.mark.parametrize("block", [{"url": URL}, {}])
def test_postgres(block: dict[str, str]) -> None:
    found = made({"provider": "postgres", **block}, VOICECALL_DATABASE_URL=URL)
    assert isinstance(found, PostgresStore)
    assert repr(found) == "PostgresStore('postgresql://db.example:5432/calls')"


def test_the_journal_of_postgres() -> None:
    block = {"provider": "postgres", "url": URL, "directory": "/journal"}
    assert store_directory(config(block), STATE) == Path("/journal")
    assert store_directory(config({"provider": "postgres"}), STATE) == STATE / "voice-calls"


@pytest.mark.parametrize(
    ("store", "error", "words"),
    [
        ({"provider": "postgres"}, ConfigError, r"store\.url.*VOICECALL_DATABASE_URL"),
        ({"provider": "postgres", "url": "mysql://u:secret@h/d"}, ConfigError, r"store\.url"),
        ({"provider": "postgres", "url": URL, "ulr": 1}, ConfigError, r"ulr.*did you mean 'url'"),
        (
            {"provider": "postgrse"},
            PluginError,
            r"^plugins\.entries\.voice-call\.config\.store\.provider: .*mean 'postgres'",
        ),
        ({"provider": "sqlite", "url": URL}, ConfigError, r"store\.url: unknown key"),
        ({"provider": "sqlite", "directory": 5}, ConfigError, r"store: must be the path of a dir"),
        (URL, ConfigError, r"store: must be the path of a directory, not a URL; .*{ provider"),
        ("/calls\0", ConfigError, r"store: must be the path of a directory"),
        ("~no-such-user/calls", ConfigError, r"store: .*write the path in full"),
    ],
)
def test_what_is_wrong_is_named(store: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        selected_store(config(store), Registry(), {}, STATE)
    assert "secret" not in str(caught.value)
    wiring = resolve(config(store), registry=Registry(), environ={}, agents={}, tts={})
    assert str(caught.value) in wiring.problems


@pytest.mark.parametrize("store", [3, ["/calls"], {"url": URL}])
def test_a_store_that_is_no_choice(store: Any) -> None:
    with pytest.raises(ConfigError, match=r"here\.store"):
        config(store)


def test_credentials_are_not_shown() -> None:
    chosen = config({"provider": "postgres", "url": URL}).store
    assert isinstance(chosen, StoreConfig)
    assert chosen.block == {"url": URL}
    block = {"provider": "postgres", "url": URL}
    values = selected_store(config(block), Registry(), {}, STATE).config
    for text in (repr(chosen), str(chosen), repr(values), repr(config({"provider": "p"}))):
        assert "secret" not in text


def test_postgres_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(PluginError, match=r'pip install "voicecall\[postgres\]"'):
        made({"provider": "postgres", "url": URL})


def setup_of_postgres(state_dir: Path, url: str = URL) -> dict[str, SetupCheck]:
    tree = {"store": {"provider": "postgres", "url": url}, "serve": {"port": 0}}
    chosen = validate(VoiceCallConfig, tree, "here")
    context = SetupContext(
        registry=Registry(),
        plugin_config=lambda plugin: chosen,
        section=lambda name: {},
        enabled=lambda plugin: True,
        environ={},
        state_dir=state_dir,
    )
    return {check.id: check for check in setup_checks(context)}


def test_setup_finds_a_url_that_cannot_be_read(tmp_path: Path) -> None:
    check = setup_of_postgres(tmp_path, "postgresql://u:one/secret@h/d")["store"]
    assert not check.ok
    assert "PostgreSQL: the URL of the PostgreSQL store is invalid" in check.message
    assert "secret" not in check.message


@pytest.mark.parametrize("installed", [True, False])
def test_setup_finds_that_the_extra_of_postgres_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, installed: bool
) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "psycopg", None)
    found = setup_of_postgres(tmp_path)
    assert found["provider-config"].ok
    assert ("store" in found) is not installed
    if not installed:
        assert not found["store"].ok
        assert "PostgreSQL: the store postgres needs its extra: pip" in found["store"].message


class JournalConfig(ConfigModel):
    directory: str | None = None


@pytest.mark.parametrize(
    ("named", "model"), [(True, KeyConfig), (True, JournalConfig), (False, KeyConfig)]
)
def test_a_look_without_a_gateway_asks_a_store_whose_calls_are_elsewhere(
    tmp_path: Path, named: bool, model: type[ConfigModel]
) -> None:
    def elsewhere(values: Any, context: ProviderContext) -> SqliteStore:
        return SqliteStore(tmp_path / "elsewhere", context.seam)

    async def keep_a_call() -> None:
        store = SqliteStore(tmp_path / "elsewhere", SystemSeam())
        async with store.lifespan():
            await store.commit(Commit(record=RECORD))

    anyio.run(keep_a_call)
    far = replace(info(ProviderKind.STORE, "far"), factory=elsewhere, config_model=lambda: model)
    phone = {"store": {"provider": "far"}} if named else {}
    tree = {"plugins": {"entries": {"voice-call": {"config": phone}}}}
    extra = [
        ("voicecall.gateway", phone_plugin.PLUGIN_ID, phone_plugin),
        offered(far),
    ]
    loaded = config_from_tree(tree, environ={}, state_dir=tmp_path / "state")
    asked = {"callId": RECORD.call_id}
    found = answer(loaded, Registry(extra=extra), {}, "voicecall.status", asked)
    assert found["found"] is named
    assert not (tmp_path / "state" / "voice-calls").exists()


@pytest.mark.parametrize(("carrier", "asked"), [("mock", "old"), ("later", "new")])
def test_a_look_without_a_gateway_finds_a_call_by_the_carriers_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carrier: str, asked: str
) -> None:
    """However many calls came after it; only another carrier's are searched one by one."""
    monkeypatch.setattr(offline, "_MOST_LOOKED_AT", 1)

    async def keep_calls() -> None:
        store = SqliteStore(tmp_path / "voice-calls", SystemSeam())
        async with store.lifespan():
            for at, name in enumerate(("old", "new")):
                call = structs.replace(RECORD, call_id=f"c-{name}", started_at=at, aliases=(name,))
                await store.commit(Commit(record=call))

    anyio.run(keep_calls)
    tree = {"plugins": {"entries": {"voice-call": {"config": {"provider": carrier}}}}}
    extra = [("voicecall.gateway", phone_plugin.PLUGIN_ID, phone_plugin)]
    loaded = config_from_tree(tree, environ={}, state_dir=tmp_path)
    found = answer(loaded, Registry(extra=extra), {}, "voicecall.status", {"callId": asked})
    assert found["call"]["callId"] == f"c-{asked}"
