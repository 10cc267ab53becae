"""TwiML documents, built as XML elements.

Source: Twilio's TwiML reference (Response, Say, Play, Pause, Gather, Redirect, Connect, Stream,
Reject, Hangup). The last verb of a document leads back to us or ends the call: a call never runs
off the end of a document.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from voicecall.telephony import StreamRequest, WebhookReply

from .callbacks import Kind, callback
from .markup import written

__all__ = ["TWIML_LIMIT", "Document", "Listening", "is_voice", "keypad", "reply"]

TWIML_LIMIT = 4000
"""Most characters of a document in a request."""

FIRST_PATIENCE_S = 2
"""Silence after which a gather reports that its prompt was played."""
PATIENCE_S = 5
"""Silence that ends a gather of a later round. Both are also the wait for another key."""
HOLD_S = 15
_SAY_BYTES = 3000
"""Most bytes of UTF-8 in one Say with a Polly voice; others accept more."""
_SAY_QUOTED = 4500
"""Most bytes in one Say with any voice, quoted as in a URL. Source of both: Twilio's error
13521."""
_SURELY_SAID = _SAY_QUOTED // 12
"""Number of characters that always fits."""
_PLAIN = frozenset(string.ascii_letters + string.digits + "-._~")

_VOICE = re.compile(r"man|woman|alice|[A-Z][A-Za-z]*\..+")
"""A voice with its vendor, such as ``Polly.Joanna``; Twilio's own voices have none. Source:
Twilio's documentation of Say, and its errors 13511 and 13321."""
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SENTENCE_END = re.compile(r"(?<=[.!?;:。！？])\s+")  # noqa: RUF001 (full-width marks end sentences)
_KEYPAD = str.maketrans({",": "w", "p": "W", "P": "W"})
_KEYS = re.compile(r"[0-9*#wW]+")


def is_voice(name: str) -> bool:
    """Whether ``name`` may be one of Twilio's voices."""
    return _VOICE.fullmatch(name) is not None


def keypad(digits: str) -> str | None:
    """``digits`` of :class:`~voicecall.telephony.PlayDigits` in Twilio's notation; None if they are
    not valid."""
    written = digits.translate(_KEYPAD)
    return written if _KEYS.fullmatch(written) else None


@dataclass(frozen=True, slots=True)
class Listening:
    """A gather: the token of its results, the seconds of silence that end a sentence, and the
    round (a gather without a result is followed by the next round)."""

    token: str
    silence_s: int
    round: int = 0


class Document:
    """A document under construction. Its URLs begin with ``base``; ``id_`` is its name.

    Verbs are added in order. No verb may follow one that leads away; ``open`` is false then.
    """

    def __init__(self, base: str, id_: str, *, voice: str | None, language: str | None) -> None:
        self._base = base
        self._id = id_
        self._voice = voice
        self._language = language
        self._root = ElementTree.Element("Response")
        self.open = True

    @property
    def text(self) -> str:
        return written(self._root)

    @property
    def started(self) -> bool:
        return len(self._root) > 0

    # --- verbs that lead to the next one ------------------------------------------------------

    def say(self, text: str, voice: str | None = None) -> None:
        self._say(self._root, text, voice)

    def digits(self, keys: str) -> None:
        """Play keypad tones, in the notation of :func:`keypad`."""
        self._verb("Play", digits=keys)

    # --- verbs that lead away -----------------------------------------------------------------

    def played(self, utterance_id: str, *, first: bool = False) -> None:
        """Report that everything so far was played. ``first``: also report that the call was
        answered, because no request has done so."""
        told = "1" if first else None
        self._redirect(Kind.PLAYED, i=self._id, u=utterance_id, first=told)
        self.open = False

    def gather(
        self,
        listening: Listening,
        utterance_id: str | None = None,
        prompt: str = "",
        voice: str | None = None,
    ) -> None:
        """Listen from the beginning of ``prompt`` on; the caller can interrupt it."""
        action = callback(
            self._base,
            Kind.TURN,
            i=self._id,
            n=listening.round,
            t=listening.token,
            u=utterance_id,
            s=listening.silence_s,
        )
        gather = self._verb(
            "Gather",
            input="dtmf speech",
            action=action,
            actionOnEmptyResult="true",
            timeout=str(PATIENCE_S if listening.round else FIRST_PATIENCE_S),
            speechTimeout=str(listening.silence_s),
        )
        if self._language is not None:
            gather.set("language", self._language)
        self._say(gather, prompt, voice)
        self.open = False

    def connect(self, stream: StreamRequest) -> None:
        """Open a media socket; when it is closed, the call is held."""
        connect = self._verb("Connect")
        told = callback(self._base, Kind.STREAM, i=self._id)
        element = ElementTree.SubElement(
            connect, "Stream", {"url": stream.url, "statusCallback": told}
        )
        ElementTree.SubElement(element, "Parameter", {"name": "token", "value": stream.token})
        self.hold()

    def hold(self, round_: int = 0) -> None:
        """Keep the line open for ``HOLD_S``, then ask what to do."""
        self._verb("Pause", length=str(HOLD_S))
        self._redirect(Kind.HOLD, i=self._id, n=round_)
        self.open = False

    def hangup(self) -> None:
        self._verb("Hangup")
        self.open = False

    def reject(self, *, busy: bool) -> None:
        """Refuse an unanswered call; only as the first verb. Without ``busy`` the caller hears
        that the number is not in service."""
        self._verb("Reject", **({"reason": "busy"} if busy else {}))
        self.open = False

    # --- elements -----------------------------------------------------------------------------

    def _verb(self, name: str, **attributes: str) -> ElementTree.Element:
        return ElementTree.SubElement(self._root, name, attributes)

    def _redirect(self, kind: Kind, **parameters: str | int | None) -> None:
        self._verb("Redirect").text = callback(self._base, kind, **parameters)

    def _say(self, parent: ElementTree.Element, text: str, voice: str | None) -> None:
        # A call's voice may belong to the speech provider of its media streams.
        own = voice if voice is not None and is_voice(voice) else self._voice
        wanted = {"voice": own, "language": self._language}
        attributes = {name: legal(value) for name, value in wanted.items() if value is not None}
        for piece in _pieces(legal(text)):
            ElementTree.SubElement(parent, "Say", attributes).text = piece


def reply(document: Document | None) -> WebhookReply:
    """A webhook's reply; an empty one for None, if the reply is not read."""
    text = document.text if document is not None else "<Response />"
    body = '<?xml version="1.0" encoding="UTF-8"?>' + text
    return WebhookReply(body=body.encode(), content_type="text/xml; charset=utf-8")


def legal(text: str) -> str:
    """``text`` without the characters that XML 1.0 does not allow."""
    return _ILLEGAL.sub("", text)


def _pieces(text: str) -> Iterator[str]:
    """``text`` in pieces that fit: cut at the ends of sentences, at blanks in a sentence that is
    too long, or anywhere if it has no blanks."""
    rest = text.strip()
    while (room := _sayable(rest)) < len(rest):
        window = rest[:room]
        ends = [match.start() for match in _SENTENCE_END.finditer(window)]
        cut = ends[-1] if ends else window.rfind(" ")
        cut = cut if cut > 0 else room
        yield rest[:cut].strip()
        rest = rest[cut:].strip()
    if rest:
        yield rest


def _sayable(text: str) -> int:
    """How many characters of ``text`` fit into one Say."""
    if len(text) <= _SURELY_SAID:
        return len(text)
    size = quoted = 0
    for index, char in enumerate(text):
        width = len(char.encode())
        size += width
        quoted += 1 if char in _PLAIN else 3 * width
        if size > _SAY_BYTES or quoted > _SAY_QUOTED:
            return index
    return len(text)
