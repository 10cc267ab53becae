"""Calls of every kind, and somebody who meddles with them, until the gateway dies."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from websockets.exceptions import ConnectionClosed

from voicecall_gateway.client import GatewayClient, GatewayUnreachable, RpcError
from voicecall_mock.exchange import (
    AnswerMode,
    Behaviour,
    Exchange,
    HangUp,
    HangUpMidWord,
    Interrupt,
    Press,
    Say,
    Script,
    Wait,
    WaitForSilence,
    default_script,
)
from voicecall_mock.exchange.faults import RestFault, WebhookFault

from .gateway import Gateway

__all__ = ["OUR_NUMBER", "Dialling", "Workload"]

OUR_NUMBER = "+15550009999"
GONE = (GatewayUnreachable, ConnectionClosed)
"""How a client learns that the gateway died: the second within the opening handshake."""

CHATTER: Script = default_script()
SCRIPTS: tuple[Script, ...] = (
    CHATTER,
    CHATTER,
    CHATTER,
    (WaitForSilence(50), Say("Hello there."), WaitForSilence(50), Say("Goodbye."), *CHATTER),
    (WaitForSilence(50), Say("What can you do?"), HangUp()),
    (Interrupt(60, "Wait a moment."), *CHATTER),
    (WaitForSilence(50), Say("Let me think."), Wait(400), Press("7"), *CHATTER),
    (WaitForSilence(50), Press("12#"), *CHATTER),
    (Wait(600), HangUp()),
    (Wait(300), HangUpMidWord("I never finish what I", 150)),
)
MODES = (AnswerMode.BUSY, AnswerMode.REJECT, AnswerMode.NO_ANSWER, AnswerMode.UNREACHABLE)


@dataclass(slots=True)
class Dialling:
    """One request to place a call. Without ``call_id`` it was never answered: it is made again
    with the same key."""

    params: dict[str, str]
    call_id: str | None = None


class Workload:
    """The people around the gateway. Equal seeds make equal plans."""

    def __init__(self, gateway: Gateway, exchange: Exchange, rng: random.Random) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._rng = rng
        self._numbers = 0
        self.unanswered: list[Dialling] = []

    def _number(self) -> str:
        self._numbers += 1
        return f"+1555{self._numbers:07d}"

    # --- plans ------------------------------------------------------------------------------

    def trouble(self) -> None:
        """Other faults of the exchange for the next round."""
        rng, faults = self._rng, self._exchange.faults
        faults.webhooks = WebhookFault(
            duplicate=rng.choice((0.0, 0.3)),
            reorder=rng.choice((0.0, 0.2)),
            delay_ms=rng.choice((0.0, 0.0, 15.0)),
        )
        faults.rest = rng.choice(
            (
                RestFault(),
                RestFault(delay_ms=40.0, paths=("POST /v1/calls",), times=4),
                RestFault(ambiguous=True, paths=("POST /v1/calls",), times=2),
                RestFault(status=503, paths=("POST /v1/calls/",), times=1),
            )
        )

    def outbound(self) -> Dialling:
        """A call to a phone of its own."""
        rng = self._rng
        number = self._number()
        answer = rng.choice(MODES) if rng.random() < 0.25 else AnswerMode.ANSWER
        behaviour = Behaviour(rng.choice(SCRIPTS), answer, after_ms=rng.randrange(400))
        self._exchange.set_phone(number, behaviour)
        params = {
            "to": number,
            "mode": rng.choice(("notify", "conversation", "conversation")),
            "message": "Good evening, your table by the window is ready at eight.",
            "idempotencyKey": f"dial {number}",
        }
        if params["mode"] == "conversation" and rng.random() < 0.2:
            params["dtmfSequence"] = "12w3"
        return Dialling(params)

    def never_answers(self, number: str) -> None:
        """The phone with this number rings on."""
        self._exchange.set_phone(number, Behaviour(CHATTER, AnswerMode.NO_ANSWER))

    def call_in(self) -> None:
        """Somebody calls the gateway."""
        self._exchange.dial_in(self._number(), OUR_NUMBER, self._rng.choice(SCRIPTS))

    # --- at work ----------------------------------------------------------------------------

    async def dial(self, diallings: list[Dialling]) -> None:
        """Place calls one after another; what had no answer goes to ``unanswered``."""

        def work() -> None:
            with self._gateway.client() as client:
                for dialling in diallings:
                    answer = client.call("voicecall.start", dialling.params)
                    dialling.call_id = answer["callId"]

        self.unanswered += diallings
        try:
            await anyio.to_thread.run_sync(work)
        except GONE:
            return
        finally:
            self.unanswered = [each for each in self.unanswered if each.call_id is None]

    async def dial_again(self) -> None:
        """Repeat the requests that were never answered."""
        await self.dial([self.unanswered.pop() for _ in range(len(self.unanswered))])

    async def meddle(self) -> None:
        """Speak on calls, press keys and end some, until the gateway dies."""
        rng = random.Random(self._rng.random())

        def act(client: GatewayClient) -> None:
            calls = client.call("voicecall.status")["calls"]
            if not calls:
                return
            params: dict[str, Any] = {"callId": rng.choice(calls)["callId"]}
            match rng.randrange(8):
                case 0:
                    client.call("voicecall.end", params)
                case 1:
                    client.call("voicecall.dtmf", {**params, "digits": "42"})
                case _:
                    client.call("voicecall.speak", {**params, "message": "Please hold the line."})

        def work() -> None:
            with self._gateway.client() as client:
                while True:
                    time.sleep(0.02)
                    with suppress(RpcError):  # the call is not connected, or over: so be it
                        act(client)

        try:
            await anyio.to_thread.run_sync(work)
        except GONE:
            return
