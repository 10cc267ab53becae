"""The URLs that Twilio calls back: all that the adapter knows about a running document.

Each is the webhook's own URL with added parameters: ``type``, the kind of the request, followed by
what it answers. Everything before ``type`` belongs to the webhook, whatever its names. ``i`` names
the document and ``n`` counts its rounds, so no two requests are the same and a repeated one is
recognised. The fragment asks Twilio to deliver again after any failure; it is neither sent nor
signed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import parse_qsl, quote_plus

from voicecall.telephony import CallRef, WebhookRequest

from .signature import digest_of, query_of

__all__ = [
    "REDELIVERY",
    "Kind",
    "added_to",
    "base_of",
    "base_url",
    "callback",
    "document_id",
    "failed_url",
    "kind_of",
    "round_of",
    "time_limit",
]

REDELIVERY = "#rc=3&rp=all&rt=4500"
"""Three retries after any failure, with 4.5 s for each answer; 15 s in all."""

_TIME_LIMITS_S = (60, 24 * 3600)
"""The widest range that any account accepts."""
_ADDED = re.compile(r"(?:^|&)type=")


class Kind(StrEnum):
    """What a request is about: the parameter ``type``."""

    VOICE = ""
    """The call needs a document: it came in, or was answered."""
    TURN = "turn"
    """A gather is over: with speech, with digits or with nothing."""
    PLAYED = "played"
    HOLD = "hold"
    """A call with nothing to do asks for something to do."""
    STATUS = "status"
    STREAM = "stream"

    @property
    def steers(self) -> bool:
        """Whether the reply is the call's next document."""
        return self not in (Kind.STATUS, Kind.STREAM)


_KINDS = {kind.value: kind for kind in Kind}


def added_to(url: str) -> dict[str, str]:
    """The parameters that a callback added to ``url``."""
    if "type=" not in url:
        # An inbound call.
        return {}
    _, added = _parts(url)
    return dict(parse_qsl(added, keep_blank_values=True)) if added else {}


def kind_of(url: str) -> Kind:
    """The kind of a request to ``url``; ``STATUS`` if it is unknown."""
    return _KINDS.get(added_to(url).get("type", ""), Kind.STATUS)


def failed_url(url: str, form: Mapping[str, str]) -> str | None:
    """Our URL whose document Twilio did not get or could not carry out, if ``url`` is the fallback
    of a number, requested in the middle of a call."""
    failed = form.get("ErrorUrl")
    if not failed or kind_of(url) is not Kind.VOICE:
        return None
    kind = kind_of(failed)
    # If the first document failed, this counts as the first request.
    return failed if kind.steers and kind is not Kind.VOICE else None


def round_of(url: str) -> int:
    """How often the document was repeated: the parameter ``n``."""
    count = added_to(url).get("n", "")
    return int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0


def base_url(url: str) -> str:
    """``url`` without its fragment and what a callback adds; the rest is unchanged."""
    return _parts(url)[0]


def _parts(url: str) -> tuple[str, str]:
    path, mark, query = url.partition("#")[0].partition("?")
    found = _ADDED.search(query)
    own = query[: found.start()] if found is not None else query
    return path + mark + own if own else path, query[found.start() :] if found is not None else ""


def base_of(request: WebhookRequest, call: CallRef | None) -> str:
    """The beginning of the URLs in the reply to ``request``, with our call id if it is known."""
    base = base_url(request.url)
    if call is None or "callId" in query_of(base):
        return base
    return _with(base, "callId", call.call_id)


def callback(base: str, kind: Kind, **parameters: str | int | None) -> str:
    """The URL for a request of ``kind``; parameters that are None are left out."""
    url = _with(base, "type", kind) if kind else base
    for name, value in parameters.items():
        if value is not None:
            url = _with(url, name, value)
    return url + REDELIVERY


def time_limit(seconds: int) -> int:
    """The nearest ``TimeLimit`` that some account accepts."""
    shortest, longest = _TIME_LIMITS_S
    return max(shortest, min(seconds, longest))


def document_id(request: WebhookRequest) -> str:
    """A name for the documents that answer ``request``, the same for each of its deliveries."""
    return digest_of(request)[:12]


def _with(url: str, name: str, value: str | int) -> str:
    text = str(value)
    # Nearly all values are numbers and ids.
    if not (text.isascii() and text.isalnum()):
        text = quote_plus(text)
    return f"{url}&{name}={text}" if "?" in url else f"{url}?{name}={text}"
