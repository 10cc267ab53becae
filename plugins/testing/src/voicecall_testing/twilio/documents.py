"""Run TwiML documents, verb by verb."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import urljoin

import anyio

from .delivery import REDIRECTED_TOO_OFTEN, DeliveryFailed, is_http_url
from .speech import CarrierSpeech
from .twiml import (
    Connect,
    Gather,
    Hangup,
    Pause,
    Play,
    Redirect,
    Reject,
    Say,
    Stream,
    TwimlError,
    Verb,
    parse_twiml,
)

__all__ = ["DocumentHost", "Reply", "Source", "run_document"]

ERROR_MESSAGE = "We are sorry, an application error has occurred. Goodbye."
_XML_TYPES = ("text/xml", "application/xml")
_MOST_HOPS = 100
"""Twilio has no such limit, but its requests take time. Here, documents that redirect in a circle
would use all of the processor, and on virtual time run for ever."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a document comes from: ``url``, requested with ``params`` besides those of every
    request, or ``inline`` text. ``type`` is that of the ledger entry. ``hops`` is how many
    documents directly before it did nothing but redirect."""

    type: str
    url: str = ""
    method: str = "POST"
    params: Mapping[str, str] = field(default_factory=dict)
    inline: str | None = None
    hops: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the customer's server."""

    body: bytes
    content_type: str


class DocumentHost(Protocol):
    """The call, as a document sees it."""

    @property
    def answered(self) -> bool: ...

    async def fetch(self, source: Source) -> Reply:
        """Request a document. Raises :exc:`.delivery.DeliveryFailed`."""
        ...

    def answer(self) -> None:
        """Answer an inbound call; does nothing if the call is answered already."""
        ...

    def reject(self, reason: str) -> None:
        """End the call unanswered."""
        ...

    def hang_up(self) -> None: ...

    async def connect_stream(self, verb: Stream) -> None:
        """Connect a media stream, and wait until it is over."""
        ...


async def run_document(source: Source, host: DocumentHost, speech: CarrierSpeech) -> Source | None:
    """Run the document of ``source``. Returns the source of the next one, or None after the last
    verb. Raises :exc:`.twiml.TwimlError`."""
    if source.hops > _MOST_HOPS:
        raise TwimlError(REDIRECTED_TOO_OFTEN, "the documents redirect to each other without end")
    verbs = await _load(source, host)
    for verb in verbs:
        following = await _do(verb, source, host, speech)
        if following is not None:
            only_leads_on = isinstance(verbs[0], Redirect)
            return replace(following, hops=source.hops + 1 if only_leads_on else 0)
    return None


async def _load(source: Source, host: DocumentHost) -> tuple[Verb, ...]:
    if source.inline is not None:
        return parse_twiml(source.inline.encode())
    try:
        reply = await host.fetch(source)
    except DeliveryFailed as error:
        raise TwimlError(error.code, f"{source.url}: {error}") from None
    kind = reply.content_type.partition(";")[0].strip().lower()
    if reply.body.strip() and kind not in _XML_TYPES:
        raise TwimlError(12300, f"{source.url}: the content type must be XML, not {kind!r}")
    return parse_twiml(reply.body)


async def _do(
    verb: Verb, source: Source, host: DocumentHost, speech: CarrierSpeech
) -> Source | None:
    if not isinstance(verb, Pause | Redirect | Reject):
        host.answer()
    match verb:
        case Say() | Play() | Pause():
            await speech.play(verb)
        case Gather():
            return await _gather(verb, source, speech)
        case Redirect(url, method):
            return _next(source, "redirect", url, method)
        case Connect(stream, action, method):
            await host.connect_stream(stream)
            if action is not None:
                return _next(source, "connect", action, method)
        case Reject(reason):
            if host.answered:
                raise TwimlError(12100, "Reject is not possible on an answered call")
            host.reject(reason)
            await anyio.sleep_forever()
        case Hangup():
            host.hang_up()
            await anyio.sleep_forever()
    return None


async def _gather(verb: Gather, source: Source, speech: CarrierSpeech) -> Source | None:
    taken = await speech.gather(verb)
    if taken is None:
        return None
    return _next(source, "gather", verb.action or "", verb.method, taken.params())


def _next(
    source: Source,
    type_: str,
    url: str,
    method: str,
    params: Mapping[str, str] | None = None,
) -> Source:
    """The next source. ``url`` is resolved against the document's; an empty one repeats that."""
    try:
        absolute = urljoin(source.url, url)
    except ValueError:
        absolute = ""
    if not is_http_url(absolute):
        raise TwimlError(11100, f"{url or 'an inline document'} does not lead to an http(s) URL")
    return Source(type_, absolute, method, params or {})
