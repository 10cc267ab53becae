"""The real command against a real gateway process: live calls over the mock exchange."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .lab.process import Home, Process, port_is_free

pytestmark = pytest.mark.e2e

PHONE = "+15555550123"
LIVE = ("speaking", "listening")
SAID_BY_PHONES = {
    "I heard you. Please go on.",
    "That is good to know.",
    "Could you tell me more about that?",
    "All right, I understand.",
}
WRONG_NUMBERS = ("12345", "+1555abc", "nonsense")
SERVE = "plugins.entries.voice-call.config.serve.port"
APART = {"plugins": {"entries": {"voice-call": {"config": {"serve": {"port": 0}}}}}}


def test_an_empty_configuration_places_live_calls(tmp_path: Path) -> None:
    home = Home(tmp_path, cold=True)
    if not (port_is_free(18790) and port_is_free(3334)):
        home.configure(APART)  # somebody else has the default ports
    setup, shown = home.run_all(("setup", "--json"), ("setup",))
    checked = setup.succeeded().document
    assert checked["ok"] is True
    assert all(check["ok"] for check in checked["checks"])
    assert "Mock exchange" in shown.text
    with home.gateway() as process:
        smoke = home.json("smoke", "--to", PHONE, "--yes")
        assert (smoke["ok"], smoke["liveCall"]) == (True, True)
        # The notice stays on the line for some seconds: time for what places no call.
        dry = home.json("smoke", "--to", PHONE)
        assert (dry["liveCall"], dry["wouldCall"]) == (False, PHONE)
        assert "dry run" in home.text("smoke", "--to", PHONE)
        call = home.wait_for(smoke["callId"], "hangup-bot", "completed", "failed", "error")
        assert (call["state"], call["endDetail"]) == ("hangup-bot", "notified")
        assert call["direction"] == "outbound"
        assert "answeredAt" in call
        assert home.json("status") == {"found": True, "calls": []}
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in out + err


def configured(root: Path) -> Home:
    home = Home(root)
    home.configure({**APART, "gateway": {"drainSeconds": 0.2}})
    return home


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Process]]:
    """A home and the gateway that runs there, for tests that leave it running."""
    home = configured(tmp_path_factory.mktemp("office"))
    with home.gateway() as process:
        yield home, process


def test_a_conversation_is_steered_by_commands(office: tuple[Home, Process]) -> None:
    home, _ = office
    opening = ("--to", PHONE, "--message", "Hello there.", "--mode", "conversation")
    error = home.run("call", *opening, "--agent", "boss").one_sentence()
    assert "no such agent (there are: main)" in error
    call_id = home.json("call", *opening, "--agent", "main")["callId"]
    home.wait_until(call_id, *LIVE)
    ours = ("--call-id", call_id)

    asked = home.json("continue", *ours, "--message", "How are you?")
    assert asked["success"] is True
    assert asked["transcript"] in SAID_BY_PHONES
    heard = home.text("continue", *ours, "--message", "And now?").strip()
    assert heard.removeprefix("heard: ") in SAID_BY_PHONES

    assert home.json("speak", *ours, "--message", "One moment.") == {"success": True}
    assert home.text("speak", *ours, "--message", "Another moment.").strip() == "spoken"
    assert home.json("dtmf", *ours, "--digits", "1w2#") == {"success": True}
    assert home.text("dtmf", *ours, "--digits", "9").strip() == "keys pressed"

    document, shown, one = home.run_all(("status", "--json"), ("status",), ("status", *ours))
    [live] = document.succeeded().document["calls"]
    assert live["callId"] == call_id
    assert call_id in shown.text
    assert f"callId: {call_id}" in one.text
    by_carrier_id = home.json("status", "--call-id", live["providerCallId"])
    assert by_carrier_id["call"]["callId"] == call_id

    assert home.json("end", *ours) == {"success": True}
    over = home.json("status", *ours)["call"]
    assert (over["state"], over["endDetail"]) == ("hangup-bot", "requested")
    again, none, spoken, unknown, pressed, missing, nothing, *refused = home.run_all(
        ("end", *ours),
        ("status",),
        ("speak", *ours, "--message", "Anyone?"),
        ("end", "--call-id", "no-such-call"),
        ("dtmf", *ours, "--digits", "1;2"),
        ("status", "--call-id", "no-such-call", "--json"),
        ("status", "--call-id", "no-such-call"),
        *(("call", "--to", number, "--message", "Hello.") for number in WRONG_NUMBERS),
    )
    assert again.text.strip() == "call ended"
    assert none.text.strip() == "no live calls"
    assert "call is not active" in spoken.one_sentence()
    assert call_id in spoken.one_sentence()
    assert "no-such-call" in unknown.one_sentence()
    assert "call ended" not in unknown.one_sentence()
    assert "digits" in pressed.one_sentence()
    assert (missing.status, missing.document) == (1, {"found": False})
    assert nothing.one_sentence() == "call not found: no-such-call"
    for output in refused:
        assert "E.164" in output.one_sentence()


def test_a_second_gateway_on_the_same_port_says_so(office: tuple[Home, Process]) -> None:
    home, first = office
    error = home.run("gateway", "run").one_sentence()
    assert home.url.rsplit(":", 1)[1] in error
    assert first.poll() is None
    assert home.json("status") == {"found": True, "calls": []}


def test_a_stop_during_a_live_call_drains_and_is_orderly(tmp_path: Path) -> None:
    home = configured(tmp_path)
    with home.gateway() as process:
        call_id = home.json("call", "--to", PHONE, "--message", "Hello.")["callId"]
        home.wait_until(call_id, *LIVE)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in out + err
    with home.gateway():
        # The exchange went with its gateway: the next one finds out and closes the record.
        call = home.wait_for(call_id, "completed", "error", "failed", "hangup-bot")
        assert call["endedAt"] >= call["answeredAt"]


def test_a_stop_hangs_up_where_it_is_asked_to(tmp_path: Path) -> None:
    home = Home(tmp_path)
    phone = {"serve": {"port": 0}, "hangUpOnStop": True}
    entries = {"voice-call": {"config": phone}}
    home.configure({"gateway": {"drainSeconds": 0.2}, "plugins": {"entries": entries}})
    with home.gateway() as process:
        call_id = home.json("call", "--to", PHONE, "--message", "Hello.")["callId"]
        home.wait_until(call_id, *LIVE)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
    call = home.json("status", "--call-id", call_id)["call"]
    assert (call["state"], call["endDetail"]) == ("hangup-bot", "shutdown")


def test_a_change_that_is_not_used_ends_a_reload_with_1(tmp_path: Path) -> None:
    home = configured(tmp_path)
    with home.gateway():
        port = int(home.url.rsplit(":", 1)[1])

        def change(provider: Any, phone_port: int = 0) -> None:
            phone = {"serve": {"port": phone_port}, "provider": provider}
            entries = {"voice-call": {"config": phone}}
            home.configure({"gateway": {"port": port}, "plugins": {"entries": entries}})

        unchanged = "in force: no changes for any plugin since the file was last applied"
        assert home.text("gateway", "reload").strip() == unchanged
        change("nobody")
        reloaded = home.run("gateway", "reload")
        assert reloaded.status == 1
        assert reloaded.out.startswith("waiting: the changed configuration of voice-call is not")
        change(5)
        assert "provider: must be a string" in home.run("gateway", "reload").one_sentence()
        status = home.run("gateway", "status").succeeded()
        assert "waiting: the changed configuration is not used: " in status.out
        # Taken up, but with it the phone cannot start.
        change("mock", port)
        reloaded = home.run("gateway", "reload")
        assert reloaded.status == 1
        assert f"not ready: voice-call cannot start: {SERVE}" in reloaded.out
        assert home.run("gateway", "reload", "--json").document["reasons"]
