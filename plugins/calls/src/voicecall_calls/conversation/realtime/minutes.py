"""Reports a voice model's utterances to the call's record and its turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voicecall import events as ev
from voicecall.model import MessageState
from voicecall.store import TurnRow
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.mouth import SpeechTimes, heard_part
from voicecall_calls.conversation.realtime.caller import CallerWords
from voicecall_calls.conversation.realtime.items import Item

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["Minutes"]


class Minutes:
    """Writes what an item said, how much of it was heard, and its times."""

    __slots__ = ("_lane", "_line", "_seam", "_words")

    def __init__(self, lane: CallLane, line: AudioLine, words: CallerWords) -> None:
        self._lane = lane
        self._line = line
        self._words = words
        self._seam = lane.host.seam

    def row(self, item: Item, speech: SpeechTimes) -> TurnRow:
        """The turn of ``item``, with its times."""
        speech.first_byte = self._line.first_written(item.key)
        speech.first_sent = self._line.first_sent(item.key)
        # Words may be reported after the answer to them. Earlier words belong to another item.
        item.times.stt_final = None if item.answers.speaks else item.answers.final
        return item.times.row(speech)

    async def speaking(self, item: Item) -> None:
        """``item`` has begun to be heard."""
        message = self._lane.record.message
        pending = message is not None and message.state is MessageState.PENDING
        event = ev.BotSpeaking(
            at=self._seam.now_ms(),
            utterance_id=item.key,
            text=item.message or item.text,
            first_message=item.message is not None and pending,
        )
        if event.first_message:
            await self._lane.persist(event)
        else:
            # Stored with the end of the item: a crash would end the item too.
            await self._lane.note(event)

    async def spoke(self, item: Item, speech: SpeechTimes, *, patient: bool) -> None:
        """``item`` was said or cut off. ``patient``: nothing waits for its record."""
        text = item.text.strip() or item.message or ""
        heard = text
        if patient:
            # Many vendors report the caller's words after the answer; the transcript has them
            # first.
            await self._words.known(item.answers)
        if item.cut_ms is not None:
            heard = heard_part(text, item.cut_ms, item.total_ms)
        await self._lane.persist(
            ev.BotSpoke(
                at=self._seam.now_ms(),
                utterance_id=item.key,
                heard=heard,
                complete=item.cut_ms is None and item.error is None,
                ok=item.sounded,
            ),
            turns=(self.row(item, speech),),
            patient=patient,
        )

    async def broke_off(self, item: Item, speech: SpeechTimes) -> None:
        """The call ended during ``item``: record what was heard of it."""
        line = self._line
        if item.cut_ms is None and line.pacer.pending(item.key):
            item.total_ms = line.output_format.duration_ms(line.size(item.key))
            item.cut_ms = line.heard_ms(item.key)
        await self.spoke(item, speech, patient=False)
