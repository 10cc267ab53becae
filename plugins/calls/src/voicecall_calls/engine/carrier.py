"""Requests to the carrier on behalf of a lane. Each outcome returns to the lane as an event."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import OutcomeUnknown, ProviderError, ProviderTimeout, StoreError
from voicecall.model import CallRecord, CallState, Direction, EndDetail, EndReason, MediaPath

from .asking import DIAL_S, asked, reported_end, reported_status
from .planner import LIMIT_SLACK_S

if TYPE_CHECKING:
    from .engine import CallEngine
    from .lane import CallLane

__all__ = ["CarrierActions"]

_log = logging.getLogger("voicecall.calls")
_LOOKUPS = 5
_REATTACH_PAUSE_S = 0.15
_REATTACH_DOUBLINGS = 3
"""How often that pause is doubled while sockets fail one after the other. Otherwise a proxy that
forwards no WebSockets would cause six requests per second."""
_CALM_S = 10.0
"""If this much time has passed since the last reattachment, the pause starts at its minimum."""
_ATTACHES = 3
_INSISTS = 4
_PAST_RINGING = (ev.CarrierStatus.CONNECTED, ev.CarrierStatus.ENDED)


class CarrierActions:
    def __init__(self, engine: CallEngine) -> None:
        self._engine = engine
        self._provider = engine.provider

    def _now(self) -> int:
        return self._engine.seam.now_ms()

    # --- dialling ---------------------------------------------------------------------------

    async def dial(self, lane: CallLane) -> None:
        """Place the call once."""
        try:
            await self._dial(lane)
        finally:
            lane.dialled.set()

    async def _dial(self, lane: CallLane) -> None:
        record = lane.record
        policy = self._engine.policy
        spoken = record.message is not None and record.message.at_dial is not None
        placing = True
        request = tel.DialRequest(
            call_id=record.call_id,
            from_number=record.from_number,
            to_number=record.to_number,
            webhook_url=lane.ref.webhook_url,
            ring_timeout_s=max(1, policy.ring_timeout_ms // 1000),
            time_limit_s=policy.max_duration_ms // 1000 + LIMIT_SLACK_S,
            dtmf_sequence=record.dtmf_sequence,
            message=self._engine.planner.first_words(record) if spoken else None,
            wanted=lambda: placing and lane.record.live and lane.record.ending is None,
        )

        async def place() -> str:
            return _id_from("place_call", await self._provider.place_call(request))

        event: ev.CallEvent
        try:
            placed = await asked(place, DIAL_S)
            event = ev.DialAccepted(at=self._now(), provider_call_id=placed)
        except (OutcomeUnknown, ProviderTimeout) as error:
            # Without an answer the call may exist, whichever of the errors an adapter raises.
            _log.warning("call %s: it is unknown whether it was placed: %s", record.call_id, error)
            event = ev.DialUncertain(at=self._now(), error=str(error))
        except ProviderError as error:
            _log.warning("call %s: not placed: %s", record.call_id, error)
            lane.dial_refused = error
            event = ev.DialRefused(at=self._now(), error=str(error))
        # An adapter that was given up may still be running: it must not place the call, which is
        # looked up now.
        placing = False
        await lane.bring(event)

    async def look_up(self, lane: CallLane) -> None:
        """Find out what became of a dial request."""
        if not self._provider.capabilities.dial_lookup:
            return  # the dial deadline closes the call
        for attempt in range(_LOOKUPS):
            try:
                found = await self._find_dial(lane)
            except (ProviderError, StoreError) as error:
                _log.warning("call %s: dial lookup failed: %s", lane.record.call_id, error)
                await anyio.sleep(2.0**attempt)
                continue
            await lane.bring(ev.DialLookedUp(at=self._now(), provider_call_id=found))
            return

    async def _find_dial(self, lane: CallLane) -> str | None:
        """Ask until the id that is found belongs to no other call."""
        record = lane.record
        known = set(self._engine.carrier_ids()).difference(record.aliases)

        async def find(query: tel.DialQuery) -> str | None:
            found = await self._provider.find_dial(query)
            return None if found is None else _id_from("find_dial", found)

        while True:
            query = tel.DialQuery(
                call_id=record.call_id,
                from_number=record.from_number,
                to_number=record.to_number,
                placed_at=record.started_at,
                known=frozenset(known),
            )
            found = await asked(partial(find, query))
            owner = await self._engine.stored(found) if found is not None else None
            if found is None or owner is None or owner.call_id == record.call_id:
                return found
            if found in known:
                raise OutcomeUnknown("the lookup found a different call", provider="carrier")
            known.add(found)

    # --- ending and asking ------------------------------------------------------------------

    async def hang_up(self, lane: CallLane) -> None:
        event: ev.CallEvent
        late = lane.record.terminal
        ending = lane.record.ending
        if ending is not None and ending.detail is EndDetail.RING_TIMEOUT and not ending.attempts:
            _warn_if_unreached(lane)
        try:
            await asked(partial(self._provider.perform, lane.ref, tel.Hangup()))
            event = ev.HangUpDone(at=self._now())
        except ProviderError as error:
            _log.warning("call %s: hang-up failed: %s", lane.record.call_id, error)
            if late:
                # A leg that turned up after the end: the call has no more deadlines.
                await self._insist(lane, tel.Hangup())
                return
            event = ev.HangUpFailed(at=self._now(), error=str(error))
        await lane.bring(event)

    async def probe(self, lane: CallLane) -> None:
        reported = await reported_status(lane, self._provider)
        if reported.status in _PAST_RINGING and not lane.record.recovering:
            _warn_if_unreached(lane)
        await lane.bring(reported)

    async def _is_over(self, lane: CallLane) -> bool:
        end = await reported_end(lane, self._provider)
        if end is not None:
            await lane.bring(end)
        return end is not None

    # --- actions ----------------------------------------------------------------------------

    async def perform(
        self, lane: CallLane, actions: Sequence[tel.Action], *, reattach: bool
    ) -> None:
        """Perform actions in order; a failure becomes an event. ``reattach``: they replace a
        stream that was lost."""
        lost = lane.record.lost_stream_id
        if reattach:
            # A stream often breaks because the call is over, which is reported a moment later.
            await anyio.sleep(self._reattach_pause_s(lane))
            if not _wants_stream(lane.record, lost) or await self._is_over(lane):
                return
        for action in actions:
            again = isinstance(action, tel.AttachStream | tel.LimitDuration)
            for attempt in range(_ATTACHES if again else 1):
                if attempt:
                    await anyio.sleep(_REATTACH_PAUSE_S * 2**attempt)
                if isinstance(action, tel.AttachStream) and not _wants_stream(lane.record, lost):
                    break
                if await self._performed(lane, action):
                    break
                if await self._is_over(lane):
                    return
            else:
                await self._failed(lane, action)

    def _reattach_pause_s(self, lane: CallLane) -> float:
        now = self._engine.seam.monotonic()
        lane.reattaches = lane.reattaches + 1 if now - lane.reattached_at < _CALM_S else 0
        lane.reattached_at = now
        doublings = min(lane.reattaches, _REATTACH_DOUBLINGS)
        return _REATTACH_PAUSE_S * float(1 << doublings)

    async def _performed(self, lane: CallLane, action: tel.Action) -> bool:
        try:
            await asked(partial(self._provider.perform, lane.ref, action))
        except ProviderError as error:
            name = type(action).__name__
            _log.warning("call %s: %s failed: %s", lane.record.call_id, name, error)
            return False
        return True

    async def _failed(self, lane: CallLane, action: tel.Action) -> None:
        now = self._now()
        match action:
            case tel.Speak(utterance_id=utterance):
                await lane.bring(ev.BotSpoke(at=now, utterance_id=utterance, heard="", ok=False))
                if lane.conversation is not None:
                    lane.conversation.playback_finished(utterance, False)
            case tel.Answer():
                await lane.bring(
                    ev.EndRequested(at=now, reason=EndReason.FAILED, detail=EndDetail.CARRIER)
                )
            case tel.Listen():
                await lane.bring(
                    ev.EndRequested(
                        at=now, reason=EndReason.ERROR, detail=EndDetail.LISTENING_FAILED
                    ),
                )
            case tel.Reject():
                # Nothing else would end a call that was refused and is still ringing.
                await self._insist(lane, action)
            case _:
                # Streams and the length of a call have their own deadlines.
                return

    async def _insist(self, lane: CallLane, action: tel.Action) -> None:
        """Repeat an action that the carrier did not perform, a few times."""
        for attempt in range(_INSISTS):
            await anyio.sleep(2.0**attempt)
            if await self._performed(lane, action):
                return


def _warn_if_unreached(lane: CallLane) -> None:
    """Warn of a placed call that is past its ringing without a single report from the carrier: one
    that reaches us would have reported the ringing long before."""
    record = lane.record
    if record.state is CallState.INITIATED and record.direction is Direction.OUTBOUND:
        what, url = "the carrier reported neither ringing nor an answer", lane.ref.webhook_url
        _log.warning("call %s: %s; can it reach %s?", record.call_id, what, url)


def _wants_stream(record: CallRecord, lost: str | None) -> bool:
    """Whether the call still needs a stream to replace ``lost``. It does not if a stream that was
    requested earlier has arrived: another request would replace it. If that one was lost too, its
    own loss is handled separately. Nor is one wanted once the call is ending: it would cut off the
    last words, which may be under way without a stream."""
    lacks = record.stream_id is None and record.media is not MediaPath.NATIVE
    return lacks and record.lost_stream_id == lost and record.ending is None


def _id_from(method: str, returned: Any) -> str:
    if not isinstance(returned, str) or not returned:
        raise TypeError(f"{method} must return the carrier's id of the call")
    return returned
