"""A phone that starts with providers whose code is broken: what it can do without is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.errors import OutcomeUnknown, ProviderUnavailable, RequestRejected, StoreError
from voicecall.hosting import ToolCall
from voicecall.model import CallRecord
from voicecall.providers import ProviderContext, ProviderInfo, ProviderKind
from voicecall.realtime import RealtimeCapabilities
from voicecall.registry import Registry
from voicecall_calls import plugin as phone_plugin
from voicecall_calls.making import opened
from voicecall_calls.store import SqliteStore
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.runtime import Gateway
from voicecall_testing import speech
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.fakes import NATIVE, STREAMING, ScriptedCarrier
from voicecall_testing.offering import offered

from .phone_registry import info

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

HANGS_S = 10.0


def missing(config: Any, context: ProviderContext) -> Any:
    raise ModuleNotFoundError("No module named 'vendor'")


@asynccontextmanager
async def running(
    directory: Path, more: ProviderInfo, *, wait: bool = True, **over: Any
) -> AsyncIterator[Gateway]:
    """A gateway whose phone has tried to start with one provider more, or is about to."""
    config = {
        "provider": "mock",
        "serve": {"port": 0},
        "streaming": {"enabled": True, "provider": "fsk"},
        "tts": {"provider": "fsk"},
        **over,
    }
    registry = Registry(
        extra=[
            ("voicecall.gateway", phone_plugin.PLUGIN_ID, phone_plugin),
            ("voicecall.tts", "fsk", speech),
            ("voicecall.transcription", "fsk", speech),
            offered(more),
        ]
    )
    tree = {
        "gateway": {"port": 0, "drainSeconds": 0},
        "agents": {"defaults": {"backend": "scripted"}},
        "plugins": {"entries": {"voice-call": {"config": config}}},
    }
    gateway = Gateway(config_from_tree(tree, environ={}, state_dir=directory), registry)
    async with gateway.run():
        if wait:
            await gateway.wait_started()
        yield gateway


@asynccontextmanager
async def started(directory: Path, more: ProviderInfo, **over: Any) -> AsyncIterator[list[str]]:
    """The problems that such a gateway tells."""
    async with running(directory, more, **over) as gateway:
        yield list(gateway.problems())


async def test_a_detector_of_voices_that_cannot_be_made_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = replace(info(ProviderKind.TURN, "broken"), factory=missing)
    async with started(tmp_path, broken, bargeIn={"detector": "broken"}) as problems:
        assert problems == []
    assert (
        "the turn provider 'broken' cannot be used: ModuleNotFoundError: No module named 'vendor';"
        " speech recognition alone interrupts" in caplog.text
    )


@pytest.mark.parametrize(
    ("kind", "over"),
    [
        (ProviderKind.TELEPHONY, {"provider": "broken"}),
        (ProviderKind.TRANSCRIPTION, {"streaming": {"enabled": True, "provider": "broken"}}),
        (
            ProviderKind.REALTIME,
            {"streaming": {}, "realtime": {"enabled": True, "provider": "broken"}},
        ),
        (ProviderKind.STORE, {"store": {"provider": "broken"}}),
    ],
)
async def test_a_provider_that_is_needed_is_named(
    tmp_path: Path, kind: ProviderKind, over: dict[str, Any]
) -> None:
    broken = replace(info(kind, "broken"), factory=missing)
    if kind is ProviderKind.TELEPHONY:
        broken = replace(broken, capabilities=STREAMING)
    async with started(tmp_path, broken, **over) as problems:
        [problem] = problems
        assert problem.endswith(
            f"cannot start: the {kind.value} provider 'broken' cannot be used:"
            " ModuleNotFoundError: No module named 'vendor'"
        )


def closed(config: Any, context: ProviderContext) -> Any:
    class Closed(SqliteStore):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            shelves: dict[str, None] = {}
            yield shelves["shelf"]

    return Closed(context.state_dir, context.seam)


async def test_a_store_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    broken = replace(info(ProviderKind.STORE, "broken"), factory=closed)
    async with started(tmp_path, broken, store={"provider": "broken"}) as problems:
        [problem] = problems
        assert problem.endswith("the store provider 'broken' cannot be used: KeyError: 'shelf'")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            StoreError("calls.db: the disk image is malformed"),
            "calls.db: the disk image is malformed",
        ),
        (OverflowError("too large"), "internal error (OverflowError), see the log"),
    ],
)
async def test_who_asks_the_phone_is_told_why_the_live_calls_cannot_be_read(
    tmp_path: Path, error: Exception, told: str
) -> None:
    class Torn(SqliteStore):
        async def live(self) -> Sequence[CallRecord]:
            raise error

    torn = replace(
        info(ProviderKind.STORE, "torn"),
        factory=lambda config, context: Torn(tmp_path / "calls", context.seam),
    )
    async with running(tmp_path, torn, store={"provider": "torn"}) as gateway:
        tool = gateway.host.tools["voice_call"]
        answer = await tool.handler({"action": "get_status"}, ToolCall(frozenset()))
        assert answer["details"]["error"] == f"the phone is not running: {told}"


@pytest.mark.parametrize("named", [True, False])
async def test_a_carrier_that_nobody_named_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, named: bool
) -> None:
    loaded = config_from_tree(
        {
            "gateway": {"port": 0, "drainSeconds": 0},
            "plugins": {
                "entries": {
                    "voice-call": {
                        "config": {"serve": {"port": 0}, **({"provider": "mock"} if named else {})}
                    }
                }
            },
        },
        environ={},
        state_dir=tmp_path,
    )
    gateway = Gateway(loaded, Registry())
    async with gateway.run():
        assert await gateway.wait_started() == []
    told = "config.provider is not set: calls go through Mock exchange"
    assert (told in caplog.text) is not named


async def test_what_may_be_a_mistake_is_told_once_however_often_a_start_is_tried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicecall_gateway.services.FIRST_WAIT_S", 0.0)
    starts = []
    again = anyio.Event()

    def away(config: Any, context: ProviderContext) -> Any:
        starts.append(context)
        if len(starts) == 2:
            again.set()
        raise StoreError("the database is away")

    more = replace(info(ProviderKind.STORE, "away"), factory=away)
    phone: dict[str, Any] = {
        "store": {"provider": "away"},
        "inboundGreeting": "Good day, {caller}.",
    }
    async with running(tmp_path, more, **phone):
        with anyio.fail_after(30):
            await again.wait()
    assert caplog.text.count("inboundGreeting: {caller} is spoken literally") == 1


async def test_who_asks_a_phone_that_stops_is_told_so(tmp_path: Path) -> None:
    async with running(tmp_path, info(ProviderKind.TURN, "spare")) as gateway:
        tool = gateway.host.tools["voice_call"]
    answer = await tool.handler({"action": "get_status"}, ToolCall(frozenset()))
    told = "the phone is not running: it is starting or stopping; try again"
    assert answer["details"]["error"] == told


class Full(SqliteStore):
    def problems(self) -> Sequence[str]:
        return ["calls cannot be stored: the disk is full"]


async def test_a_store_that_stores_nothing_keeps_the_phone_from_being_ready(tmp_path: Path) -> None:
    full = replace(
        info(ProviderKind.STORE, "full"),
        factory=lambda config, context: Full(tmp_path / "calls", context.seam),
    )
    async with started(tmp_path, full, store={"provider": "full"}) as problems:
        assert problems == ["calls cannot be stored: the disk is full"]


def leaving(config: Any, context: Any) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("factory", "why"),
    [
        (lambda config, context: None, "TypeError: its factory returns NoneType, not a provider"),
        (leaving, "SystemExit: 3"),
    ],
)
async def test_a_factory_that_returns_no_provider_is_named(
    tmp_path: Path, factory: Any, why: str
) -> None:
    idle = replace(info(ProviderKind.TRANSCRIPTION, "idle"), factory=factory)
    streaming = {"streaming": {"enabled": True, "provider": "idle"}}
    async with started(tmp_path, idle, **streaming) as problems:
        [problem] = problems
        assert problem.endswith(why)


@pytest.mark.parametrize("formats", [(), ("mulaw",), None])
async def test_a_voice_model_without_formats_is_named(tmp_path: Path, formats: Any) -> None:
    model = ScriptedRealtime(RealtimeCapabilities(formats=formats))
    mute = replace(info(ProviderKind.REALTIME, "mute"), factory=lambda config, context: model)
    over = {"streaming": {"enabled": False}, "realtime": {"enabled": True, "provider": "mute"}}
    async with started(tmp_path, mute, **over) as problems:
        [problem] = problems
        assert "TypeError: its capabilities must name at least one audio format" in problem


@pytest.mark.parametrize(
    "headers", [(), "x-signature", ("x-signature",), (("X-Signature",),), ((),)]
)
async def test_a_carrier_whose_signature_headers_no_webhook_has_is_named(
    tmp_path: Path, headers: Any
) -> None:
    class Misread(ScriptedCarrier):
        signature_headers = headers

    carrier = replace(
        info(ProviderKind.TELEPHONY, "misread", capabilities=STREAMING),
        factory=lambda config, context: Misread(),
    )
    async with started(tmp_path, carrier, provider="misread") as problems:
        [problem] = problems
        assert "'misread' cannot be used: TypeError: its signature_headers must be sets" in problem


class Unable(ScriptedCarrier):
    def __init__(self) -> None:
        super().__init__()
        del self.capabilities


class Asked(ScriptedCarrier):
    def signature_headers(self) -> Any:  # type: ignore[override]
        return (("x-signature",),)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda config, context: None, "its factory returns NoneType, not a TelephonyProvider"),
        (lambda config, context: Unable(), "its capabilities differ from those in its"),
        (lambda config, context: ScriptedCarrier(NATIVE), "its capabilities differ from those in"),
        (lambda config, context: Asked(), "its signature_headers must be sets of lower-case names"),
    ],
)
async def test_a_carrier_that_is_not_what_its_package_says_is_named(
    tmp_path: Path, make: Any, why: str
) -> None:
    carrier = replace(
        info(ProviderKind.TELEPHONY, "odd", capabilities=STREAMING),
        factory=make,
    )
    async with started(tmp_path, carrier, provider="odd") as problems:
        [problem] = problems
        assert f"the telephony provider 'odd' cannot be used: TypeError: {why}" in problem


@pytest.mark.parametrize("error", [KeyError("webhooks"), SystemExit(2)])
async def test_a_carrier_that_cannot_be_told_of_webhooks_keeps_no_phone_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    class Forgetful(ScriptedCarrier):
        async def register_webhook(self, url: str) -> None:
            raise error

    carrier = replace(
        info(ProviderKind.TELEPHONY, "forgetful", capabilities=STREAMING),
        factory=lambda config, context: Forgetful(),
    )
    async with started(tmp_path, carrier, provider="forgetful") as problems:
        assert problems == []
    assert "the carrier could not be told where inbound calls go" in caplog.text


@pytest.mark.parametrize("anyio_backend", [virtual_backend])
@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ProviderUnavailable("down", provider="away"), [1, 2, 3, 4, 4]),
        (OutcomeUnknown("no reply", provider="away"), [1, 2, 3, 4, 4]),
        (RequestRejected("no", provider="away"), [1, 1, 1, 1, 1]),
    ],
)
async def test_a_carrier_that_was_away_at_the_start_is_told_of_webhooks_later(
    tmp_path: Path, error: Exception, counts: list[int]
) -> None:
    urls: list[str] = []

    class Away(ScriptedCarrier):
        async def register_webhook(self, url: str) -> None:
            urls.append(url)
            if len(urls) < 4:
                raise error

    carrier = replace(
        info(ProviderKind.TELEPHONY, "away", capabilities=STREAMING),
        factory=lambda config, context: Away(),
    )
    async with started(tmp_path, carrier, provider="away") as problems:
        assert problems == []
        found = [len(urls)]
        for pause in (1, 2, 4, 600):
            await anyio.sleep(pause + 0.1)
            found.append(len(urls))
    assert found == counts
    assert len(set(urls)) == 1


@pytest.mark.parametrize("kind", [ProviderKind.TELEPHONY, ProviderKind.TTS])
async def test_a_provider_that_never_opens_does_not_hold_up_the_stop(
    tmp_path: Path,
    kind: ProviderKind,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voicecall_calls.apart._LEAVES_S", 0.05)
    monkeypatch.setattr("voicecall_calls.making._SLOW_S", 0.05)
    begun = anyio.Event()

    class Hanging(ScriptedCarrier):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            begun.set()
            # As a call of a vendor's library does that hangs in a thread.
            with anyio.CancelScope(shield=True):
                await anyio.sleep(HANGS_S)
            yield

    over: dict[str, Any] = {"tts": {"provider": "hanging"}}
    hanging = info(kind, "hanging")
    if kind is ProviderKind.TELEPHONY:
        over = {"provider": "hanging"}
        hanging = replace(hanging, capabilities=STREAMING)
    hanging = replace(hanging, factory=lambda config, context: Hanging())
    name = f"the {kind.value} provider 'hanging'"
    with anyio.fail_after(30):
        async with running(tmp_path, hanging, wait=False, **over):
            await begun.wait()
            while f"{name} is still being opened, and the phone" not in caplog.text:
                await anyio.sleep(0.01)
    assert f"{name} does not end when it is cancelled; it is abandoned" in caplog.text


async def test_a_provider_that_is_open_is_not_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicecall_calls.making._SLOW_S", 0.01)
    async with opened(ScriptedCarrier(), info(ProviderKind.TELEPHONY, "quick")):
        await anyio.sleep(0.02)
    assert "still being opened" not in caplog.text


@pytest.mark.parametrize("slow", ["lifespan", "register_webhook"])
async def test_who_asks_the_phone_is_told_what_its_carrier_takes_time_for(
    tmp_path: Path, slow: str
) -> None:
    begun = anyio.Event()

    async def wait(part: str) -> None:
        if part == slow:
            begun.set()
            await anyio.sleep_forever()

    class Slow(ScriptedCarrier):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            await wait("lifespan")
            yield

        async def register_webhook(self, url: str) -> None:
            await wait("register_webhook")

    carrier = replace(
        info(ProviderKind.TELEPHONY, "slow", capabilities=STREAMING),
        factory=lambda config, context: Slow(),
    )
    async with running(tmp_path, carrier, wait=False, provider="slow") as gateway:
        with anyio.fail_after(30):
            await begun.wait()
        answer = await gateway.host.tools["voice_call"].handler(
            {"action": "get_status"}, ToolCall(frozenset())
        )
        doing = "being opened" if slow == "lifespan" else "told where inbound calls go"
        assert answer["details"]["error"] == f"the phone is starting: Slow is {doing}"


async def test_a_key_of_the_probe_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "voice-calls" / "probe.key"
    file.mkdir(parents=True)
    spare = info(ProviderKind.TURN, "spare")
    async with started(tmp_path, spare) as problems:
        [problem] = problems
        assert f"{file}: the key of setup --probe cannot be used (Is a directory)" in problem


STARTED = """
import json, sys
from pathlib import Path
import anyio
from voicecall.registry import Registry
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.runtime import Gateway
from voicecall_testing import speech
from voicecall_testing.clock import virtual_backend

async def main():
    phone = {"serve": {"port": 0}, **json.loads(sys.argv[2])}
    tree = {
        "gateway": {"port": 0, "drainSeconds": 0},
        "plugins": {"entries": {"voice-call": {"config": phone}}},
    }
    registry = Registry(
        extra=[("voicecall.tts", "fsk", speech), ("voicecall.transcription", "fsk", speech)]
    )
    loaded = config_from_tree(tree, environ={}, state_dir=Path(sys.argv[1]))
    async with Gateway(loaded, registry).run() as gateway:
        problems = await gateway.wait_started()
        print(json.dumps([list(problems), list(sys.modules)]))

anyio.run(main)
"""


@pytest.mark.parametrize(
    ("phone", "needed"),
    [
        ({}, "nativetalk"),
        (
            {"streaming": {"enabled": True, "provider": "fsk"}, "tts": {"provider": "fsk"}},
            "streaming",
        ),
        ({"realtime": {"enabled": True, "provider": "echo"}}, "realtime.conversation"),
    ],
)
def test_what_calls_are_held_with_is_imported_before_the_first(
    tmp_path: Path, phone: dict[str, Any], needed: str
) -> None:
    command = [sys.executable, "-c", STARTED, str(tmp_path), json.dumps(phone)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    problems, modules = json.loads(done.stdout)
    assert problems == []
    assert f"voicecall_calls.conversation.{needed}" in modules
