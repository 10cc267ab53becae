"""The real command against a real gateway process: live calls over the mock exchange."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .lab.process import Home, port_is_free

pytestmark = pytest.mark.e2e

PHONE = "+15555550123"
LIVE = ("speaking", "listening")
SAID_BY_PHONES = {
    "I heard you. Please go on.",
    "That is good to know.",
    "Could you tell me more about that?",
    "All right, I understand.",
}
APART = {"plugins": {"entries": {"voice-call": {"config": {"serve": {"port": 0}}}}}}


def test_an_empty_configuration_places_live_calls(tmp_path: Path) -> None:
    home = Home(tmp_path)
    if not (port_is_free(18790) and port_is_free(3334)):
        home.configure(APART)  # somebody else has the default ports
    setup = home.json("setup")
    assert setup["ok"] is True
    assert all(check["ok"] for check in setup["checks"])
    assert "Mock exchange" in home.text("setup")
    with home.gateway() as process:
        smoke = home.json("smoke", "--to", PHONE, "--yes")
        assert (smoke["ok"], smoke["liveCall"]) == (True, True)
        call = home.wait_for(smoke["callId"], "hangup-bot", "completed", "failed", "error")
        assert (call["state"], call["endDetail"]) == ("hangup-bot", "notified")
        assert call["direction"] == "outbound"
        assert "answeredAt" in call
        dry = home.json("smoke", "--to", PHONE)
        assert (dry["liveCall"], dry["wouldCall"]) == (False, PHONE)
        assert "dry run" in home.text("smoke", "--to", PHONE)
        assert home.json("status") == {"found": True, "calls": []}
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in out + err


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.configure({**APART, "gateway": {"drainSeconds": 1}})
    return home


def test_a_conversation_is_steered_by_commands(home: Home) -> None:
    with home.gateway():
        opening = ("--to", PHONE, "--message", "Hello there.", "--mode", "conversation")
        error = home.run("call", *opening, "--agent", "boss").one_sentence()
        assert "no such agent (there are: main)" in error
        call_id = home.json("call", *opening, "--agent", "main")["callId"]
        home.wait_for(call_id, *LIVE)
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

        [live] = home.json("status")["calls"]
        assert live["callId"] == call_id
        assert call_id in home.text("status")
        by_carrier_id = home.json("status", "--call-id", live["providerCallId"])
        assert by_carrier_id["call"]["callId"] == call_id
        assert f"callId: {call_id}" in home.text("status", *ours)

        assert home.json("end", *ours) == {"success": True}
        over = home.json("status", *ours)["call"]
        assert (over["state"], over["endDetail"]) == ("hangup-bot", "requested")
        assert home.text("end", *ours).strip() == "call ended"
        assert home.text("status").strip() == "no live calls"

        error = home.run("speak", *ours, "--message", "Anyone?").one_sentence()
        assert "call is not active" in error
        assert call_id in error
        unknown = home.run("end", "--call-id", "no-such-call").one_sentence()
        assert "no-such-call" in unknown
        assert "call ended" not in unknown
        for number in ("12345", "+1555abc", "nonsense"):
            refused = home.run("call", "--to", number, "--message", "Hello.").one_sentence()
            assert "E.164" in refused
        assert "digits" in home.run("dtmf", *ours, "--digits", "1;2").one_sentence()
        assert home.json("status", "--call-id", "no-such-call") == {"found": False}
        assert home.text("status", "--call-id", "no-such-call").strip() == "no such call"


def test_a_second_gateway_on_the_same_port_says_so(home: Home) -> None:
    with home.gateway() as first:
        error = home.run("gateway", "run").one_sentence()
        assert home.url.rsplit(":", 1)[1] in error
        assert first.poll() is None
        assert home.json("status") == {"found": True, "calls": []}


def test_a_stop_during_a_live_call_drains_and_is_orderly(home: Home) -> None:
    with home.gateway() as process:
        call_id = home.json("call", "--to", PHONE, "--message", "Hello.")["callId"]
        home.wait_for(call_id, *LIVE)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in out + err
    with home.gateway():
        # The exchange went with its gateway: the next one finds out and closes the record.
        call = home.wait_for(call_id, "completed", "error", "failed", "hangup-bot")
        assert call["endedAt"] >= call["answeredAt"]
