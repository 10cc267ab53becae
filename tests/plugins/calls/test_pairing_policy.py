"""Codes of the pairing policy: how long they are valid, how many are given, approval."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall.errors import InvalidRequest
from voicecall.model import Direction, EndDetail
from voicecall.store import Approval, Commit
from voicecall_calls.engine.admission import Admission, admit_inbound
from voicecall_calls.pairing import CODE_LIFE_MS, Pairing, approval_json
from voicecall_testing.clock import virtual_backend
from voicecall_testing.harness import Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

ONE, TWO = "+15550100001", "+15550100002"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


@asynccontextmanager
async def open_pairing(directory: Path) -> AsyncIterator[tuple[Pairing, Phone]]:
    async with open_phone(directory, config={"inboundPolicy": "pairing"}) as phone:
        yield phone.operations.pairing, phone


async def code_of(pairing: Pairing, number: str) -> str:
    code = await pairing.code_for(number)
    assert code is not None
    return code


async def test_a_code_is_six_digits_of_its_own_and_stays_until_it_expires(tmp_path: Path) -> None:
    async with open_pairing(tmp_path) as (pairing, phone):
        one, two = await code_of(pairing, ONE), await code_of(pairing, TWO)
        assert one != two
        assert len(one) == len(two) == 6
        assert (one + two).isdecimal()
        await anyio.sleep(CODE_LIFE_MS / 1000 - 1)
        assert await code_of(pairing, ONE) == one
        await anyio.sleep(2)
        assert await pairing.listed() == await pairing.pending() == []
        with pytest.raises(InvalidRequest, match="it may have expired"):
            await pairing.approve(one)
        assert not await pairing.approved(ONE)
        again = await code_of(pairing, ONE)
        assert again != one
        [shown] = [approval_json(a) for a in await pairing.listed()]
        assert shown == {
            "number": ONE,
            "status": "pending",
            "code": again,
            "at": phone.seam.now_ms(),
            "expiresAt": phone.seam.now_ms() + CODE_LIFE_MS,
        }


async def test_calls_at_once_from_one_number_hear_one_code(tmp_path: Path) -> None:
    async with open_pairing(tmp_path) as (pairing, _):
        heard: list[str] = []

        async def call(number: str) -> None:
            heard.append(await code_of(pairing, number))

        async with anyio.create_task_group() as tasks:
            for number in (ONE, ONE, TWO, ONE):
                tasks.start_soon(call, number)
        codes = {a.number: a.code for a in await pairing.pending()}
        assert sorted(heard) == sorted([*[codes[ONE]] * 3, codes[TWO]])


async def test_a_repeated_webhook_of_a_call_that_is_over_makes_no_code(tmp_path: Path) -> None:
    async with open_pairing(tmp_path) as (pairing, phone):
        direction = Direction.INBOUND
        first = phone.make(ev.Initiated, from_number=ONE, direction=direction)
        await phone.tell(first)
        assert len(await pairing.pending()) == 1
        await phone.hang_up()
        await anyio.sleep(CODE_LIFE_MS / 1000 + 1)
        await phone.tell(first)
        assert await pairing.pending() == []


async def test_no_two_callers_are_told_one_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_pairing(tmp_path) as (pairing, _):
        made = iter(["111111", "111111", "111111", "222222"])
        monkeypatch.setattr(pairing, "_new_code", lambda: next(made))
        assert [await code_of(pairing, number) for number in (ONE, TWO)] == ["111111", "222222"]


async def test_strangers_get_so_many_codes_a_minute(tmp_path: Path) -> None:
    async with open_pairing(tmp_path) as (pairing, _):
        codes = [await pairing.code_for(f"+1555010{n:04}") for n in range(20)]
        given = [code for code in codes if code is not None]
        assert codes == given + [None] * (20 - len(given))
        assert 1 <= len(given) <= 6
        # A caller with a code is told it again, however many call.
        assert await pairing.code_for("+15550100000") == codes[0]
        await anyio.sleep(61)
        assert await pairing.code_for("+15550100019") is not None


async def test_who_was_revoked_gets_no_code_until_the_owner_approves(tmp_path: Path) -> None:
    async with open_pairing(tmp_path) as (pairing, _):
        code = await code_of(pairing, ONE)
        await pairing.revoke("+1 (555) 010-0001")
        assert await pairing.code_for(ONE) is None
        with pytest.raises(InvalidRequest):
            await pairing.approve(code)
        await pairing.approve(ONE)
        assert await pairing.approved(ONE)
        assert [a.status for a in await pairing.listed()] == ["approved"]


async def test_a_call_at_the_moment_of_the_approval_does_not_undo_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_pairing(tmp_path) as (pairing, phone):
        code = await code_of(pairing, ONE)
        asked: list[bool] = []

        async def approved(number: str) -> bool:
            """The state just before the owner approves."""
            asked.append(await Pairing.approved(pairing, number))
            if not asked[-1]:
                await pairing.approve(code)
            return asked[-1]

        with monkeypatch.context() as patch:
            patch.setattr(pairing, "approved", approved)
            assert await admit_inbound(phone.engine.config, ONE, pairing) == Admission()
        assert asked == [False, True]
        assert [(a.number, a.status) for a in await pairing.listed()] == [(ONE, "approved")]


async def test_what_names_no_caller_is_refused(tmp_path: Path) -> None:
    async with open_pairing(tmp_path) as (pairing, _):
        with pytest.raises(InvalidRequest, match=r"must be the code, or a phone number in E\.164"):
            await pairing.approve("0155 500 1234")
        for text in ("", "12", "anonymous", "+0"):
            with pytest.raises(InvalidRequest, match="no caller waits"):
                await pairing.approve(text)
            with pytest.raises(InvalidRequest, match=r"E\.164"):
                await pairing.revoke(text)
        with pytest.raises(InvalidRequest, match="neither approved nor waiting"):
            await pairing.revoke(TWO)
        assert await pairing.listed() == []


async def test_whoever_revokes_a_caller_who_never_asked_is_told_what_lets_them_in(
    tmp_path: Path,
) -> None:
    config = {"inboundPolicy": "allowlist", "allowFrom": [ONE]}
    async with open_phone(tmp_path, config=config) as phone:
        for number, but in ((ONE, ", but allowFrom has the number and lets it in"), (TWO, "")):
            with pytest.raises(InvalidRequest) as caught:
                await phone.operations.revoke(number)
            assert str(caught.value) == f"{number} is neither approved nor waiting{but}"
        with pytest.raises(InvalidRequest, match=r"E\.164"):
            await phone.operations.revoke("nobody")


async def test_strangers_call_while_too_many_wait(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"inboundPolicy": "pairing"}) as phone:
        for number in range(8):
            await phone.operations.pairing.code_for(f"+1555010{number:04}")
        await phone.call_in()
        await phone.settle(2)
        assert not phone.engine.lanes
        [record] = await phone.store.recent(1)
        assert (record.end_detail, record.transcript) == (EndDetail.POLICY, ())


async def test_a_code_that_looks_like_an_international_number_is_a_code(tmp_path: Path) -> None:
    async with open_pairing(tmp_path) as (pairing, phone):
        now = phone.now()
        waiting = Approval(ONE, "pending", "009041", now, now + CODE_LIFE_MS)
        await phone.store.commit(Commit(approvals=(waiting,)))
        assert (await pairing.approve("009041")).number == ONE
        with pytest.raises(InvalidRequest, match="no caller waits"):
            await pairing.approve("009042")
        assert [a.number for a in await pairing.listed()] == [ONE]
        assert (await pairing.approve("0015550100002")).number == TWO
