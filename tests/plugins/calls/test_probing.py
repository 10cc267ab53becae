"""``setup --probe``: the carrier is asked, and the public URL fetched."""

from __future__ import annotations

import resource
import secrets
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.abc
import pytest
from tests.ports import reserve_port

from voicecall import ProviderKind
from voicecall.configuring import validate
from voicecall.errors import ConfigError
from voicecall.hosting import SetupContext
from voicecall.telephony import Probe
from voicecall_calls.checks import setup_checks
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.probing import PhoneProbe, media_url_check, public_url_check
from voicecall_calls.server.challenge import answering
from voicecall_testing.fakes import NATIVE, ScriptedCarrier

from .phone_registry import info, registry

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


async def test_a_public_url_that_answers_byte_by_byte_is_not_waited_for() -> None:
    async def drip(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while True:
                    await stream.send(b".")
                    await anyio.sleep(0.01)
            except anyio.BrokenResourceError:
                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    url = f"http://127.0.0.1:{port}/voice/webhook"
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, drip)
        check = await public_url_check(url, lambda challenge: "ours", 0.5)
        tasks.cancel_scope.cancel()
    assert (check.ok, check.message) == (False, f"{url} does not answer within 0.5 s")


class Faulty(ScriptedCarrier):
    async def probe(self, webhook_url: str, numbers: Sequence[str]) -> Sequence[Probe]:
        raise KeyError("numbers")


async def test_a_carrier_whose_probe_has_a_fault_is_named_and_the_url_is_fetched(
    tmp_path: Path,
) -> None:
    faulty = replace(
        info(ProviderKind.TELEPHONY, "faulty", capabilities=NATIVE),
        factory=lambda config, context: Faulty(NATIVE),
    )
    url = f"http://127.0.0.1:{reserve_port()}/voice/webhook"
    config = {"provider": "faulty", "publicUrl": url, "serve": {"port": 0}}
    context = SetupContext(
        registry=registry(more=[faulty]),
        plugin_config=lambda plugin: validate(VoiceCallConfig, config, "here"),
        section=lambda name: {},
        enabled=lambda plugin: True,
        environ={},
        state_dir=tmp_path,
    )
    probed, fetched = await PhoneProbe(context).run()
    assert (probed.id, probed.ok) == ("probe", False)
    assert probed.message == ("the telephony provider 'faulty' cannot be used: KeyError: 'numbers'")
    assert (fetched.id, fetched.ok) == ("public-url", False)


@pytest.mark.parametrize(
    ("config", "agents"),
    [
        ({"inboundPolicy": "opn"}, {}),
        ({"provider": "scripted"}, {"list": 5}),
        ({"provider": "unmakable"}, {}),
    ],
)
async def test_what_the_local_checks_say_already_is_not_said_again(
    tmp_path: Path, config: dict[str, str], agents: dict[str, int]
) -> None:
    def make(config: object, context: object) -> ScriptedCarrier:
        raise ConfigError("cannot be made")

    unmakable = replace(
        info(ProviderKind.TELEPHONY, "unmakable", capabilities=NATIVE), factory=make
    )
    context = SetupContext(
        registry=registry(more=[unmakable]),
        plugin_config=lambda plugin: validate(VoiceCallConfig, config, "here"),
        section=lambda name: agents if name == "agents" else {},
        enabled=lambda plugin: True,
        environ={},
        state_dir=tmp_path,
    )
    assert not all(check.ok for check in setup_checks(context))
    assert await PhoneProbe(context).run() == ()


@pytest.mark.parametrize(
    ("answer", "ok", "words"),
    [
        (b"101 Switching Protocols", True, "media sockets can be opened at ws://"),
        (b"502 Bad Gateway", False, "answers 502 to a media socket: check that the proxy forwards"),
    ],
)
async def test_a_media_socket_is_opened_as_a_carrier_does(
    answer: bytes, ok: bool, words: str
) -> None:
    heads: list[bytes] = []

    async def proxy(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            heads.append(await stream.receive())
            upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n" if ok else b""
            await stream.send(b"HTTP/1.1 " + answer + b"\r\n" + upgrade + b"\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    url = f"ws://127.0.0.1:{port}/voice/stream"
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, proxy)
        check = await media_url_check(url)
        tasks.cancel_scope.cancel()
    assert (check.id, check.ok) == ("media-url", ok)
    assert words in check.message
    assert b"upgrade: websocket" in heads[0].lower()


def test_a_full_disk_keeps_nothing_of_a_key_that_it_could_not_take(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(ConfigError, match=r"probe\.key: .* cannot be used"):
            answering(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [*(tmp_path / "voice-calls").iterdir()] == []
    assert answering(tmp_path)("x") == answering(tmp_path)("x")
    assert [file.name for file in (tmp_path / "voice-calls").iterdir()] == ["probe.key"]


def test_a_key_that_a_power_cut_has_left_empty_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "voice-calls"
    folder.mkdir()
    (folder / "probe.key").touch()
    answer = answering(tmp_path)("x")
    assert len((folder / "probe.key").read_bytes()) == 64
    assert answering(tmp_path)("x") == answer


def test_the_key_is_this_user_s_alone_and_the_first_of_two_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    folder = state / "voice-calls"
    real, others = secrets.token_hex, []

    def token_hex(size: int) -> str:
        # Another process makes one meanwhile.
        monkeypatch.setattr(secrets, "token_hex", real)
        others.append(answering(state)("x"))
        return real(size)

    monkeypatch.setattr(secrets, "token_hex", token_hex)
    assert [answering(state)("x")] == others
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (state, *folder.iterdir())}
    assert modes == {"state": 0o700, "probe.key": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
