"""A phone on the line: it follows a script, whether the call is native or a media stream."""

from __future__ import annotations

import anyio

from .line import CarrierLine
from .script import (
    DropSocket,
    HangUp,
    HangUpMidWord,
    Interrupt,
    Loop,
    Press,
    Say,
    Script,
    Silent,
    Step,
    Wait,
    WaitForSilence,
)

__all__ = ["run_phone"]

_LOOP_PAUSE_S = 0.02
"""Keeps a loop of steps that take no time from spinning."""


async def run_phone(script: Script, line: CarrierLine) -> None:
    """Follow ``script``. Returns at its end; the phone then stays on the line in silence."""
    index = 0
    while index < len(script):
        step = script[index]
        index += 1
        if isinstance(step, Loop):
            index = step.start
            await anyio.sleep(_LOOP_PAUSE_S)
        else:
            await _do(step, line)


async def _do(step: Step, line: CarrierLine) -> None:
    match step:
        case Say():
            await line.say(step)
        case WaitForSilence(after_ms, timeout_ms):
            with anyio.move_on_after(None if timeout_ms is None else timeout_ms / 1000):
                await line.far_silence(after_ms)
        case Interrupt():
            await line.far_speech()
            await anyio.sleep(step.after_ms / 1000)
            await line.say(step)
        case Press(digits):
            line.press(digits)
        case Wait(ms):
            await anyio.sleep(ms / 1000)
        case Silent(ms):
            if ms is None:
                await anyio.sleep_forever()
            else:
                await anyio.sleep(ms / 1000)
            line.forget_heard()
        case DropSocket():
            line.drop_socket()
        case HangUpMidWord():
            await line.begin_to_say(step)
            line.hang_up()
        case HangUp():
            line.hang_up()
