"""Actions as TwiML documents: as many actions as one document can carry out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from voicecall import telephony as tel

from .callbacks import Kind, added_to, base_of, document_id, failed_url, kind_of, round_of
from .signature import form_of
from .twiml import Document, Listening, keypad, reply
from .webhooks import TERMINAL

__all__ = ["Style", "fill", "render"]

_TEXT_LIMIT = 10_000
"""Characters of a text that always fit into a document, which may have 64 KB."""
_SILENCES = frozenset(str(seconds) for seconds in range(1, 61))


@dataclass(frozen=True, slots=True)
class Style:
    """The carrier's voice, and the language that it speaks and recognises."""

    voice: str | None = None
    language: str | None = None

    def document(self, base: str, id_: str) -> Document:
        return Document(base, id_, voice=self.voice, language=self.language)


def render(
    request: tel.WebhookRequest,
    call: tel.CallRef | None,
    actions: Sequence[tel.Action],
    style: Style,
) -> tel.Rendered:
    """The reply to a webhook; see :meth:`voicecall.telephony.TelephonyProvider.render`."""
    form = dict(form_of(request) or ())
    kind = kind_of(request.url)
    status = form.get("CallStatus", "")
    if not kind.steers or "CallbackSource" in form or status in TERMINAL:
        return tel.Rendered(reply(None), tuple(actions))
    document = style.document(base_of(request, call), document_id(request))
    rest = fill(document, actions, unanswered=status == "ringing")
    if document.open:
        if len(rest) < len(actions):
            document.hold()
        elif call is None:
            # The call is unknown, so no action would ever come for it.
            document.hangup()
        else:
            url = failed_url(request.url, form) or request.url
            _go_on(document, kind_of(url), url, form.get("SpeechResult", ""))
    return tel.Rendered(reply(document), rest)


def fill(
    document: Document, actions: Sequence[tel.Action], *, unanswered: bool = False
) -> tuple[tel.Action, ...]:
    """Add actions to ``document``; returns those that did not fit, in order. ``unanswered``: the
    call is answered by this document."""
    rest: list[tel.Action] = []
    fitting = True
    for action in actions:
        # A limit is not a verb, and other actions do not wait for it.
        beside = isinstance(action, tel.LimitDuration)
        if not beside:
            fitting = fitting and document.open and _add(document, action, unanswered)
        if beside or not fitting:
            rest.append(action)
    return tuple(rest)


def _add(document: Document, action: tel.Action, unanswered: bool) -> bool:
    """Add ``action`` to ``document``; False if it cannot be part of one."""
    match action:
        case tel.Answer(stream=stream) | tel.AttachStream(stream=stream):
            if stream is not None:
                document.connect(stream)
        case tel.Speak(text=text) | tel.Reject(text=str(text)) if len(text) > _TEXT_LIMIT:
            return False
        case tel.Reject(text, busy):
            if text is None and unanswered and not document.started:
                document.reject(busy=busy)
            else:
                document.say(text or "")
                document.hangup()
        case tel.Speak(utterance_id, text, voice, None):
            document.say(text, voice)
            document.played(utterance_id)
        case tel.Speak(utterance_id, text, voice, tel.Listen() as listen):
            document.gather(_listening(listen), utterance_id, text, voice)
        case tel.Listen():
            document.gather(_listening(action))
        case tel.StopListening():
            pass
        case tel.PlayDigits(digits, stream, listen):
            keys = keypad(digits)
            if keys is None:
                return False
            document.digits(keys)
            if stream is not None:
                document.connect(stream)
            elif listen is not None:
                document.gather(_listening(listen))
        case tel.Hangup():
            document.hangup()
    return True


def _listening(listen: tel.Listen) -> Listening:
    return Listening(listen.token, max(1, math.ceil(listen.end_silence_ms / 1000)))


def _go_on(document: Document, kind: Kind, url: str, heard: str) -> None:
    """Continue a call without an action: it goes on listening, or is held."""
    round_ = round_of(url) + 1
    query = added_to(url)
    token = query.get("t")
    if kind is Kind.TURN and token and not heard.strip():
        silence = query.get("s", "")
        silence_s = int(silence) if silence in _SILENCES else 1
        document.gather(Listening(token, silence_s, round_))
    else:
        document.hold(round_ if kind is Kind.HOLD else 0)
