"""Calls over a faulty carrier by a gateway that is killed now and then; and that calls leave
nothing behind in a gateway that lives on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.providers.twilio_desk import footprint

from voicecall.model import MediaPath
from voicecall_mock.exchange import AnswerMode, Behaviour
from voicecall_testing.twilio import SocketFault, TwilioEmulator, TwilioOptions, WebhookFault

from .lab.puppets import Puppet
from .lab.town import Town, open_town, until
from .storm.crowd import SCRIPTS
from .storm.verdict import stormed

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

ROOM: Mapping[str, Any] = {
    "maxConcurrentCalls": 20,
    "maxConcurrentInboundCalls": 20,
    "maxDurationSeconds": 4,
    # The carrier's seconds: it gives a ringing call up while the longest others last.
    "ringTimeoutMs": 14_000,
    "streaming": {"enabled": False},
}
WAYS: Mapping[MediaPath, Mapping[str, Any]] = {
    MediaPath.NATIVE: ROOM,
    MediaPath.STREAM: {**ROOM, "streaming": {"enabled": True, "provider": "fsk"}},
    MediaPath.REALTIME: {**ROOM, "realtime": {"enabled": True, "provider": "echo"}},
}
OPTIONS = TwilioOptions(answer_after_ms=50, second_s=0.25)
WEBHOOKS = WebhookFault(duplicate=0.2, late=0.2, late_s=1.0, reorder=0.2)


async def test_fifty_calls_end_as_they_really_ended(tmp_path: Path) -> None:
    await stormed(tmp_path, 50, 5)


@pytest.mark.parametrize("media", WAYS)
async def test_calls_leave_nothing_behind(tmp_path: Path, media: MediaPath) -> None:
    agent = Puppet({}, end=["Goodbye."])
    async with open_town(
        tmp_path, agent, carrier="twilio", config=WAYS[media], options=OPTIONS
    ) as town:
        twilio = town.carrier
        assert isinstance(twilio, TwilioEmulator)
        adapter = footprint(town.engine.provider)
        tasks = asyncio.all_tasks()
        twilio.faults.webhooks = WEBHOOKS
        twilio.faults.sockets = SocketFault(drop=0.3, within_s=1.0)
        for number in await calls(town):
            await town.over(number)
        await town.nothing_left()
        await until(lambda: asyncio.all_tasks() <= tasks)
        assert footprint(town.engine.provider) == adapter
        assert not town.engine.carrier_ids()


async def calls(town: Town) -> list[str]:
    """Two for each script, one each way, and some that nobody answers; our ids and Twilio's."""
    found = [
        town.call_in(*script, number=f"+1555010{index:04d}") for index, script in enumerate(SCRIPTS)
    ]
    behaviours = [Behaviour(script) for script in SCRIPTS]
    behaviours += [Behaviour((), mode) for mode in AnswerMode if mode is not AnswerMode.ANSWER]
    for index, behaviour in enumerate(behaviours):
        phone = f"+1555020{index:04d}"
        town.carrier.set_phone(phone, behaviour)
        mode = "conversation" if index % 3 else "notify"
        started = await town.rpc("start", to=phone, message="Good evening.", mode=mode)
        found.append(started["callId"])
    return found
