"""Effects of a step: requests to the carrier, and notifications to the conversation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from voicecall import machine as mc
from voicecall import telephony as tel
from voicecall.model import MediaPath

from .carrier import CarrierActions

if TYPE_CHECKING:
    from .engine import CallEngine
    from .lane import CallLane

__all__ = ["Effects"]


_MOST_EARLY = 32
"""How many voice models may be opened before the media sockets of their calls."""


class Effects:
    """Carries out effects quickly: slow work becomes a task of the call or of the engine."""

    def __init__(self, engine: CallEngine) -> None:
        self._engine = engine
        self._carrier = CarrierActions(engine)
        self.early: set[str] = set()
        """Calls whose voice model is opened although their media socket has yet to arrive."""

    def carry_out(
        self, lane: CallLane, effects: Sequence[mc.Effect], actions: Sequence[tel.Action]
    ) -> None:
        """Carry out everything except the release of the call."""
        if actions:
            reattach = any(isinstance(effect, mc.ReattachStream) for effect in effects)
            job = partial(self._carrier.perform, lane, actions, reattach=reattach)
            if lane.record.terminal:
                self._engine.spawn(job)
            else:
                lane.spawn(job)
        for effect in effects:
            self._carry_out(lane, effect)

    def _carry_out(self, lane: CallLane, effect: mc.Effect) -> None:
        match effect:
            case mc.Dial():
                self._engine.spawn(partial(self._carrier.dial, lane))
            case mc.LookUpDial():
                self._engine.spawn(partial(self._carrier.look_up, lane))
            case mc.HangUp():
                if lane.conversation is not None:
                    lane.conversation.hush()
                self._engine.spawn(partial(self._carrier.hang_up, lane))
            case mc.ProbeStatus():
                self._engine.spawn(partial(self._carrier.probe, lane))
            case mc.Connected():
                self._connect(lane, resumed=effect.resumed)
            case mc.CallerTurn(text) if (talk := lane.begin()) is not None:
                talk.caller_turn(text)
            case mc.CallerSpeaking() if (talk := lane.begin()) is not None:
                talk.caller_speaking()
            case mc.KeysPressed(digits) if (talk := lane.begin()) is not None:
                talk.keys_pressed(digits)
            case mc.PlaybackFinished(utterance_id, ok) if (talk := lane.begin()) is not None:
                talk.playback_finished(utterance_id, ok)
            case mc.StreamMissing(detail) if (talk := lane.begin()) is not None:
                talk.stream_missing(detail)
            case mc.PlayMessage() if (talk := lane.begin()) is not None:
                talk.play_message()
            case _:
                # Everything else is an action, the release, or has no conversation to notify.
                return

    def _connect(self, lane: CallLane, *, resumed: bool) -> None:
        make = self._engine.conversations
        if make is None or lane.conversation is not None:
            return
        lane.prepare(partial(make, lane))
        if lane.record.media is MediaPath.REALTIME and not resumed and not self._opens_early(lane):
            return
        conversation = lane.begin()
        if resumed and conversation is not None:
            conversation.resume()

    def _opens_early(self, lane: CallLane) -> bool:
        """Whether the voice model is opened before the media socket arrives. In a flood of calls
        the others wait for their sockets: webhooks take precedence, and most of the sockets may
        never arrive."""
        if len(self.early) >= _MOST_EARLY:
            return False
        self.early.add(lane.record.call_id)
        return True
