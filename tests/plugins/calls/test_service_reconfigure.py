"""A phone that runs is given another configuration: taken, left for a new start, or refused."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.lab.puppets import PhonePlugin

from voicecall import ProviderInfo, ProviderKind
from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import CallNotReady, ConfigError, InvalidRequest
from voicecall.model import Direction
from voicecall.registry import Registry
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.operations import DialOptions
from voicecall_calls.service import PhoneService
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.runtime import Gateway
from voicecall_testing import speech
from voicecall_testing.fakes import STREAMING
from voicecall_testing.offering import offered

from .phone_registry import info

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

BASE: dict[str, Any] = {
    "provider": "mock",
    "serve": {"port": 0},
    "inboundPolicy": "open",
    "streaming": {"enabled": True, "provider": "fsk"},
    "tts": {"provider": "fsk"},
}
WEBHOOK = tel.WebhookRequest(
    method="POST", url="http://127.0.0.1", query={}, headers={}, body=b"", client="127.0.0.1"
)


@asynccontextmanager
async def running(
    directory: Path,
    *more: ProviderInfo,
    environ: Mapping[str, str] | None = None,
    session: Mapping[str, Any] | None = None,
    **over: Any,
) -> AsyncIterator[PhoneService]:
    plugin = PhonePlugin()
    registry = Registry(
        extra=[
            *map(offered, more),
            plugin.extra(),
            ("voicecall.tts", "fsk", speech),
            ("voicecall.transcription", "fsk", speech),
        ]
    )
    tree = {
        "gateway": {"port": 0, "drainSeconds": 0},
        "agents": {"defaults": {"backend": "scripted"}},
        "session": session or {},
        "plugins": {"entries": {"voice-call": {"config": {**BASE, **over}}}},
    }
    loaded = config_from_tree(tree, environ={}, state_dir=directory)
    gateway = Gateway(loaded, registry, environ=environ or {})
    async with gateway.run():
        await gateway.wait_started()
        assert plugin.service is not None
        yield plugin.service


def changed(**over: Any) -> VoiceCallConfig:
    return VoiceCallConfig.model_validate({**BASE, **over})


async def test_what_the_next_call_reads_is_taken(tmp_path: Path) -> None:
    async with running(tmp_path) as phone:
        assert phone.engine is not None
        for over in (
            {"inboundGreeting": "Hello."},
            {"inboundPolicy": "disabled"},
            {"allowFrom": ["+15550100001"]},
            {"numbers": {"+15550100021": {"inboundGreeting": "Sales."}}},
            {"maxConcurrentCalls": 5},
            {"outbound": {"allowTo": ["+1555*"]}},
            {"hangUpOnStop": True},
            {"responseTimeoutMs": 900},
            {"phrases": {"filler": "Wait."}},
            {"bargeIn": {"enabled": False}},
            {"retention": {"calls": 5, "days": 1}},
        ):
            config = changed(**over)
            assert await phone.reconfigure(config) is True, over
            assert phone.engine.config is config


async def test_the_next_calls_have_the_new_limit_of_a_message(tmp_path: Path) -> None:
    async with running(tmp_path, fromNumber="+15550001234") as phone:
        tts = {**BASE["tts"], "maxTextLength": 5}
        assert await phone.reconfigure(changed(fromNumber="+15550001234", tts=tts)) is True
        with pytest.raises(InvalidRequest, match=r"tts\.maxTextLength allows 5"):
            await phone.operations().dial(DialOptions(to="+15550001111", message="Hello."))


async def test_a_phone_without_streams_takes_changes_too(tmp_path: Path) -> None:
    native: dict[str, Any] = {"streaming": {"enabled": False}}
    async with running(tmp_path, **native) as phone:
        assert phone.engine is not None
        config = changed(**native, inboundGreeting="Hello.")
        assert await phone.reconfigure(config) is True
        assert phone.engine.config is config


async def test_what_is_made_at_the_start_is_left_for_a_new_one(tmp_path: Path) -> None:
    other = info(ProviderKind.TELEPHONY, "other", capabilities=STREAMING)
    voice = info(ProviderKind.TTS, "voice")
    async with running(tmp_path, other, voice) as phone:
        assert phone.engine is not None
        before = phone.engine.config
        for over in (
            {"enabled": False},
            {"provider": "other"},
            {"serve": {"port": 4}},
            {"webhookSecurity": {"maxInFlight": 9}},
            {"skipSignatureVerification": True},
            {"tailscale": {"mode": "serve"}},
            {"tunnel": {"provider": "another"}},
            {"realtime": {"instructions": "Be brief."}},
            {"publicUrl": "https://phone.example/voice"},
            {"streaming": {"enabled": False}},
            {"store": "elsewhere"},
            {"numbers": {"+15550100021": {"tts": {"provider": "voice"}}}},
            {"maxDurationSeconds": 20},
            {"silenceTimeoutMs": 100},
            {"bargeIn": {"detector": "another"}},
            {"mock": {"phone": {"answerAfterMs": 1}}},
        ):
            assert await phone.reconfigure(changed(**over)) is False, over
            assert phone.engine.config is before


@pytest.mark.parametrize(("scope", "key"), [("global", "global"), (None, "agent:main:main")])
async def test_calls_of_the_main_session(tmp_path: Path, scope: str | None, key: str) -> None:
    session = {"scope": scope} if scope else {}
    async with running(tmp_path, session=session, sessionScope="main") as phone:
        engine = phone.engine
        assert engine is not None
        assert await phone.reconfigure(changed(sessionScope="main", maxConcurrentCalls=5)) is True
        placed = await phone.operations().dial(DialOptions(to="+15550100001", message="Hello."))
        ringing = ev.Initiated(
            key="initiated-1",
            at=engine.seam.now_ms(),
            provider_call_id="mk-in-1",
            direction=Direction.INBOUND,
            from_number="+15550100002",
            to_number="+15550100003",
        )
        await engine.handle(WEBHOOK, tel.Verified("request-1"), [ringing])
        taken = await engine.stored("mk-in-1")
        assert taken is not None
        assert (placed.session_key, taken.session_key) == (key, key)


async def test_a_carriers_block_is_left_for_a_new_start_where_a_variable_gives_the_number(
    tmp_path: Path,
) -> None:
    environ = {"fromNumber": "WIRE_NUMBER"}
    wire = info(ProviderKind.TELEPHONY, "wire", key=True, capabilities=STREAMING, environ=environ)
    number = {"WIRE_NUMBER": "+15550001234"}
    over: dict[str, Any] = {"provider": "wire", "wire": {"apiKey": "one"}}
    async with running(tmp_path, wire, environ=number, **over) as phone:
        assert phone.engine is not None
        assert phone.engine.config.from_number == "+15550001234"
        assert await phone.reconfigure(changed(**over)) is True
        before = phone.engine.config
        assert await phone.reconfigure(changed(provider="wire", wire={"apiKey": "two"})) is False
        assert phone.engine.config is before


async def test_what_would_stop_or_deafen_the_phone_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as phone:
        assert phone.engine is not None
        before = phone.engine.config
        for over, words in (
            ({"provider": "nobody"}, "nobody"),
            # Even if a part of the change would have to wait for a restart.
            ({"serve": {"port": 4}, "provider": "nobody"}, "nobody"),
            ({"tts": {"provider": "nobody"}}, "streaming stays off: .*nobody"),
            ({"streaming": {"enabled": True, "provider": "nobody"}}, "streaming stays off"),
        ):
            with pytest.raises(ConfigError, match=words):
                await phone.reconfigure(changed(**over))
            assert phone.engine.config is before
        assert phone.problems() == []


async def test_a_phone_that_is_drained_takes_no_more_calls(tmp_path: Path) -> None:
    async with running(tmp_path, fromNumber="+15550001234") as phone:
        await phone.drain()
        with pytest.raises(CallNotReady, match="stopping"):
            await phone.operations().dial(DialOptions(to="+15550001111", message="Hi."))


async def test_a_phone_that_does_not_run_is_started_anew(tmp_path: Path) -> None:
    async with running(tmp_path, provider="nobody") as phone:
        assert phone.engine is None
        assert "nobody" in phone.problems()[0]
        assert await phone.reconfigure(changed()) is False


async def test_what_keeps_it_from_starting_is_told_to_whoever_asks(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        async with running(tmp_path, serve={"port": port}) as phone:
            with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is already in use"):
                phone.operations()
