"""Calls of every kind, and requests that interfere with them, until the gateway dies."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
from websockets.exceptions import ConnectionClosed

from voicecall.model import Direction
from voicecall_gateway.client import GatewayClient, GatewayUnreachable, RpcError
from voicecall_mock.exchange import (
    AnswerMode,
    Behaviour,
    DropSocket,
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
"""How a client learns that the gateway died; the second during the opening handshake."""

CHATTER: Script = default_script()
STAYING: tuple[Script, ...] = (
    CHATTER,
    CHATTER,
    (Interrupt(60, "Wait a moment."), *CHATTER),
    (WaitForSilence(50), Say("Let me think."), Wait(400), Press("7"), *CHATTER),
    (WaitForSilence(50), Press("12#"), *CHATTER),
)
"""Only we end such a call."""
SCRIPTS: tuple[Script, ...] = (
    *STAYING,
    (WaitForSilence(50), Say("Hello there."), WaitForSilence(50), Say("Goodbye."), *CHATTER),
    (WaitForSilence(50), Say("What can you do?"), HangUp()),
    (WaitForSilence(50), DropSocket(), *CHATTER),
    (Wait(600), HangUp()),
    (Wait(300), HangUpMidWord("I never finish what I", 150)),
)
MODES = (AnswerMode.BUSY, AnswerMode.REJECT, AnswerMode.NO_ANSWER, AnswerMode.UNREACHABLE)


@dataclass(slots=True)
class Dialling:
    """One request to place a call. Without ``call_id`` it was never answered, and is repeated with
    the same key."""

    params: dict[str, str]
    call_id: str | None = None


class Workload:
    """The people around the gateway. Equal seeds make equal plans."""

    def __init__(self, gateway: Gateway, exchange: Exchange, rng: random.Random) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._rng = rng
        self._numbers = 0
        self._staying: set[str] = set()
        self.unanswered: list[Dialling] = []

    def _number(self, stays: bool) -> str:
        self._numbers += 1
        number = f"+1555{self._numbers:07d}"
        if stays:
            self._staying.add(number)
        return number

    def stays(self, record: Mapping[str, Any]) -> bool:
        """Whether this call (a stored document) lasts until we end it."""
        return not self._staying.isdisjoint((record["from_number"], record["to_number"]))

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

    def outbound(self, *, stays: bool = False) -> Dialling:
        """A call to a phone of its own. One that ``stays`` is answered soon and never ended by
        the phone or the agent."""
        rng = self._rng
        number = self._number(stays)
        if stays:
            behaviour = Behaviour(rng.choice(STAYING), after_ms=rng.randrange(100))
        else:
            answer = rng.choice(MODES) if rng.random() < 0.25 else AnswerMode.ANSWER
            behaviour = Behaviour(rng.choice(SCRIPTS), answer, after_ms=rng.randrange(400))
        self._exchange.set_phone(number, behaviour)
        params = {
            "to": number,
            "mode": "conversation" if stays or rng.random() < 0.67 else "notify",
            "message": "Good evening, your table by the window is ready at eight.",
            "idempotencyKey": f"dial {number}",
        }
        if params["mode"] == "conversation" and rng.random() < 0.2:
            params["dtmfSequence"] = "12w3"
        return Dialling(params)

    def never_answers(self, number: str) -> None:
        """The phone with this number rings on."""
        self._exchange.set_phone(number, Behaviour(CHATTER, AnswerMode.NO_ANSWER))

    def call_in(self, *, stays: bool = False) -> None:
        """Somebody calls the gateway."""
        script = self._rng.choice(STAYING if stays else SCRIPTS)
        self._exchange.dial_in(self._number(stays), OUR_NUMBER, script)

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
        """Speak on calls and press keys until the gateway dies."""
        rng = random.Random(self._rng.random())

        def act(client: GatewayClient) -> None:
            calls = client.call("voicecall.status")["calls"]
            if not calls:
                return
            params: dict[str, Any] = {"callId": rng.choice(calls)["callId"]}
            if rng.random() < 0.15:
                client.call("voicecall.dtmf", {**params, "digits": "42"})
            else:
                client.call("voicecall.speak", {**params, "message": "Please hold the line."})

        def work() -> None:
            with self._gateway.client() as client:
                while True:
                    time.sleep(0.02)
                    with suppress(RpcError):  # the call may not be connected, or be over
                        act(client)

        try:
            await anyio.to_thread.run_sync(work)
        except GONE:
            return

    async def replace(self, passing: Callable[[], list[dict[str, Any]]]) -> None:
        """End one of the ``passing`` calls after another and make a new one in its place, until
        the gateway dies."""
        rng = random.Random(self._rng.random())
        try:
            while self._gateway.pid:
                await anyio.sleep(0.05)
                if not (records := passing()):
                    continue
                record = rng.choice(records)
                try:
                    await self._gateway.call("voicecall.end", {"callId": record["call_id"]})
                except RpcError:  # the hang-up takes long
                    continue
                # It is over, and its place is free.
                if record["direction"] == Direction.INBOUND:
                    self.call_in()
                else:
                    await self.dial([self.outbound()])
        except GONE:
            return
