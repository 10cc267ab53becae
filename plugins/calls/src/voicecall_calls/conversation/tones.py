"""Keypad tones on a live call, also by carriers that interrupt the conversation to play them."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import anyio

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import CallNotReady, ProviderError, RequestRejected, VoicecallError
from voicecall.machine import Outcome
from voicecall.model import CallMode, MediaPath
from voicecall.tones import only_waits, tones_ms
from voicecall_calls.engine.asking import asked

if TYPE_CHECKING:
    from voicecall_calls.conversation.line import AudioLine
    from voicecall_calls.engine.lane import CallLane

__all__ = ["can_press", "play_on_line", "play_on_native", "press"]

_log = logging.getLogger("voicecall.calls")


def can_press(lane: CallLane) -> bool:
    return lane.host.provider.capabilities.dtmf_out


async def press(lane: CallLane, digits: str) -> str | None:
    """Play the ``digits`` that an agent or a voice model wants pressed, if any; then the call
    listens. Returns why they were not played, or None. They are played even if this is cancelled.
    """
    if not digits or (lane.record.media is not MediaPath.NATIVE and only_waits(digits)):
        # A media socket listens all the time: there is nothing to do in order to wait.
        return None
    over = anyio.Event()
    failed: str | None = None

    async def play() -> None:
        nonlocal failed
        try:
            if not can_press(lane):
                text = "the carrier cannot play keypad tones during a call"
                raise RequestRejected(text, provider=lane.record.provider)
            if lane.conversation is not None:
                await lane.conversation.play_digits(digits, last=True)
        except VoicecallError as error:
            failed = str(error)
            _log.warning("call %s: keys were not pressed: %s", lane.record.call_id, error)
        finally:
            over.set()

    lane.spawn(play)
    await over.wait()
    return failed


async def play_on_line(
    lane: CallLane, provider: tel.TelephonyProvider, line: AudioLine, digits: str
) -> None:
    """Play ``digits`` on a call with a media socket. If the carrier replaces the socket to play
    them, wait for the next one, on which unheard audio is sent again. The wait ends with the
    deadline for a stream to start, or with the call."""
    if line.send_digits(digits):
        return
    if provider.capabilities.dtmf_keeps_stream:
        await asked(partial(provider.perform, lane.ref, tel.PlayDigits(digits)))
        return
    before = lane.record.stream_id
    busy_ms = tones_ms(digits)
    stream = await lane.new_stream(busy_ms)
    now = lane.host.seam.now_ms()
    applied = await lane.apply(ev.StreamSwapping(at=now, busy_ms=busy_ms))
    if before is None or applied.outcome is not Outcome.PROCESSED:
        raise CallNotReady("the call's audio is not connected at the moment")
    try:
        await asked(partial(provider.perform, lane.ref, tel.PlayDigits(digits, stream)))
    except ProviderError:
        if line.socket is not None:
            now = lane.host.seam.now_ms()
            await lane.apply(ev.StreamAttached(at=now, stream_id=before))
        raise
    async with anyio.create_task_group() as tasks:

        async def over() -> None:
            await lane.released()
            tasks.cancel_scope.cancel()

        tasks.start_soon(over)
        await anyio.sleep(busy_ms / 1000)
        with anyio.move_on_after(lane.host.policy.stream_start_ms / 1000):
            await line.attached()
        tasks.cancel_scope.cancel()
    if lane.record.terminal:
        raise CallNotReady("the call ended meanwhile")


async def play_on_native(
    lane: CallLane, provider: tel.TelephonyProvider, digits: str, *, last: bool = False
) -> None:
    """Play ``digits`` on a call without a media socket. Afterwards the carrier listens for the same
    turn; if they come ``last`` and it was not listening, for a new one. If speech would cut the
    tones short, this returns only when they were played."""
    token, keeps = lane.record.listen_token, provider.capabilities.dtmf_keeps_stream
    begins = last and token is None
    if begins:
        token = lane.host.seam.token()
        await lane.apply(ev.ListenStarted(at=lane.host.seam.now_ms(), token=token))
    listen = None
    if token is not None and lane.record.mode is CallMode.CONVERSATION:
        listen = lane.host.planner.listen(token)
    await asked(partial(provider.perform, lane.ref, tel.PlayDigits(digits, listen=listen)))
    if not keeps:
        await anyio.sleep(tones_ms(digits) / 1000)
    elif begins and listen is not None:
        # Such a carrier goes on as before the tones: it was not listening.
        await asked(partial(provider.perform, lane.ref, listen))
