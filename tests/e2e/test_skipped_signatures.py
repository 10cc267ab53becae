"""``skipSignatureVerification`` on a running gateway."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import httpx
import pytest

from .lab.puppets import Puppet
from .lab.town import CALLER, CLINIC, Town, open_town

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]


async def ring(town: Town, carrier_id: str) -> httpx.Response:
    """An unsigned webhook of an inbound call."""
    call = {"id": carrier_id, "direction": "inbound", "from": CALLER, "to": CLINIC}
    now = town.engine.seam.now_ms()
    call_of_event = {**call, "reference": None}
    event = {"id": "ev-1", "type": "call.ringing", "at": now, "call": call_of_event}
    assert town.service.server is not None
    async with httpx.AsyncClient(trust_env=False) as client:
        body = json.dumps(event).encode()
        return await client.post(town.service.server.local_url, content=body)


async def test_unsigned_webhooks_are_refused_unless_asked_for(tmp_path: Path) -> None:
    async with open_town(tmp_path, Puppet({})) as town:
        assert (await ring(town, "mk-9")).status_code == 401
        assert await town.engine.stored("mk-9") is None


async def test_unsigned_webhooks_are_taken_once_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"skipSignatureVerification": True}
    async with open_town(tmp_path, Puppet({}), config=config) as town:
        first = await ring(town, "mk-9")
        assert first.status_code == 200
        record = await town.engine.stored("mk-9")
        assert record is not None
        assert record.from_number == CALLER
        again = await ring(town, "mk-9")
        assert (again.status_code, again.content) == (200, first.content)
        assert len(town.engine.lanes) == 1
    [warning] = [r for r in caplog.records if "SECURITY" in r.getMessage()]
    assert warning.levelno == logging.WARNING
    assert "skipSignatureVerification" in warning.getMessage()
