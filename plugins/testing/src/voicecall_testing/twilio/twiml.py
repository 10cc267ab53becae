"""Parse TwiML strictly: what Twilio would ignore with a warning is an error here.

Source: https://www.twilio.com/docs/voice/twiml
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

from voicecall.configuring import is_loopback

__all__ = [
    "Connect",
    "Gather",
    "Hangup",
    "Pause",
    "Play",
    "Prompt",
    "Redirect",
    "Reject",
    "Say",
    "Stream",
    "TwimlError",
    "Verb",
    "parse_twiml",
    "socket_url_error",
]

MAX_BYTES = 64 * 1024
MAX_SAY = {"Polly.": 3000, "Google.": 5000, "": 4096}
"""Maximum length of a text in bytes of UTF-8, by prefix of the voice. Percent-encoded, any text may
have at most 4500 bytes."""
MAX_PARAMETER = 500
KEYS = frozenset("0123456789*#ABCDwW")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})+|multi")
"""Source: Twilio's errors 13331 and 13512; one of its recognisers has "multi"."""
_VOICE = re.compile(r"man|woman|alice|[A-Z][A-Za-z]*\..+")
_SSML = {"break", "emphasis", "lang", "p", "phoneme", "prosody", "s", "say-as", "sub", "w"}


class TwimlError(Exception):
    """A document that cannot be run. ``code`` is that of Twilio's debugger: 11200 not fetched,
    11215 redirected too often, 11216 invalid redirect, 11750 too long, 12100 malformed, 12300
    content type, 13xxx wrong use of a verb."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Say:
    text: str
    loop: int = 1


@dataclass(frozen=True, slots=True)
class Play:
    """Keypad tones; ``w`` waits half a second, ``W`` a second."""

    digits: str
    loop: int = 1


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence; ``length`` is in seconds."""

    length: float = 1


Prompt = Say | Play | Pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather:
    """Listen for speech or keys. Times are in seconds. If ``speech_timeout`` is None, the
    recogniser decides (``auto``); if ``action`` is None, it is the document's URL."""

    speech: bool = False
    dtmf: bool = True
    action: str | None = None
    method: str = "POST"
    timeout: float = 5
    speech_timeout: float | None = 5
    max_speech_time: float = 60
    num_digits: int | None = None
    finish_on_key: str = "#"
    barge_in: bool = True
    partial_result_callback: str | None = None
    partial_result_callback_method: str = "POST"
    action_on_empty_result: bool = False
    prompts: tuple[Prompt, ...] = ()


@dataclass(frozen=True, slots=True)
class Redirect:
    """Go on with another document; an empty ``url`` is the document's own."""

    url: str
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Reject:
    reason: str = "rejected"


@dataclass(frozen=True, slots=True)
class Hangup:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    url: str
    name: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    status_callback: str | None = None
    status_callback_method: str = "POST"


@dataclass(frozen=True, slots=True)
class Connect:
    stream: Stream
    action: str | None = None
    method: str = "POST"


Verb = Say | Play | Pause | Gather | Redirect | Reject | Hangup | Connect


def parse_twiml(body: bytes) -> tuple[Verb, ...]:
    """The verbs of a document. Raises :exc:`TwimlError`."""
    if len(body) > MAX_BYTES:
        raise TwimlError(11750, f"the document is longer than {MAX_BYTES} bytes")
    if b"<!DOCTYPE" in body:
        raise TwimlError(12100, "the document has a <!DOCTYPE>, which is not allowed")
    try:
        root = ET.fromstring(body)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise TwimlError(12100, f"the document is not valid XML: {error}") from None
    if root.tag != "Response":
        raise TwimlError(12100, f"the root element must be Response, not {root.tag}")
    _attributes(root)
    _no_text(root)
    verbs = tuple(_verb(element) for element in root)
    if any(isinstance(verb, Reject) for verb in verbs[1:]):
        raise TwimlError(12100, "Reject must be the first verb")
    return verbs


def socket_url_error(url: str) -> str | None:
    """What is wrong with the URL of a stream, None if nothing is. ``ws`` is allowed on loopback
    only."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if not host:
        return "no host"
    if parts.scheme == "wss" or (parts.scheme == "ws" and is_loopback(host)):
        return None
    return f"the scheme is {parts.scheme or 'missing'}, not wss"


# --- elements --------------------------------------------------------------------------------


def _verb(element: ET.Element) -> Verb:
    read = _VERBS.get(element.tag)
    if read is None:
        raise TwimlError(12100, f"unknown verb {element.tag}")
    return read(element)


def _say(element: ET.Element) -> Say:
    given = _attributes(element, "voice", "language", "loop")
    for child in element.iter():
        if child is not element and child.tag not in _SSML:
            raise TwimlError(12100, _not_in(child, element))
    text = " ".join("".join(element.itertext()).split())
    if not text and not len(element):
        raise TwimlError(13520, "Say has no text")
    voice = given.get("voice", "man")
    if not _VOICE.fullmatch(voice):
        raise TwimlError(13511, f"Say has no voice {voice!r}")
    most = next(size for name, size in MAX_SAY.items() if voice.startswith(name))
    if len(text.encode()) > most or len(quote(text, safe="")) > 4500:
        raise TwimlError(13521, f"Say has more than {most} bytes of text, or 4500 in a URL")
    return Say(text, _loop(given))


def _play(element: ET.Element) -> Play:
    given = _attributes(element, "digits", "loop")
    _no_children(element)
    digits = given.get("digits")
    if digits is None:
        raise TwimlError(12100, "Play needs digits: the emulator plays no files")
    if not digits or not KEYS.issuperset(digits):
        raise TwimlError(
            12100, f"Play cannot press {digits!r}: its digits are 0-9, A-D, *, #, w and W"
        )
    _no_text(element)
    return Play(digits, _loop(given))


def _pause(element: ET.Element) -> Pause:
    given = _attributes(element, "length")
    _empty(element)
    return Pause(_number(given, "length", 1))


def _gather(element: ET.Element) -> Gather:
    given = _attributes(element, *_GATHER.split())
    _no_text(element)
    kinds = given.get("input", "dtmf").split()
    if not kinds or not {"dtmf", "speech"}.issuperset(kinds):
        raise TwimlError(12100, f"input must be dtmf, speech or both, not {given['input']!r}")
    prompts = []
    for child in element:
        verb = _verb(child)
        if not isinstance(verb, Say | Play | Pause):
            raise TwimlError(12100, _not_in(child, element))
        prompts.append(verb)
    timeout = _number(given, "timeout", 5)
    is_auto = given.get("speechTimeout") == "auto"
    digits = _number(given, "numDigits", 0)
    finish = given.get("finishOnKey", "#")
    if len(finish) > 1 or not KEYS.issuperset(finish):
        raise TwimlError(12100, f"finishOnKey must be one key or empty, not {finish!r}")
    language = given.get("language", "en-US")
    if not _LANGUAGE.fullmatch(language):
        raise TwimlError(13331, f"Gather has no language {language!r}")
    return Gather(
        speech="speech" in kinds,
        dtmf="dtmf" in kinds,
        action=given.get("action"),
        method=_method(given, "method"),
        timeout=timeout,
        speech_timeout=None if is_auto else _number(given, "speechTimeout", timeout),
        max_speech_time=_number(given, "maxSpeechTime", 60),
        num_digits=int(digits) or None,
        finish_on_key=finish,
        barge_in=_flag(given, "bargeIn", True),
        partial_result_callback=given.get("partialResultCallback"),
        partial_result_callback_method=_method(given, "partialResultCallbackMethod"),
        action_on_empty_result=_flag(given, "actionOnEmptyResult", False),
        prompts=tuple(prompts),
    )


def _redirect(element: ET.Element) -> Redirect:
    given = _attributes(element, "method")
    _no_children(element)
    return Redirect((element.text or "").strip(), _method(given, "method"))


def _reject(element: ET.Element) -> Reject:
    given = _attributes(element, "reason")
    _empty(element)
    reason = given.get("reason", "rejected")
    if reason not in ("rejected", "busy"):
        raise TwimlError(12100, f"reason must be rejected or busy, not {reason!r}")
    return Reject(reason)


def _hangup(element: ET.Element) -> Hangup:
    _attributes(element)
    _empty(element)
    return Hangup()


def _connect(element: ET.Element) -> Connect:
    given = _attributes(element, "action", "method")
    _no_text(element)
    if len(element) != 1 or element[0].tag != "Stream":
        raise TwimlError(12100, "Connect must contain one Stream and nothing else")
    return Connect(_stream(element[0]), given.get("action"), _method(given, "method"))


def _stream(element: ET.Element) -> Stream:
    given = _attributes(
        element, "url", "name", "track", "statusCallback", "statusCallbackMethod", "connectorName"
    )
    _no_text(element)
    if given.get("track", "inbound_track") != "inbound_track":
        raise TwimlError(12100, f"track must be inbound_track in Connect, not {given['track']!r}")
    if not given.get("url"):
        raise TwimlError(12100, "Stream has no url")
    parameters = []
    for child in element:
        if child.tag != "Parameter":
            raise TwimlError(12100, _not_in(child, element))
        pair = _attributes(child, "name", "value")
        _empty(child)
        name, value = pair.get("name", ""), pair.get("value", "")
        if not name or len(name) + len(value) >= MAX_PARAMETER:
            raise TwimlError(
                12100, f"a Parameter has a name, and up to {MAX_PARAMETER - 1} characters"
            )
        parameters.append((name, value))
    return Stream(
        url=given["url"],
        name=given.get("name", ""),
        parameters=tuple(parameters),
        status_callback=given.get("statusCallback"),
        status_callback_method=_method(given, "statusCallbackMethod"),
    )


_GATHER = (
    "input action method timeout speechTimeout maxSpeechTime numDigits finishOnKey language hints "
    "speechModel enhanced profanityFilter bargeIn partialResultCallback "
    "partialResultCallbackMethod actionOnEmptyResult debug"
)

_VERBS: Mapping[str, Callable[[ET.Element], Verb]] = {
    "Say": _say,
    "Play": _play,
    "Pause": _pause,
    "Gather": _gather,
    "Redirect": _redirect,
    "Reject": _reject,
    "Hangup": _hangup,
    "Connect": _connect,
}


# --- attributes ------------------------------------------------------------------------------


def _attributes(element: ET.Element, *known: str) -> dict[str, str]:
    unknown = set(element.attrib) - set(known)
    if unknown:
        raise TwimlError(12100, f"{element.tag} has no attribute {min(unknown)}")
    return dict(element.attrib)


def _no_text(element: ET.Element) -> None:
    pieces = [element.text, *(child.tail for child in element)]
    if any(piece and piece.strip() for piece in pieces):
        raise TwimlError(12100, f"{element.tag} must not contain text")


def _not_in(child: ET.Element, element: ET.Element) -> str:
    return f"{element.tag} must not contain {child.tag}"


def _no_children(element: ET.Element) -> None:
    if len(element):
        raise TwimlError(12100, _not_in(element[0], element))


def _empty(element: ET.Element) -> None:
    _no_children(element)
    _no_text(element)


def _number(given: Mapping[str, str], name: str, default: float, least: int = 1) -> float:
    text = given.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise TwimlError(12100, f"{name} must be a whole number from {least} on, not {text!r}")
    return int(text)


def _loop(given: Mapping[str, str]) -> int:
    """How often to repeat: at most 1000 times; 0 means endlessly and gives 1000, too."""
    loop = int(_number(given, "loop", 1, least=0))
    return min(loop, 1000) or 1000


def _flag(given: Mapping[str, str], name: str, default: bool) -> bool:
    text = given.get(name)
    if text not in (None, "true", "false"):
        raise TwimlError(12100, f"{name} must be true or false, not {text!r}")
    return default if text is None else text == "true"


def _method(given: Mapping[str, str], name: str) -> str:
    method = given.get(name, "POST").upper()
    if method not in ("GET", "POST"):
        raise TwimlError(12100, f"{name} must be GET or POST, not {method!r}")
    return method
