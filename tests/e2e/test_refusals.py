"""Invalid configurations, webhooks and requests are refused with a status or one sentence."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import anyio
import httpx
import pytest
from pydantic import Field
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from voicecall import ProviderInfo, ProviderKind
from voicecall.configuring import ConfigModel
from voicecall.errors import CallNotActive, CallNotFound, ConfigError, InvalidRequest
from voicecall.hosting import RpcCall
from voicecall.registry import Registry
from voicecall.telephony import TelephonyCapabilities
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.runtime import Gateway
from voicecall_mock.exchange import HangUp, Say, Silent, WaitForSilence
from voicecall_mock.protocol import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from voicecall_testing.offering import offered

from .lab.carriers import CARRIERS, CLINIC
from .lab.process import Home
from .lab.puppets import Puppet
from .lab.town import GREETING, PATIENCE_S, open_town, rows_of, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio, pytest.mark.usefixtures("backstage")]

WAIT = WaitForSilence(300)
_WRITE = RpcCall("test", frozenset({"operator.write"}))


# --- configuration ---------------------------------------------------------------------------


def tree_of(**config: Any) -> dict[str, Any]:
    return {"plugins": {"entries": {"voice-call": {"config": config}}}}


def test_a_malformed_file_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.configure({})
    home.config.write_text("{ gateway: { port: 1 ")
    for command in (("gateway", "run"), ("setup",), ("status",)):
        assert str(home.config) in home.run(*command).one_sentence()


def test_an_unknown_key_is_named_with_its_path_and_a_suggestion(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.configure(tree_of(inboundPolcy="open"))
    output = home.run("setup", "--json")
    assert output.status == 1
    messages = " ".join(c["message"] for c in output.document["checks"] if not c["ok"])
    assert "plugins.entries.voice-call.config.inboundPolcy" in messages
    assert "inboundPolicy" in messages
    refused = home.run("call", "--to", "+15555550123", "--message", "Hello.")
    assert refused.status != 0
    assert "inboundPolcy" in refused.err
    assert "Traceback" not in refused.err
    assert not (home.state_dir / "voice-calls").exists()


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"agents": {"defaults": {"model": 5}}}, "agents.defaults.model: must be the name"),
        ({"tts": {"timeoutMs": 5}}, "tts.timeoutMs: must be at least 1000"),
        (
            {"agents": {"list": [{"id": "a"}]}, **tree_of(agentId="b")},
            "plugins.entries.voice-call.config.agentId: no agent 'b' in agents.list",
        ),
        (
            {
                "agents": {"list": [{"id": "a"}]},
                **tree_of(numbers={"+15550001111": {"agentId": "b"}}),
            },
            "numbers.+15550001111.agentId: no agent 'b' in agents.list",
        ),
        (tree_of(provider="mok"), "config.provider: no voicecall.telephony provider 'mok'"),
        (
            {"agents": {"defaults": {"backend": "scriptd"}}},
            "agents.defaults.backend: no voicecall.agent provider 'scriptd'",
        ),
        (
            {"agents": {"backends": {"scripted": {"rulez": []}}}},
            "agents.backends.scripted.rulez: unknown key",
        ),
        (
            tree_of(store={"provider": "sqlit"}),
            "config.store.provider: no voicecall.store provider 'sqlit'",
        ),
        (tree_of(store={"provider": "sqlite", "dir": "x"}), "config.store.dir: unknown key"),
    ],
)
def test_config_check_finds_what_keeps_the_phone_from_starting(
    tmp_path: Path, tree: dict[str, Any], words: str
) -> None:
    home = Home(tmp_path)
    home.configure(tree)
    checked = home.run("config", "check", "--json")
    assert checked.status == 1
    (problem,) = checked.document["problems"]
    assert words in problem
    assert checked.document["warnings"] == []


def test_config_check_tells_what_is_ignored_and_why_media_streams_stay_off(tmp_path: Path) -> None:
    home = Home(tmp_path)
    streaming = {"enabled": True, "provider": "pocketsphnx"}
    phone = tree_of(streaming=streaming, twlio={"accountSid": "AC1"})
    home.configure({**phone, "tts": {"provider": "espek"}})
    checked = home.run("config", "check", "--json")
    assert (checked.status, checked.document["problems"]) == (0, [])
    heard, spoken, block = checked.document["warnings"]
    assert "config.twlio is ignored: no such carrier is installed; did you mean 'twilio'?" in block
    assert "streaming.provider: no voicecall.transcription provider 'pocketsphnx'" in heard
    assert "tts.provider: no voicecall.tts provider 'espek'" in spoken


def test_config_check_minds_no_credential_that_only_the_gateway_has(tmp_path: Path) -> None:
    home = Home(tmp_path)
    phone = {"provider": "twilio", "store": {"provider": "postgres"}}
    home.configure(tree_of(**phone, tunnel={"provider": "burrow"}))
    checked = home.run("config", "check", "--json")
    assert (checked.status, checked.document["problems"]) == (0, [])
    told = " ".join(checked.document["warnings"])
    for missing in ("TWILIO_AUTH_TOKEN", "VOICECALL_DATABASE_URL", "no tunnel 'burrow'"):
        assert missing in told


def test_config_check_looks_at_a_block_whose_credential_only_the_gateway_has(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    twilio = {"accountSid": "AC1", "region": "mars", "voise": "Polly.Joanna", "authToken": "${NO}"}
    home.configure(tree_of(provider="twilio", twilio=twilio))
    checked = home.run("config", "check", "--json")
    path = "plugins.entries.voice-call.config.twilio"
    told = " ".join(checked.document["warnings"])
    assert f"{path}.region: must be 'us1', 'ie1' or 'au1'" in told
    assert f"{path}.voise: unknown key; did you mean 'voice'?" in told


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "the carrier cannot reach the webhooks: set {}, or open a tunnel"),
        ("http://voice.example.com/hook", "{}: http://voice.example.com/hook cannot be reached"),
        ("https://192.168.0.7/hook", "{}: https://192.168.0.7/hook cannot be reached"),
        ("https://voice.example.com/hook", None),
    ],
)
def test_config_check_tells_that_no_webhook_will_come(
    tmp_path: Path, url: str | None, words: str | None
) -> None:
    home = Home(tmp_path)
    twilio = {"accountSid": "AC1", "authToken": "token"}
    phone = {"provider": "twilio", "fromNumber": "+15550100001", "twilio": twilio}
    home.configure(tree_of(**phone, **({"publicUrl": url} if url else {})))
    key = "plugins.entries.voice-call.config.publicUrl"
    checked = home.run("config", "check", "--json")
    assert (checked.status, checked.document["problems"]) == (0, [])
    told = checked.document["warnings"]
    if words is None:
        assert told == []
        return
    [text] = told
    assert words.format(key) in text
    setup = home.run("setup", "--json")
    checks = {check["id"]: check for check in setup.document["checks"]}
    assert words.format(key) in checks["webhook-exposure"]["message"]
    # A URL that does not lead here must not be entered at the carrier.
    assert "number-urls" not in checks


@pytest.mark.parametrize(
    "store", ["${CALLS_DIR}/calls", {"provider": "postgres", "url": "postgresql://a:${PW}@db/x"}]
)
def test_a_text_whose_variable_is_missing_is_no_value(tmp_path: Path, store: Any) -> None:
    home = Home(tmp_path)
    twilio = {"accountSid": "AC1", "authToken": "token-${NIGHT}"}
    home.configure(tree_of(provider="twilio", twilio=twilio, store=store))
    checked = home.run("config", "check", "--json")
    # The gateway's own environment may have the variables.
    assert (checked.status, checked.document["problems"]) == (0, [])
    told = " ".join(checked.document["warnings"])
    assert "Twilio is not configured: plugins.entries.voice-call.config.twilio.authToken" in told
    assert "the environment variable NIGHT is not set" in told
    assert re.search(r"config\.store\.(url|directory): is required", told)
    assert not (tmp_path / "${CALLS_DIR}").exists()


class AcmeConfig(ConfigModel):
    api_key: str = Field(min_length=1, repr=False)


ACME = ProviderInfo(
    kind=ProviderKind.TELEPHONY,
    id="acme",
    label="Acme",
    factory=lambda config, context: None,
    config_model=lambda: AcmeConfig,
    secrets={"apiKey": "ACME_API_KEY"},
    required=("apiKey",),
    capabilities=TelephonyCapabilities(native_speech=True, native_listening=True),
)
"""A carrier that needs a key."""


async def test_a_missing_secret_is_named_with_its_path_and_variable(tmp_path: Path) -> None:
    registry = Registry(extra=[offered(ACME)])
    phone = tree_of(provider="acme", fromNumber="+15550000000", serve={"port": 0})
    tree = {**phone, "gateway": {"port": 0}}
    loaded = config_from_tree(tree, environ={}, state_dir=tmp_path)
    gateway = Gateway(loaded, registry)
    async with gateway.run():
        [problem] = await gateway.wait_started()
        with pytest.raises(ConfigError) as caught:
            await gateway.host.methods["voicecall.start"].handler(
                {"to": "+15555550123", "message": "Hello."}, _WRITE
            )
    for text in (problem, str(caught.value)):
        assert "plugins.entries.voice-call.config.acme.apiKey" in text
        assert "ACME_API_KEY" in text


# --- webhooks --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forger:
    """Requests of a forger who knows the carrier's protocol. ``sign`` (key, URL, body):
    the headers; ``ended`` (id of the carrier, our id): a webhook that would end a call;
    ``start``: a message that would open a stream."""

    sign: Callable[[str, str, bytes], dict[str, str]]
    ended: Callable[[str, str | None], tuple[str, bytes]]
    mute: bytes
    start: str


def _mock_signed(key: str, url: str, body: bytes) -> dict[str, str]:
    at = str(time.time_ns() // 1_000_000)
    return {SIGNATURE_HEADER: sign(key, at, url, body), TIMESTAMP_HEADER: at}


def _mock_ended(carrier_id: str, call_id: str | None) -> tuple[str, bytes]:
    call = {"id": carrier_id, "direction": "inbound", "from": "+15550100001", "to": CLINIC}
    event = {"id": "ev-forged", "type": "call.ended", "at": time.time_ns() // 1_000_000}
    event |= {"call": {**call, "reference": call_id}, "reason": "hangup-user"}
    return "", json.dumps(event).encode()


def _twilio_signed(key: str, url: str, body: bytes) -> dict[str, str]:
    form = dict(parse_qsl(body.decode(), keep_blank_values=True))
    signature = RequestValidator(key).compute_signature(url, form)
    return {"x-twilio-signature": signature, "content-type": "application/x-www-form-urlencoded"}


def _twilio_ended(carrier_id: str, call_id: str | None) -> tuple[str, bytes]:
    form = {"CallSid": carrier_id, "CallStatus": "completed", "Direction": "inbound"}
    query = {"type": "status"} if call_id is None else {"callId": call_id, "type": "status"}
    return "?" + urlencode(query), urlencode(form).encode()


FORGERS = {
    "mock": Forger(
        _mock_signed,
        _mock_ended,
        b"no json",
        '{"event": "start", "stream": "st-1", "call": "mk-1", "token": "guessed"}',
    ),
    "twilio": Forger(
        _twilio_signed,
        _twilio_ended,
        b"CallStatus=completed",
        '{"event": "start", "streamSid": "MZ1", "start": {"streamSid": "MZ1", "callSid": "CA1",'
        ' "customParameters": {"token": "guessed"}}}',
    ),
}


def altered(headers: Mapping[str, str]) -> dict[str, str]:
    """The same headers with another signature."""
    name = next(name for name in headers if name.endswith("signature"))
    return {**headers, name: "0" * len(headers[name])}


async def test_webhooks_that_are_not_the_carriers_have_no_effect(
    tmp_path: Path, carrier: str
) -> None:
    forger = FORGERS[carrier]
    async with (
        open_town(tmp_path, Puppet({}), carrier=carrier) as town,
        anyio.create_task_group() as tasks,
    ):
        key, url = town.carrier.options.auth_token, town.engine.webhook_url()
        slow = Slow(url, forger.sign(key, url, b""))
        tasks.start_soon(slow.send)
        carrier_id = town.call_in(WAIT, Silent())
        record = await town.live(carrier_id)
        await until(lambda: town.heard(carrier_id) == [GREETING])
        lane = town.engine.lanes[record.call_id]
        # The row of the greeting's turn is the last that is written on its own.
        await until(lambda: bool(rows_of(tmp_path)["turns"]))
        query, body = forger.ended(carrier_id, None)
        before = rows_of(tmp_path)
        right = forger.sign(key, url + query, body)
        huge = b"padding=" + b"a" * 70_000
        mute = forger.mute
        cases: list[tuple[int, dict[str, str], bytes]] = [
            (401, {}, body),
            (401, altered(right), body),
            (401, forger.sign("another-token", url + query, body), body),
            (401, forger.sign(key, url + "/else", body), body),
            (401, right, body + b"&a=1 "),
            (413, forger.sign(key, url + query, huge), huge),
            (400, forger.sign(key, url + query, mute), mute),
        ]
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as http:
            for status, headers, sent in cases:
                response = await http.post(url + query, content=sent, headers=headers)
                assert response.status_code == status, (status, headers)
            signed = forger.sign(key, url + query, b"")
            assert (await http.get(url + query, headers=signed)).status_code == 405
            response = await http.post(url + "/else" + query, content=body, headers=right)
            assert response.status_code == 404
            assert await slow.answered() == 408
            assert rows_of(tmp_path) == before
            assert lane.record.live
            # The same body, truly signed, does end the call.
            response = await http.post(url + query, content=body, headers=right)
            assert response.status_code == 200
        assert (await town.over(record.call_id)).end_reason is CARRIERS[carrier].left
        assert rows_of(tmp_path) != before


async def test_a_webhook_that_names_two_calls_changes_neither(tmp_path: Path, carrier: str) -> None:
    forger = FORGERS[carrier]
    async with open_town(tmp_path, Puppet({}), carrier=carrier) as town:
        one, other = town.call_in(WAIT, Silent()), town.call_in(WAIT, Silent(), number="+15550109")
        records = [await town.live(one), await town.live(other)]
        await until(lambda: len(rows_of(tmp_path)["turns"]) == 2)
        before = rows_of(tmp_path)
        url = town.engine.webhook_url()
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as http:
            for call_id, named in ((records[0].call_id, other), ("no-such-call", one)):
                query, body = forger.ended(named, call_id)
                headers = forger.sign(town.carrier.options.auth_token, url + query, body)
                response = await http.post(url + query, content=body, headers=headers)
                assert response.status_code == 200
        assert rows_of(tmp_path) == before
        assert all(town.engine.lanes[record.call_id].record.live for record in records)


class Slow:
    """A request whose body never comes whole."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._headers = headers
        self._status = 0
        self._over = anyio.Event()

    async def send(self) -> None:
        parts = urlsplit(self._url)
        head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-length: 50\r\n"
        # Without a signature the answer would not wait for the body.
        head += "".join(f"{name}: {value}\r\n" for name, value in self._headers.items())
        assert parts.hostname is not None
        assert parts.port is not None
        with anyio.fail_after(PATIENCE_S):
            async with await anyio.connect_tcp(parts.hostname, parts.port) as stream:
                await stream.send(f"{head}\r\n{{".encode())
                self._status = int((await stream.receive()).split()[1])
        self._over.set()

    async def answered(self) -> int:
        """The status of the answer."""
        await self._over.wait()
        return self._status


# --- media sockets ---------------------------------------------------------------------------


GARBAGE: tuple[tuple[str | bytes, int, str], ...] = (
    ("no json at all", 1008, "Start timeout"),
    (b"\x00\x01\x02", 1008, "Start timeout"),
    (
        '{"event": "media", "at": 0, "payload": "////", "media": {"payload": "////"}}',
        1008,
        "Start expected",
    ),
    ("x" * 70_000, 1009, "size"),
)


async def test_strangers_on_the_media_port_disturb_nobody(tmp_path: Path, carrier: str) -> None:
    config = {"streaming": {"preStartTimeoutMs": 1000}}
    async with open_town(tmp_path, Puppet({}), config=config, carrier=carrier) as town:
        carrier_id = town.call_in(WAIT, Say("One."), WAIT, HangUp())
        await town.live(carrier_id)
        assert town.service.server is not None
        url = town.service.server.stream_url
        for message, code, reason in GARBAGE:
            closing = await closed_with(url, message)
            assert closing[0] == code
            assert reason in closing[1]
        assert await closed_with(url, FORGERS[carrier].start) == (1008, "Unknown call")
        record = await town.over(carrier_id)
        assert record.end_reason is CARRIERS[carrier].left
        assert town.heard(carrier_id) == [GREETING, "You said: One."]
        assert len(rows_of(tmp_path)["calls"]) == 1
        assert len(town.carrier.ledger.entries("stream-opened", call=carrier_id)) == 1


async def test_a_voice_models_socket_without_a_start_is_closed(
    tmp_path: Path, carrier: str
) -> None:
    config = {
        "streaming": {"enabled": False, "preStartTimeoutMs": 1000},
        "realtime": {"enabled": True, "provider": "echo"},
    }
    async with open_town(tmp_path, Puppet({}), config=config, carrier=carrier) as town:
        assert town.service.server is not None
        url = town.service.server.stream_url
        assert await closed_with(url, "no json at all") == (1008, "Start timeout")
        assert await closed_with(url, FORGERS[carrier].start) == (1008, "Unknown call")
        server = town.service.server
        await until(lambda: server.open_sockets == 0)


async def closed_with(url: str, message: str | bytes) -> tuple[int, str]:
    """How the gateway closes a media socket that says this first."""
    with anyio.fail_after(PATIENCE_S):
        async with connect(url, proxy=None) as socket:
            await socket.send(message)
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        assert socket.close_code is not None
        return socket.close_code, socket.close_reason or ""


async def test_a_media_socket_with_a_wrong_signature_is_401(tmp_path: Path) -> None:
    async with open_town(tmp_path, Puppet({}), carrier="twilio") as town:
        assert town.service.server is not None
        url, key = town.service.server.stream_url, town.carrier.options.auth_token
        for token, signed in ((key[::-1], url), (key, url + "s")):
            signature = RequestValidator(token).compute_signature(signed, {})
            with pytest.raises(InvalidStatus) as caught:
                await connect(url, proxy=None, additional_headers={"X-Twilio-Signature": signature})
            assert caught.value.response.status_code == 401
        # What the emulator opens, signed as Twilio does, is let in.
        carrier_id, _ = await town.call(WAIT, HangUp())
        assert town.heard(carrier_id) == [GREETING]


# --- requests --------------------------------------------------------------------------------


async def test_requests_that_cannot_be_met_change_nothing(tmp_path: Path) -> None:
    async with open_town(tmp_path, Puppet({})) as town:
        _, record = await town.call(WAIT, HangUp())
        over = {"callId": record.call_id}
        unknown = {"callId": "no-such-call"}
        before = rows_of(tmp_path)
        cases: list[tuple[str, Mapping[str, Any], type[Exception], str]] = [
            ("speak", {**over, "message": "Hi."}, CallNotActive, "call is not active"),
            ("continue", {**over, "message": "Hi."}, CallNotActive, "call is not active"),
            ("continue.start", {**over, "message": "Hi."}, CallNotActive, "call is not active"),
            ("dtmf", {**over, "digits": "1"}, CallNotActive, "call is not active"),
            ("speak", {**unknown, "message": "Hi."}, CallNotFound, "no-such-call"),
            ("continue", {**unknown, "message": "Hi."}, CallNotFound, "no-such-call"),
            ("dtmf", {**unknown, "digits": "1"}, CallNotFound, "no-such-call"),
            ("end", unknown, CallNotFound, "no-such-call"),
            ("dtmf", {**over, "digits": "1;rm"}, InvalidRequest, "digits"),
            ("speak", over, InvalidRequest, "message"),
            ("end", {}, InvalidRequest, "callId"),
            ("start", {"to": "911", "message": "Hi."}, InvalidRequest, "E.164"),
            ("start", {"to": "+0123456", "message": "Hi."}, InvalidRequest, "E.164"),
            ("start", {"message": "Hi."}, InvalidRequest, "to is required"),
            ("start", {"to": 5, "message": "Hi."}, InvalidRequest, "to must be a string"),
            ("start", {"to": "+15550001", "mode": "shout"}, InvalidRequest, "mode"),
            ("initiate", {"to": "+15550001"}, InvalidRequest, "message"),
            ("continue.result", {"operationId": "x"}, InvalidRequest, "operationId"),
        ]
        for method, params, error, text in cases:
            with pytest.raises(error) as caught:
                await town.rpc(method, **params)
            assert text in str(caught.value), (method, params)
            assert "\n" not in str(caught.value)
        assert await town.rpc("end", **over) == {"success": True}
        assert await town.rpc("status", **unknown) == {"found": False}
        assert rows_of(tmp_path) == before
        assert town.exchange.ledger.entries("dialled", direction="outbound") == []
        await town.nothing_left()
