"""The pairing policy over real sockets: a stranger hears a code, which the owner approves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from voicecall.errors import InvalidRequest
from voicecall.model import CallRecord, EndDetail, EndReason
from voicecall_mock.exchange import HangUp, Say, Silent, WaitForSilence

from .lab.process import Home, port_is_free
from .lab.puppets import Puppet
from .lab.town import CALLER, GREETING, Town, open_town, said, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio, pytest.mark.usefixtures("backstage")]

WAIT = WaitForSilence(300)
FRIEND = "+15550100005"
PAIRING = {
    "inboundPolicy": "pairing",
    "allowFrom": [FRIEND],
    "phrases": {"pairing": "Code {code}."},
}


async def listed(town: Town) -> dict[str, Mapping[str, Any]]:
    """Callers by number."""
    return {entry["number"]: entry for entry in (await town.rpc("pairing.list"))["callers"]}


async def told(town: Town, number: str = CALLER) -> str:
    """Call as a stranger; the code that was heard."""
    carrier_id, record = await town.call(Silent(), number=number)
    assert (record.end_reason, record.end_detail) == (EndReason.HANGUP_BOT, EndDetail.NOTIFIED)
    [sentence] = town.heard(carrier_id)
    assert sentence is not None
    assert said(record) == [("bot", sentence, True)]
    digits = sentence.removeprefix("Code ").removesuffix(".").split(", ")
    assert [len(digit) for digit in digits] == [1] * 6
    return "".join(digits)


async def talked(town: Town, number: str = CALLER) -> CallRecord:
    """Call as somebody who is let in."""
    _, record = await town.call(WAIT, Say("Hi."), WAIT, HangUp(), number=number)
    assert said(record)[0] == ("bot", GREETING, True)
    assert said(record)[-1] == ("bot", "You said: Hi.", True)
    return record


async def test_a_stranger_hears_a_code_is_approved_and_may_be_revoked(tmp_path: Path) -> None:
    agent = Puppet({})
    async with open_town(tmp_path, agent, config=PAIRING) as town:
        code = await told(town)
        assert agent.asked == []
        assert (await listed(town))[CALLER]["status"] == "pending"
        assert (await listed(town))[CALLER]["code"] == code
        assert await told(town) == code

        await talked(town, FRIEND)
        with pytest.raises(InvalidRequest, match="no caller waits"):
            await town.rpc("pairing.approve", caller="000000" if code != "000000" else "000001")
        approved = (await town.rpc("pairing.approve", caller=f" {code} "))["caller"]
        assert approved == {**approved, "number": CALLER, "status": "approved", "code": None}
        await talked(town)
        with pytest.raises(InvalidRequest, match="no caller waits"):
            await town.rpc("pairing.approve", caller=code)

        revoked = (await town.rpc("pairing.revoke", number=CALLER))["caller"]
        assert revoked["status"] == "revoked"
        _, record = await town.call(Silent())
        assert record.end_detail is EndDetail.POLICY
        assert said(record) == []
        assert agent.asked == ["Hi.", "Hi."]
        await town.nothing_left()


async def test_who_hides_the_number_is_refused(tmp_path: Path) -> None:
    async with open_town(tmp_path, Puppet({}), config=PAIRING) as town:
        for number in ("anonymous", "Restricted", "12"):
            _, record = await town.call(Silent(), number=number)
            assert record.end_detail is EndDetail.POLICY
        assert await listed(town) == {}


async def test_approvals_and_codes_survive_a_restart(tmp_path: Path) -> None:
    agent = Puppet({})
    stranger = "+15550100008"
    async with open_town(tmp_path, agent, config=PAIRING) as town:
        await town.rpc("pairing.approve", caller=CALLER)
        code = await told(town, stranger)
        before = await listed(town)
        exchange = town.exchange.base_url
    # The exchange is the last thing that closes: nobody holds the store any more.
    port = int(exchange.rsplit(":", 1)[1])
    await until(lambda: port_is_free(port))
    async with open_town(tmp_path, agent, config=PAIRING) as town:
        assert await listed(town) == before
        await talked(town)
        assert await told(town, stranger) == code
        await town.rpc("pairing.approve", caller=code)
        await talked(town, stranger)


def test_the_group_alone_shows_its_commands(tmp_path: Path) -> None:
    shown = Home(tmp_path).run("pairing")
    assert shown.status == 2
    assert "List approved, revoked and waiting callers." in shown.out + shown.err


async def test_the_commands_show_approve_and_revoke(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.state_dir.mkdir()
    async with open_town(home.state_dir, Puppet({}), config=PAIRING) as town:
        code = await told(town)
        town.edit({"gateway": {"port": town.gateway.port}})

        def use() -> None:
            listed, printed, wrong = home.run_all(
                ("pairing", "list", "--json"), ("pairing", "list"), ("pairing", "approve", "12")
            )
            [entry] = listed.succeeded().document["callers"]
            assert (entry["number"], entry["status"], entry["code"]) == (CALLER, "pending", code)
            assert CALLER in printed.text
            assert code in printed.text
            assert "no caller waits with the code '12'" in wrong.one_sentence()
            assert home.text("pairing", "approve", code).strip() == f"{CALLER} may call in"

        await anyio.to_thread.run_sync(use)
        await talked(town)

        def revoke() -> None:
            known, unknown, listed = home.run_all(
                ("pairing", "revoke", CALLER, "--json"),
                ("pairing", "revoke", "+15550109999"),
                ("pairing", "revoke", FRIEND),
            )
            caller = known.succeeded().document["caller"]
            assert (caller["number"], caller["status"]) == (CALLER, "revoked")
            assert "but" not in known.document
            assert unknown.one_sentence().strip() == "+15550109999 is neither approved nor waiting"
            assert listed.one_sentence().strip() == (
                f"{FRIEND} is neither approved nor waiting, but allowFrom has the number and lets"
                " it in"
            )
            approved = home.json("pairing", "approve", FRIEND)
            assert (approved["caller"]["status"], "but" in approved) == ("approved", False)
            assert home.text("pairing", "revoke", FRIEND).strip() == (
                f"{FRIEND} is revoked, but allowFrom has the number and lets it in"
            )

        await anyio.to_thread.run_sync(revoke)
        _, record = await town.call(Silent())
        assert record.end_detail is EndDetail.POLICY
