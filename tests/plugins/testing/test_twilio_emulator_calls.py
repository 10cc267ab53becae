"""Twilio's emulator: calls through Twilio's own SDK, documents and status callbacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest
from twilio.base.exceptions import TwilioRestException

from voicecall.model import EndReason
from voicecall_mock.exchange import (
    AnswerMode,
    Behaviour,
    HangUp,
    Interrupt,
    Press,
    Say,
    Silent,
    WaitForSilence,
)
from voicecall_testing.twilio import TwilioEmulator, TwilioOptions
from voicecall_testing.twilio.board import Dialler
from voicecall_testing.twilio.calls import Call, CallPlan
from voicecall_testing.twilio.documents import Source

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]

PHONE = "+15550002222"
HERE = "+15550100000"
CALLER = "+15550100001"
QUIET = (Silent(),)
ALL = ["initiated", "ringing", "answered", "completed"]


async def test_an_outbound_call_from_the_queue_to_the_end(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", "<Say>Good morning.</Say><Pause/><Hangup/>")
        sid = await c.dial(status_callback=f"{c.base}/status", status_callback_event=ALL)
        assert sid.startswith("CA")
        assert len(sid) == 34
        assert await c.ended(sid) == "completed"
        await c.first("/status", 4)
        statuses = [seen.status for seen in c.at("/status")]
        assert statuses == ["initiated", "ringing", "in-progress", "completed"]
        assert [s.params["SequenceNumber"] for s in c.at("/status")] == ["0", "1", "2", "3"]
        assert c.at("/status")[3].params["SipResponseCode"] == "200"
        (voice,) = c.at("/voice")
        assert voice.params["CallStatus"] == "in-progress"
        assert voice.params["Direction"] == "outbound-api"
        assert voice.params["FromCity"] == ""
        assert all(seen.valid for seen in c.seen)
        assert c.heard(sid) == [("Good morning.", True)]
        call = await c.sdk(lambda client: client.calls(sid).fetch())
        assert (call.status, call.direction, call.to, call._from) == (
            "completed",
            "outbound-api",
            PHONE,
            HERE,
        )
        assert call.end_time >= call.start_time


async def test_an_inbound_call_with_a_conversation(customer: Any) -> None:
    async with customer() as c:
        gather = '<Gather input="speech" action="/turn" speechTimeout="auto"><Say>{}</Say></Gather>'
        c.answer("/voice", gather.format("Who is there?"))
        c.answer("/turn", gather.format("And then?"), "<Say>Goodbye.</Say>")
        sid = c.twilio.dial_in(
            CALLER,
            HERE,
            (WaitForSilence(), Say("It is me."), WaitForSilence(), Say("Grüße, nothing & more.")),
        )
        assert await c.ended(sid) == "completed"
        assert c.at("/voice")[0].params["CallStatus"] == "ringing"
        assert [turn.params["SpeechResult"] for turn in c.at("/turn")] == [
            "It is me.",
            "Grüße, nothing & more.",
        ]
        assert c.at("/turn")[0].params["CallStatus"] == "in-progress"
        assert 0 < float(c.at("/turn")[0].params["Confidence"]) <= 1
        assert c.heard(sid) == [
            ("Who is there?", True),
            ("And then?", True),
            ("Goodbye.", True),
        ]
        assert all(seen.valid for seen in c.seen)
        assert c.twilio.calls[sid].reason is EndReason.COMPLETED


@pytest.mark.parametrize(
    ("answer", "status", "rings"),
    [
        (AnswerMode.BUSY, "busy", False),
        (AnswerMode.REJECT, "busy", True),
        (AnswerMode.NO_ANSWER, "no-answer", True),
        (AnswerMode.UNREACHABLE, "failed", False),
    ],
)
async def test_a_phone_that_is_not_answered(
    customer: Any, answer: AnswerMode, status: str, rings: bool
) -> None:
    async with customer() as c:
        c.twilio.set_phone(PHONE, Behaviour(answer=answer, after_ms=1))
        patience = 2 if answer is AnswerMode.NO_ANSWER else 200
        sid = await c.dial(
            status_callback=f"{c.base}/status", status_callback_event=ALL, timeout=patience
        )
        assert await c.ended(sid) == status
        last = await c.first("/status", 3 if rings else 2)
        assert [seen.status for seen in c.at("/status")] == [
            "initiated",
            *(["ringing"] if rings else []),
            status,
        ]
        assert last.params["CallDuration"] == "0"
        assert not c.at("/voice")


async def test_a_live_call_is_redirected_and_hung_up(customer: Any) -> None:
    async with customer() as c:
        c.twilio.set_phone(PHONE, QUIET)
        c.answer("/voice", '<Pause length="600"/>')
        c.answer("/next", '<Say loop="0">Please wait.</Say>')
        sid = await c.dial()
        await c.first("/voice")
        call = await c.sdk(
            lambda client: client.calls(sid).update(url=f"{c.base}/next", method="GET")
        )
        assert call.status == "in-progress"
        assert (await c.first("/next")).method == "GET"
        await c.twilio.ledger.wait_for("heard", call=sid, count=2)
        await c.sdk(
            lambda client: client.calls(sid).update(twiml="<Response><Say>A</Say></Response>")
        )
        assert await c.ended(sid) == "completed"
        assert c.heard(sid)[-1] == ("A", True)
        with pytest.raises(TwilioRestException) as late:
            await c.sdk(lambda client: client.calls(sid).update(twiml="<Response/>"))
        assert (late.value.status, late.value.code) == (400, 21220)
        again = await c.sdk(lambda client: client.calls(sid).update(status="completed"))
        assert again.status == "completed"
        assert all(seen.valid for seen in c.seen)


@pytest.mark.parametrize("status", ["canceled", "completed"])
async def test_a_ringing_call_is_ended(customer: Any, status: str) -> None:
    async with customer() as c:
        c.twilio.set_phone(PHONE, Behaviour(answer=AnswerMode.NO_ANSWER))
        sid = await c.dial(
            status_callback=f"{c.base}/status", status_callback_event=["ringing", "completed"]
        )
        await c.first("/status")
        with pytest.raises(TwilioRestException) as early:
            await c.sdk(lambda client: client.calls(sid).update(twiml="<Response/>"))
        assert early.value.code == 21220
        await c.sdk(lambda client: client.calls(sid).update(status=status))
        assert await c.ended(sid) == "canceled"
        assert (await c.first("/status", 2)).status == "canceled"


async def test_canceling_does_not_touch_a_live_call(customer: Any) -> None:
    async with customer() as c:
        c.twilio.set_phone(PHONE, QUIET)
        c.answer("/voice", '<Pause length="600"/>')
        sid = await c.dial()
        await c.first("/voice")
        assert (
            await c.sdk(lambda client: client.calls(sid).update(status="canceled"))
        ).status == "in-progress"
        await c.sdk(lambda client: client.calls(sid).update(status="completed"))
        assert await c.ended(sid) == "completed"


async def test_digits_are_sent_before_the_document_and_played_in_one(customer: Any) -> None:
    async with customer() as c:
        c.twilio.set_phone(PHONE, QUIET)
        c.answer("/voice", '<Play digits="9wW#"/>')
        sid = await c.dial(send_digits="w12")
        await c.ended(sid)
        entries = c.twilio.ledger.entries("digits-heard", call=sid)
        assert [entry["digits"] for entry in entries] == ["12", "9#"]


async def test_a_limit_of_time_ends_a_call_and_can_be_changed(customer: Any) -> None:
    async with customer() as c:
        c.twilio.set_phone(PHONE, QUIET)
        c.answer("/voice", '<Pause length="6000"/>')
        limited = await c.dial(time_limit=2)
        assert await c.ended(limited) == "completed"
        (entry,) = c.twilio.ledger.entries("ended", call=limited)
        assert entry["duration"] >= 2
        other = await c.dial()
        await c.twilio.ledger.wait_for("answered", call=other)
        await c.sdk(lambda client: client.calls(other).update(time_limit=1))
        assert await c.ended(other) == "completed"


async def test_a_limit_that_the_account_does_not_take(customer: Any) -> None:
    async with customer(longest_call_s=600) as c:
        c.twilio.set_phone(PHONE, QUIET)
        c.answer("/voice", '<Pause length="6000"/>')
        with pytest.raises(TwilioRestException) as refused:
            await c.dial(time_limit=601)
        assert refused.value.code == 13216
        sid = await c.dial(time_limit=600)
        await c.twilio.ledger.wait_for("answered", call=sid)
        with pytest.raises(TwilioRestException) as refused:
            await c.sdk(lambda client: client.calls(sid).update(time_limit=601))
        assert refused.value.code == 13216


async def test_an_inbound_call_is_rejected(customer: Any) -> None:
    async with customer() as c:
        for reason, status in (("busy", "busy"), ("rejected", "no-answer")):
            c.answer("/voice", f'<Reject reason="{reason}"/>')
            c.twilio.set_voice_url(f"{c.base}/voice", status_callback=f"{c.base}/number")
            sid = c.twilio.dial_in(CALLER, HERE, QUIET)
            assert await c.ended(sid) == status
            assert not c.twilio.ledger.entries("answered", call=sid)
        assert [(await c.first("/number", n)).status for n in (1, 2)] == ["busy", "no-answer"]


async def test_a_pause_first_delays_the_answer(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", '<Pause length="600"/>')
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        await c.twilio.ledger.wait_for("webhook", call=sid)
        assert c.twilio.calls[sid].status == "ringing"


async def test_a_caller_whom_nobody_answers_cancels_the_call(customer: Any) -> None:
    async with customer(answer_timeout_s=0.2) as c:
        c.answer("/voice", '<Pause length="6000"/>')
        c.twilio.set_voice_url(f"{c.base}/voice", status_callback=f"{c.base}/number")
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        assert await c.ended(sid) == "canceled"
        assert c.twilio.calls[sid].reason is EndReason.HANGUP_USER
        assert (await c.first("/number")).status == "canceled"


async def test_digits_are_gathered(customer: Any) -> None:
    async with customer() as c:
        c.answer(
            "/voice",
            '<Gather numDigits="3" action="/digits?step=1"><Say>Three.</Say></Gather>'
            "<Say>Too late.</Say>",
        )
        c.answer(
            "/digits",
            '<Gather action="/digits"><Say>More.</Say></Gather>',
            '<Gather timeout="1"/><Redirect>/end</Redirect>',
        )
        steps = (WaitForSilence(), Press("123"), WaitForSilence(), Press("45#"), Silent())
        sid = c.twilio.dial_in(CALLER, HERE, steps)
        assert await c.ended(sid) == "completed"
        first, second = c.at("/digits")
        assert (first.params["Digits"], first.url.partition("?")[2]) == ("123", "step=1")
        assert (second.params["Digits"], second.params["FinishedOnKey"]) == ("45", "#")
        assert len(c.at("/end")) == 1
        assert all(seen.valid for seen in c.seen)


async def test_a_caller_interrupts_the_prompt_of_a_gather(customer: Any) -> None:
    async with customer(word_ms=40) as c:
        prompt = "This is a very long sentence that nobody wants to hear to its end."
        c.answer(
            "/voice", f'<Gather input="dtmf speech" action="/turn"><Say>{prompt}</Say></Gather>'
        )
        sid = c.twilio.dial_in(CALLER, HERE, (Interrupt(50, "Stop."), HangUp()))
        assert await c.ended(sid) == "completed"
        assert c.heard(sid) == [(prompt, False)]
        assert c.twilio.calls[sid].reason is EndReason.HANGUP_USER


async def test_a_gather_without_input_falls_through_or_tells(customer: Any) -> None:
    async with customer() as c:
        c.answer(
            "/voice",
            '<Gather input="speech" timeout="1"/><Say>Nothing.</Say>'
            '<Gather input="speech" timeout="1" action="/empty" actionOnEmptyResult="true"/>',
        )
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        assert await c.ended(sid) == "completed"
        assert c.heard(sid) == [("Nothing.", True)]
        assert c.at("/empty")[0].params["SpeechResult"] == ""


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("<Bark/>", 12100),
        ('<Say volume="1">A</Say>', 12100),
        ("<Gather><Hangup/></Gather>", 12100),
        ("text", 12100),
        ("<Say>A</Say><Reject/>", 12100),
        ('<Connect><Stream url="wss://a/" track="both_tracks"/></Connect>', 12100),
        ("<!-- --><Redirect>ftp://nowhere</Redirect>", 11100),
        (500, 11200),
        (404, 11200),
    ],
)
async def test_a_bad_document_is_an_error_the_caller_hears(
    customer: Any, document: str | int, code: int
) -> None:
    async with customer() as c:
        c.answer("/voice", document)
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        assert await c.ended(sid) == "completed"
        assert c.codes(sid) == [code]
        assert c.twilio.calls[sid].reason is EndReason.ERROR
        ((text, complete),) = c.heard(sid)
        assert "error" in text
        assert complete


async def test_a_wrong_content_type_is_an_error(customer: Any) -> None:
    async with customer() as c:
        c.content_type = "application/json"
        sid = c.twilio.dial_in(CALLER, HERE, QUIET)
        await c.ended(sid)
        assert c.codes(sid) == [12300]


async def test_a_fallback_takes_over(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", 500)
        c.answer("/spare", "<Say>From the spare.</Say>")
        sid = await c.dial(fallback_url=f"{c.base}/spare")
        await c.ended(sid)
        assert c.at("/spare")[0].params["ErrorCode"] == "11200"
        assert c.heard(sid) == [("From the spare.", True)]


async def test_a_fallback_that_leads_back_to_what_failed_ends_the_call(customer: Any) -> None:
    async with customer() as c:
        c.answer("/voice", 500)
        c.answer("/spare", "<Redirect>/voice</Redirect>")
        sid = await c.dial(fallback_url=f"{c.base}/spare")
        assert await c.ended(sid) == "completed"
        assert c.codes(sid)[0] == 11200
        assert c.codes(sid)[-1] == 11215


async def test_a_call_that_ends_as_its_turn_comes_is_not_dialled() -> None:
    async with TwilioEmulator(TwilioOptions(retry_pause_s=0.01)).serve() as twilio:
        assert twilio._board is not None
        turn = _LastMoment(twilio)
        twilio._board = replace(twilio._board, dialler=turn)
        plan = CallPlan(
            direction="outbound-api",
            from_number=HERE,
            to_number=PHONE,
            source=Source("voice", inline="<Response/>"),
            status_callback=f"{twilio.base_url}/nobody",
            status_callback_events=frozenset(ALL),
        )
        turn.call = call = twilio.dial(plan)
        assert await twilio.ended(call.sid) is EndReason.HANGUP_BOT
        with anyio.fail_after(10):
            await twilio.ledger.wait_for("webhook", call=call.sid)
        told = {e["params"]["CallStatus"] for e in twilio.ledger.entries("webhook", call=call.sid)}
        assert told == {"canceled"}
        assert call.started_ms is None
        assert not call.answered


class _LastMoment(Dialler):
    """Ends the call at the very moment its turn comes."""

    def __init__(self, twilio: TwilioEmulator) -> None:
        super().__init__(twilio.seam, 1000.0)
        self.call: Call | None = None

    async def turn(self) -> None:
        await super().turn()
        assert self.call is not None
        self.call.end("canceled", EndReason.HANGUP_BOT)
