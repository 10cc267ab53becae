"""What a full-duplex voice model says: item by item, to the line, the record and the turns.

An item is one utterance of the model. Its audio goes to the line as it arrives. The record is
written item by item, as the caller hears them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import anyio

from voicecall.audio import AudioFormat, Converter
from voicecall.media import AudioSink
from voicecall.realtime import ResponseDone
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.mouth import SpeechTimes
from voicecall_calls.conversation.realtime.caller import CallerWords
from voicecall_calls.conversation.realtime.items import Item, Ticket, Tickets
from voicecall_calls.conversation.realtime.minutes import Minutes
from voicecall_calls.conversation.realtime.sink import SessionSink
from voicecall_calls.conversation.realtime.words import joined
from voicecall_calls.conversation.turntimes import CallerTimes, KeepTurn, TurnTimes
from voicecall_calls.news import News

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["ModelVoice"]

_TEXT_PATIENCE_S = 1.0
"""How long after its audio the text of an item is waited for."""
_IDS_KEPT = 64


class ModelVoice:
    """What the model says on one call. It outlives the model's sessions, each of which writes to
    its own sink."""

    __slots__ = (
        "_active",
        "_awaited",
        "_changed",
        "_cut",
        "_dropped",
        "_early",
        "_format",
        "_keep",
        "_lane",
        "_line",
        "_minutes",
        "_response",
        "_seam",
        "_sink",
        "_tickets",
        "answered",
        "caller",
        "interruptions",
        "parting",
    )

    def __init__(self, lane: CallLane, line: AudioLine, words: CallerWords, keep: KeepTurn) -> None:
        self.interruptions = 0
        self.parting = False
        """Only items with a ticket may begin."""
        self.caller = CallerTimes()
        self.answered = CallerTimes()
        """The caller's times that the newest item answers."""
        self._lane = lane
        self._line = line
        self._minutes = Minutes(lane, line, words)
        self._seam = lane.host.seam
        self._keep = keep
        self._format = line.output_format
        """The current session's audio format."""
        self._sink: SessionSink | None = None
        """The current session's sink."""
        self._active: list[Item] = []
        """Items whose record is not complete yet, in the order in which they are heard."""
        self._cut: OrderedDict[str, None] = OrderedDict()
        self._dropped = False
        """No more items of the response in progress may begin."""
        self._early: OrderedDict[str, tuple[str, bool]] = OrderedDict()
        self._tickets = Tickets()
        self._response: tuple[str, int] | None = None
        """The response in progress, and when it began."""
        self._awaited = 0
        self._changed = News()
        """Notifies that something has happened to an item."""

    # --- audio ------------------------------------------------------------------------------

    def session_opened(self, model_format: AudioFormat) -> AudioSink:
        """The sink for a new session that speaks in ``model_format``; replaces the previous
        sink."""
        self.session_closed()
        self._format = model_format
        self._forget_names()
        self._sink = SessionSink(self._line, self._item)
        return self._sink

    def session_closed(self) -> None:
        """Discard what the session says from now on, and give up requested items that have not
        begun. Audio that has arrived is still played."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None
        self._end_items()

    def session_reset(self) -> None:
        """End all items: what the session says from now on belongs to new ones."""
        self._end_items()
        self._forget_names()

    def _end_items(self) -> None:
        for item in self._active:
            self._finish(item)
            item.id = ""  # The next session may use the same names.
        self._response = None
        self._dropped = False
        self._tickets.close()
        self.answered = CallerTimes()

    def _forget_names(self) -> None:
        self._cut.clear()
        self._early.clear()

    def _item(self, item_id: str) -> Item | None:
        """The item for audio with this id, begun if necessary; None if it must not be heard."""
        item = self._known(item_id)
        if item is None or item.over:
            if item_id in self._cut or self._dropped or self._closed:
                return None
            item = self._begin(item_id)
        return item

    def _known(self, item_id: str) -> Item | None:
        """The newest item with the model's id ``item_id``, unless it was cut off."""
        items = reversed(self._active)
        return next((item for item in items if item.id == item_id and item.cut_ms is None), None)

    def _begin(self, item_id: str) -> Item:
        for other in self._active:
            self._finish(other)
        now = self._seam.now_ms()
        caller, self.caller = self.caller, CallerTimes()
        if caller != self.caller:
            self.answered = caller
        times = TurnTimes(
            self._lane.record.call_id,
            self._seam.new_id(),
            "realtime",
            now,
            speech_started=caller.started,
            speech_ended=caller.ended,
            agent_start=now if self._response is None else self._response[1],
        )
        converter = Converter(self._format, self._line.output_format)
        # With equal formats the converter is only needed if a piece may end inside a sample.
        converts = not converter.identity or self._format.sample_width > 1
        item = Item(item_id, self._seam.new_id(), times, converter, converts, caller)
        self._tickets.take(item, self._making)
        self._active.append(item)
        if item_id in self._early:
            text, final = self._early.pop(item_id)
            self.text(item_id, text, final=final)
        self._changed.tell()
        return item

    def _finish(self, item: Item) -> None:
        if item.over:
            return
        tail = item.converter.flush()
        if tail and item.cut_ms is None:
            item.sounded = True
            self._line.write(item.key, tail)
        item.over = True
        if self._sink is not None and self._sink.current is item:
            # Later audio with this id must not go to this item, which has no second end.
            self._sink.current = None
        self._line.finish(item.key)
        self._changed.tell()

    # --- events of the session --------------------------------------------------------------

    def next_item(self, message: str | None = None) -> Ticket:
        """A ticket for the next item that begins."""
        return self._tickets.draw(message, self._making)

    def give_up(self, ticket: Ticket) -> None:
        """The item of ``ticket`` will not come."""
        self._tickets.give_up(ticket)

    @property
    def _making(self) -> str | None:
        """The id of the response in progress."""
        return None if self._response is None else self._response[0]

    def response_started(self, response: str) -> None:
        self._response = response, self._seam.now_ms()
        self._dropped = False

    def response_done(self, event: ResponseDone) -> bool:
        """End the items of a response. Returns whether there were any."""
        self._response = None
        self._dropped = False
        self._changed.tell()
        if event.items:
            items = [item for item_id in event.items if (item := self._known(item_id)) is not None]
        else:
            items = [item for item in self._active if not item.over]
        for item in items:
            if event.status == "failed":
                # str(), because a vendor's own error object must not break the call.
                item.error = str(event.error or "the response failed")
                item.times.failed = item.error
            self._finish(item)
        if not items and event.status != "completed":
            self._tickets.nothing_came(event.response, cancelled=event.status == "cancelled")
        return bool(items)

    def text(self, item_id: str, text: str, *, final: bool) -> None:
        """Take text of an item, which may arrive before its audio."""
        item = next((one for one in reversed(self._active) if one.id == item_id), None)
        if item is None:
            known, _ = self._early.get(item_id, ("", False))
            self._early[item_id] = (text if final else joined(known, text), final)
            _bound(self._early)
            return
        if final:
            item.text = text.strip()
            item.told = True
            self._changed.tell()
        elif not item.told:
            item.text = joined(item.text, text)

    def caller_said(self) -> None:
        """The caller's words were reported; many vendors do so only after the answer has begun."""
        late = self.caller.started is None and self.answered.wordless
        (self.answered if late else self.caller).final = self._seam.now_ms()

    @property
    def asked(self) -> bool:
        """An item was requested and has not begun yet."""
        return bool(self._tickets)

    @property
    def answering(self) -> bool:
        """A response is in progress."""
        return self._response is not None or any(not item.over for item in self._active)

    @property
    def made(self) -> int:
        """Bytes of audio that have arrived for the items in progress."""
        return sum(self._line.size(item.key) for item in self._active if not item.over)

    # --- interruptions ----------------------------------------------------------------------

    @property
    def playing(self) -> bool:
        """Audio is being played, or waits to be."""
        return any(self._line.pacer.pending(item.key) for item in self._active)

    @property
    def ended(self) -> bool:
        """The call is being ended, so no more items begin."""
        return self._lane.record.ending is not None

    @property
    def _closed(self) -> bool:
        return self.ended or (self.parting and self._tickets.due(self._making) is None)

    def interrupt(self) -> dict[str, float] | None:
        """Stop everything that is being said. Returns how many milliseconds of each item were
        heard, by the model's id; None if nothing was being said."""
        playing = [item for item in self._active if self._line.pacer.pending(item.key)]
        if not playing:
            return None
        self.interruptions += 1
        for item in playing:
            item.total_ms = self._line.output_format.duration_ms(self._line.size(item.key))
        heard, now = self._line.clear(), self._seam.now_ms()
        began = self.caller.started
        for item in playing:
            item.cut_ms = heard[item.key].milliseconds
            item.times.barge_in_at = now
            if began is not None:
                item.times.barge_in_stop_ms = now - began
            self._finish(item)
            self._cut[item.id] = None
        _bound(self._cut)
        return {item.id: item.cut_ms or 0.0 for item in playing if item.id}

    def drop(self) -> dict[str, float]:
        """:meth:`interrupt`, and let no more items of the response in progress begin: their audio
        may already be on its way."""
        heard = self.interrupt()
        self._dropped = self._response is not None
        return heard or {}

    def hush(self) -> None:
        """The call is being ended: stop what is being said, and release whoever waits for more."""
        self.interrupt()
        self._tickets.close()

    def close(self) -> None:
        """The call is over: release whoever waits."""
        self._tickets.close()
        for item in self._active:
            item.let_go()

    # --- the record -------------------------------------------------------------------------

    def left_s(self) -> float:
        """Seconds until all audio that has arrived will have been heard."""
        return self._line.pacer.drain_ms(self._seam.monotonic()) / 1000

    async def quiet(self) -> None:
        """Wait until nothing is being said."""
        self._awaited += 1
        try:
            while self._active:
                self._lane.hurry()
                await self._changed.wait()
        finally:
            self._awaited -= 1

    async def sounding(self) -> None:
        """Wait until the response in progress is heard, or is over."""
        while self._response is not None and not self._active:
            await self._changed.wait()

    async def pause(self) -> None:
        """Wait until a session can be left: nothing is being said, and the caller is not speaking
        or waiting for an answer."""
        while True:
            await self.quiet()
            if not self.caller.speaks:
                return
            await self._changed.wait()

    async def run(self) -> None:
        """Follow the items, one after the other. One task per call."""
        while True:
            while not self._active:
                await self._changed.wait()
            item = self._active[0]
            try:
                await self._follow(item)
            finally:
                del self._active[0]
                item.let_go()
                self._changed.tell()

    async def _follow(self, item: Item) -> None:
        if item.cut_ms == 0 and item.message is None:
            # It was interrupted before anything was heard.
            self._line.forget(item.key)
            return
        speech = SpeechTimes()
        try:
            await self._minutes.speaking(item)
            while not item.over:
                await self._changed.wait()
            await self._line.played(item.key)
            if item.cut_ms is None:
                speech.done = self._seam.now_ms()
            if not item.told and (item.cut_ms is None or not item.text):
                await self._told(item)
            # If it was interrupted, the caller's words come soon and must follow it.
            patient = item.cut_ms is None and item.ticket is None and not self._awaited
            await self._minutes.spoke(item, speech, patient=patient)
        except BaseException:
            with anyio.CancelScope(shield=True):
                if self._lane.record.live:
                    await self._keep(self._minutes.row(item, speech))
                else:
                    await self._minutes.broke_off(item, speech)
            raise
        finally:
            self._line.forget(item.key)

    async def _told(self, item: Item) -> None:
        """Wait a limited time for the text of ``item``."""
        with anyio.move_on_after(_TEXT_PATIENCE_S):
            while not item.told:
                await self._changed.wait()


def _bound(ids: OrderedDict[str, Any]) -> None:
    while len(ids) > _IDS_KEPT:
        ids.popitem(last=False)
