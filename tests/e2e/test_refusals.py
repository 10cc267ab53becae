"""What is wrong is refused with a status or one sentence, and changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from pydantic import Field
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from voicecall import ProviderInfo, ProviderKind, hookimpl
from voicecall.configuring import ConfigModel
from voicecall.errors import CallNotActive, CallNotFound, ConfigError, InvalidRequest
from voicecall.hosting import RpcCall
from voicecall.model import EndReason
from voicecall.registry import Registry
from voicecall.telephony import TelephonyCapabilities
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.runtime import Gateway
from voicecall_mock.exchange import HangUp, Say, Silent, WaitForSilence
from voicecall_mock.protocol import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

from .lab.process import Home
from .lab.puppets import Puppet
from .lab.town import GREETING, PATIENCE_S, Town, open_town, rows_of, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

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


class AcmeConfig(ConfigModel):
    api_key: str = Field(min_length=1, repr=False)


class Acme:
    """A carrier that needs a key."""

    @hookimpl
    def voicecall_telephony_providers(self) -> Sequence[ProviderInfo]:
        return [
            ProviderInfo(
                kind=ProviderKind.TELEPHONY,
                id="acme",
                label="Acme",
                factory=lambda config, context: None,
                config_model=lambda: AcmeConfig,
                secrets={"apiKey": "ACME_API_KEY"},
                required=("apiKey",),
                capabilities=TelephonyCapabilities(),
            )
        ]


async def test_a_missing_secret_is_named_with_its_path_and_variable(tmp_path: Path) -> None:
    registry = Registry(extra=[("voicecall.telephony", "acme", Acme())])
    tree = {**tree_of(provider="acme", serve={"port": 0}), "gateway": {"port": 0}}
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


def signed(town: Town, body: bytes, *, key: str | None = None) -> dict[str, str]:
    at = str(time.time_ns() // 1_000_000)
    token = key or town.exchange.options.auth_token
    assert town.exchange.inbound_webhook is not None
    return {
        SIGNATURE_HEADER: sign(token, at, town.exchange.inbound_webhook, body),
        TIMESTAMP_HEADER: at,
        "content-type": "application/json",
    }


def ended_event(carrier_id: str) -> bytes:
    """A webhook that would end a call."""
    call = {"id": carrier_id, "direction": "inbound", "from": "+15550100001"}
    call |= {"to": "+15550100000"}
    at = time.time_ns() // 1_000_000
    event = {"id": "ev-forged", "type": "call.ended", "at": at, "call": call}
    return json.dumps({**event, "reason": "hangup-user"}).encode()


async def test_webhooks_that_are_not_the_carriers_have_no_effect(tmp_path: Path) -> None:
    async with open_town(tmp_path, Puppet({})) as town:
        carrier_id = town.call_in(WAIT, Silent())
        record = await town.live(carrier_id)
        await until(lambda: town.heard(carrier_id) == [GREETING])
        lane = town.engine.lanes[record.call_id]
        # The row of the greeting's turn is the last that is written on its own.
        await until(lambda: bool(rows_of(tmp_path)["turns"]))
        body = ended_event(carrier_id)
        url = town.exchange.inbound_webhook
        assert url is not None
        before = rows_of(tmp_path)
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as http:
            right = signed(town, body)
            huge = b'{"padding": "' + b"a" * 70_000 + b'"}'
            cases: list[tuple[int, dict[str, str], bytes]] = [
                (401, {}, body),
                (401, {**right, SIGNATURE_HEADER: "0" * 64}, body),
                (401, signed(town, body, key="another-token"), body),
                (401, {**right, TIMESTAMP_HEADER: "1"}, body),
                (401, right, body + b" "),
                (413, signed(town, huge), huge),
                (400, signed(town, b"no json"), b"no json"),
            ]
            for status, headers, sent in cases:
                response = await http.post(url, content=sent, headers=headers)
                assert response.status_code == status, (status, headers)
            assert (await http.get(url)).status_code == 405
            assert (await http.post(url + "/else", content=body)).status_code == 404
        assert await slow_body(url) == 408
        assert rows_of(tmp_path) == before
        assert lane.record.live
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as http:
            # The same body, truly signed, does end the call.
            response = await http.post(url, content=body, headers=signed(town, body))
            assert response.status_code == 200
        assert (await town.over(record.call_id)).end_reason is EndReason.HANGUP_USER
        assert rows_of(tmp_path) != before


async def slow_body(url: str) -> int:
    """The status of a request whose body never comes whole."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-length: 50\r\n"
    # Without these headers the answer would not wait for the body.
    head += f"{SIGNATURE_HEADER}: {'0' * 64}\r\n{TIMESTAMP_HEADER}: 1\r\n\r\n{{"
    assert parts.hostname is not None
    assert parts.port is not None
    with anyio.fail_after(PATIENCE_S):
        async with await anyio.connect_tcp(parts.hostname, parts.port) as stream:
            await stream.send(head.encode())
            return int((await stream.receive()).split()[1])


# --- media sockets ---------------------------------------------------------------------------


GARBAGE: tuple[str | bytes, ...] = (
    "no json at all",
    b"\x00\x01\x02",
    '{"event": "media", "at": 0, "payload": "////"}',
    '{"event": "start", "stream": "st-1", "call": "mk-1", "token": "guessed"}',
)


async def test_strangers_on_the_media_port_disturb_nobody(tmp_path: Path) -> None:
    config = {"streaming": {"preStartTimeoutMs": 300}}
    async with open_town(tmp_path, Puppet({}), config=config) as town:
        carrier_id = town.call_in(WAIT, Say("One."), WAIT, HangUp())
        await town.live(carrier_id)
        assert town.service.server is not None
        url = town.service.server.stream_url
        for message in GARBAGE:
            assert await closed_with(url, message) in (1002, 1003, 1007, 1008), message
        record = await town.over(carrier_id)
        assert record.end_reason is EndReason.HANGUP_USER
        assert town.heard(carrier_id) == [GREETING, "You said: One."]
        assert len(rows_of(tmp_path)["calls"]) == 1
        assert town.exchange.stats(carrier_id).streams == 1


async def closed_with(url: str, message: str | bytes) -> int | None:
    """The code with which the gateway closes a media socket that says this first."""
    with anyio.fail_after(PATIENCE_S):
        async with connect(url, proxy=None) as socket:
            await socket.send(message)
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        return socket.close_code


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
