"""The people around the gateway: callers, callees, and those who steer live calls."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import anyio
from tests.e2e.crash.workload import GONE, Dialling

from voicecall_gateway.client import RpcError
from voicecall_mock.exchange import (
    AnswerMode,
    Behaviour,
    DropSocket,
    HangUp,
    HangUpMidWord,
    Interrupt,
    Press,
    Say,
    Script,
    Silent,
    Wait,
    WaitForSilence,
    default_script,
)
from voicecall_testing.twilio import TwilioEmulator

from .gateway import OUR_NUMBER, StormGateway

__all__ = ["CHATTER", "FULL", "MESSAGE", "SCRIPTS", "Crowd"]

CHATTER = default_script()
PAUSE = WaitForSilence(50)
SCRIPTS: tuple[Script, ...] = (
    (PAUSE, Say("Hello there."), PAUSE, Say("Goodbye."), *CHATTER),
    (PAUSE, Say("Thank you."), Wait(300), Press("12#"), PAUSE, Say("Goodbye."), *CHATTER),
    (PAUSE, Say("What can you do?"), PAUSE, HangUp()),
    (PAUSE, DropSocket(), PAUSE, Say("Goodbye."), *CHATTER),
    (Interrupt(60, "Wait a moment."), PAUSE, HangUp()),
    (Wait(150), HangUp()),
    (Wait(300), HangUpMidWord("I never finish what I", 150)),
    (Wait(1500), HangUp()),
    (Silent(),),
    CHATTER,
)
MODES = (AnswerMode.BUSY, AnswerMode.REJECT, AnswerMode.NO_ANSWER, AnswerMode.UNREACHABLE)
FULL = "Maximum concurrent calls"
MESSAGE = "Good evening, your table by the window is ready at eight."
NOBODY = "+15005550001"
"""A number that the carrier refuses to call."""


class Crowd:
    """Equal seeds make equal plans."""

    def __init__(self, gateway: StormGateway, twilio: TwilioEmulator, rng: random.Random) -> None:
        self._gateway = gateway
        self._twilio = twilio
        self._rng = rng
        self._numbers = 0
        self._dialling = 0

    @property
    def busy(self) -> int:
        """Calls that are under way, or about to be."""
        calls = self._twilio.calls.values()
        return self._dialling + sum(not call.over.is_set() for call in calls)

    def _number(self) -> str:
        self._numbers += 1
        return f"+1555{self._numbers:07d}"

    def call_in(self, script: Script | None = None) -> None:
        """Somebody calls the gateway, to do what one of the scripts says."""
        self._twilio.dial_in(self._number(), OUR_NUMBER, script or self._rng.choice(SCRIPTS))

    def dialling(self) -> Dialling:
        """A call to a new phone; now and then to a number that cannot be called."""
        rng, number = self._rng, self._number()
        answer = rng.choice(MODES) if rng.random() < 0.25 else AnswerMode.ANSWER
        behaviour = Behaviour(rng.choice(SCRIPTS), answer, after_ms=rng.randrange(400))
        self._twilio.set_phone(number, behaviour)
        params = {
            "to": NOBODY if rng.random() < 0.03 else number,
            "mode": "conversation" if rng.random() < 0.6 else "notify",
            "message": MESSAGE,
            "idempotencyKey": f"dial {number}",
        }
        if params["mode"] == "conversation" and rng.random() < 0.2:
            params["dtmfSequence"] = "12w3"
        return Dialling(params)

    def staying(self) -> Dialling:
        """A call that nobody ends but us."""
        dialling = self.dialling()
        dialling.params |= {"to": self._number(), "mode": "conversation"}
        self._twilio.set_phone(dialling.params["to"], CHATTER)
        return dialling

    async def dial(self, dialling: Dialling, *, patient: bool = False) -> None:
        """Place a call; if the gateway dies meanwhile, ask the next one with the same key.
        ``patient``: wait for a place."""
        self._dialling += 1
        try:
            while dialling.call_id is None:
                if not self._gateway.up:
                    await anyio.sleep(0.1)
                    continue
                with suppress(*GONE):
                    await self._dial_once(dialling, patient)
        finally:
            self._dialling -= 1

    async def _dial_once(self, dialling: Dialling, patient: bool) -> None:
        try:
            answer = await self._gateway.call("voicecall.start", dialling.params)
        except RpcError as error:
            if patient and FULL in str(error):
                # The ends of calls that are over are late.
                await anyio.sleep(0.2)
                return
            if not str(error).startswith("twilio: "):
                raise
            # The carrier refuses the call, which has failed.
            answer = {"callId": ""}
        dialling.call_id = answer["callId"]

    async def meddle(self) -> None:
        """Speak on calls, press keys and end calls until cancelled."""
        rng = random.Random(self._rng.random())
        while True:
            await anyio.sleep(0.4)
            # The gateway is down, or the call is not connected or over: so be it.
            with suppress(RpcError, *GONE):
                await self._meddle_once(rng)

    async def _meddle_once(self, rng: random.Random) -> None:
        calls = (await self._gateway.call("voicecall.status", {}))["calls"]
        if not calls:
            return
        params: dict[str, Any] = {"callId": rng.choice(calls)["callId"]}
        match rng.random():
            case luck if luck < 0.1:
                await self._gateway.call("voicecall.end", params)
            case luck if luck < 0.25:
                await self._gateway.call("voicecall.dtmf", {**params, "digits": "42"})
            case luck if luck < 0.6:
                message = {"message": "Please hold the line."}
                await self._gateway.call("voicecall.speak", {**params, **message})
            case _:
                return  # only looked
