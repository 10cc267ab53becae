"""Replayed webhooks, also after a restart, get their first reply and have no effect."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from tests.ports import reserve_port
from twilio.request_validator import RequestValidator

from voicecall_mock.protocol import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

from .lab.puppets import Puppet
from .lab.town import CALLER, CLINIC, PATIENCE_S, Town, open_town, rows_of, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]


@dataclass(frozen=True, slots=True)
class Letter:
    """A carrier's request: what is appended to the webhook URL, the body, the headers."""

    query: str
    body: bytes
    headers: Mapping[str, str]


def _twilio(key: str, url: str, status: str) -> Letter:
    query = "" if status == "ringing" else "?type=status"
    form = {"CallSid": "CA00000000000000000000000000000077", "CallStatus": status}
    form |= {"Direction": "inbound", "From": CALLER, "To": CLINIC}
    headers = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}
    headers["x-twilio-signature"] = RequestValidator(key).compute_signature(url + query, form)
    return Letter(query, urlencode(form).encode(), headers)


def _mock(key: str, url: str, status: str) -> Letter:
    call = {"id": "mk-77", "direction": "inbound", "from": CALLER, "to": CLINIC, "reference": None}
    at = time.time_ns() // 1_000_000
    event: dict[str, Any] = {"id": f"ev-{status}", "type": f"call.{status}", "at": at, "call": call}
    if status == "completed":
        event |= {"type": "call.ended", "reason": "hangup-user"}
    body = json.dumps(event).encode()
    signature = sign(key, str(at), url, body)
    return Letter("", body, {TIMESTAMP_HEADER: str(at), SIGNATURE_HEADER: signature})


LETTERS: Mapping[str, Callable[[str, str, str], Letter]] = {"mock": _mock, "twilio": _twilio}

SAID = {"mock": b'"actions"', "twilio": b'<Parameter name="token"'}
"""What is in the reply to a call that comes in. The mock carrier is steered by commands."""


async def answer(town: Town, letter: Letter) -> tuple[int, bytes, str]:
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as http:
        url = town.engine.webhook_url() + letter.query
        # Only signed content tells a repetition from a new request.
        more = {"i-twilio-idempotency-token": str(time.time_ns())}
        reply = await http.post(url, content=letter.body, headers={**letter.headers, **more})
        return reply.status_code, reply.content, reply.headers["content-type"]


async def test_a_replay_has_its_first_reply_and_no_effect_also_after_a_restart(
    tmp_path: Path, carrier: str
) -> None:
    # The URL is signed, so the second gateway listens where the first one did.
    config = {"serve": {"port": reserve_port()}}
    async with open_town(tmp_path, Puppet({}), carrier=carrier, config=config) as town:
        key, url = town.carrier.options.auth_token, town.engine.webhook_url()
        ringing, ended = (LETTERS[carrier](key, url, s) for s in ("ringing", "completed"))
        first = await answer(town, ringing)
        [lane] = town.engine.lanes.values()
        call_id = lane.record.call_id
        assert (first[0], SAID[carrier] in first[1]) == (200, True)
        assert await answer(town, ringing) == first
        assert list(town.engine.lanes) == [call_id]
        last = await answer(town, ended)
        assert last[0] == 200
        await town.over(call_id)
        before = rows_of(tmp_path)
        for _ in range(2):
            assert await answer(town, ended) == last
            assert await answer(town, ringing) == first
        assert rows_of(tmp_path) == before
    async with open_town(tmp_path, Puppet({}), carrier=carrier, config=config) as town:
        assert town.engine.webhook_url() == url
        assert await answer(town, ringing) == first
        assert await answer(town, ended) == last
        assert not town.engine.lanes
        assert rows_of(tmp_path) == before
        assert len(before["calls"]) == 1
        # A call that is really new is one.
        town.call_in()
        await until(lambda: len(town.engine.lanes) == 1)
