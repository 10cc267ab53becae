"""Text that is synthesised before there is a media socket to play it on."""

from __future__ import annotations

from voicecall.media import AudioSink
from voicecall.tts import SpeechSession

__all__ = ["WordsAhead"]


class WordsAhead:
    """A whole utterance, ``text``, whose audio is kept until :meth:`into` says where it goes.

    A media socket comes some hundred milliseconds after the call was answered, and the first audio
    of a voice takes as long: one after the other, they make a silence that a caller notices.
    """

    def __init__(self, session: SpeechSession, item_id: str, text: str) -> None:
        self._session = session
        self._text = text
        self._kept: list[bytes] = []
        self._into: tuple[str, AudioSink] | None = None
        self.utterance = session.utterance(item_id, self)
        self.utterance.send(text)
        self.utterance.flush()

    def is_of(self, session: SpeechSession, text: str) -> bool:
        return session is self._session and text == self._text

    def write(self, item_id: str, audio: bytes) -> None:
        """The sink of the synthesis."""
        if self._into is None:
            self._kept.append(audio)
        else:
            item_id, sink = self._into
            sink.write(item_id, audio)

    def into(self, item_id: str, sink: AudioSink) -> None:
        """Write all audio, so far and from now on, to ``sink`` as that of ``item_id``."""
        self._into = item_id, sink
        for audio in self._kept:
            sink.write(item_id, audio)
        self._kept.clear()
