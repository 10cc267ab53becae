"""A conversation with the carrier's own voice and recogniser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voicecall import telephony as tel
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.agentturn import Brain
from voicecall_calls.conversation.dialogue import Dialogue
from voicecall_calls.conversation.native import NativeMouth
from voicecall_calls.conversation.replier import utter
from voicecall_calls.conversation.tones import play_on_native
from voicecall_calls.conversation.turntimes import KeepTurn

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["NativeConversation"]


class NativeConversation(Dialogue):
    """A dialogue that speaks and listens by actions of the carrier, without a media socket."""

    def __init__(
        self,
        lane: CallLane,
        provider: tel.TelephonyProvider,
        brain: Brain,
        *,
        voice: str | None,
        config: VoiceCallConfig,
        keep: KeepTurn,
    ) -> None:
        mouth = NativeMouth(lane, provider, voice=voice)
        super().__init__(lane, mouth, brain, config=config, keep=keep)
        self._native_mouth = mouth
        self._provider = provider
        # The planner may have let the carrier speak already, in the reply to a webhook.
        utterance = lane.record.utterance
        self._playing = (
            (mouth.follow(utterance.id), utterance.text) if utterance is not None else None
        )

    def playback_finished(self, utterance_id: str, ok: bool) -> None:
        super().playback_finished(utterance_id, ok)
        self._native_mouth.finished(utterance_id, ok)

    async def _open(self) -> None:
        if self._playing is not None:
            async with self._floor.taken():
                await utter(*self._playing)
        else:
            await super()._open()

    async def play_digits(self, digits: str, *, last: bool = False) -> None:
        if self._provider.capabilities.dtmf_keeps_stream and not last:
            await play_on_native(self.lane, self._provider, digits)
            return
        # Tones would cut the bot's speech short.
        async with self._floor.taken():
            await play_on_native(self.lane, self._provider, digits, last=last)
