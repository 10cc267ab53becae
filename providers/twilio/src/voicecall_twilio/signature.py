"""Signatures of Twilio's requests to us.

Source: Twilio's documentation on webhook security, and the validator of its Python SDK 9.13.

The signed text is the URL as it was given to Twilio, without its fragment. For a form, the name and
value of each parameter follow: names sorted by code point, the values of one name sorted and
without repetition. A body that is not a form is covered by its hash in the URL, ``bodySHA256``. The
signature is the base64 of an HMAC over that text: SHA-1 with the auth token, or SHA-256 with a
shared key if the settings header says so. It covers no time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl

from voicecall.errors import WebhookRejected
from voicecall.media import Upgrade
from voicecall.telephony import WebhookRequest

__all__ = [
    "SETTINGS_HEADER",
    "SIGNATURE_HEADER",
    "Keys",
    "digest_of",
    "form_of",
    "material",
    "query_of",
    "sign",
    "verify_request",
    "verify_upgrade",
]

SIGNATURE_HEADER = "x-twilio-signature"
SETTINGS_HEADER = "x-twilio-webhooks-signature-settings"

_FORM = "application/x-www-form-urlencoded"
_URL = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://"
    r"(?:(?P<user>[^/?#@]*)@)?"
    r"(?P<host>\[[^\]/?#]*\]|[^/?#:@]*)"
    r"(?::(?P<port>[0-9]*))?"
    r"(?P<rest>(?:[/?].*)?)",
    re.DOTALL,
)
_HEX = "0123456789abcdefABCDEF"
_BYTES = {f"%{a}{b}".encode(): bytes.fromhex(a + b) for a in _HEX for b in _HEX}
_ESCAPE = re.compile(rb"%[0-9a-fA-F]{2}")
_ASCII = re.compile("[\x00-\x7f]+")
_MOST_PARAMETERS = 1000
"""Most parameters of a form; Twilio's have some dozens. Each costs some microseconds before the
signature is checked."""
_DEFAULT_PORTS = {"https": "443", "wss": "443", "http": "80", "ws": "80"}


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of signatures; ``shared_key`` is None if none is configured."""

    auth_token: str
    shared_key: str | None = None


def query_of(url: str) -> dict[str, str]:
    """The parameters in a URL's query; of a repeated one, the last value."""
    query = url.partition("#")[0].partition("?")[2]
    return dict(parse_qsl(query, keep_blank_values=True)) if query else {}


def form_of(request: WebhookRequest) -> list[tuple[str, str]] | None:
    """The parameters in the body; None if it is not a form. Bytes that are not UTF-8 are kept as
    lone surrogates. Raises :exc:`voicecall.errors.WebhookRejected` (400) for far too many."""
    if "form" not in request.memo:
        request.memo["form"] = _form_of(request)
    found: list[tuple[str, str]] | None = request.memo["form"]
    return found


def _form_of(request: WebhookRequest) -> list[tuple[str, str]] | None:
    if request.method != "POST":
        return []
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM and (kind or "bodySHA256" in query_of(request.url)):
        return None
    if request.body.count(b"&") >= _MOST_PARAMETERS:
        raise WebhookRejected(400, f"a form of more than {_MOST_PARAMETERS} parameters")
    return pairs_of(request.body.decode("utf-8", "surrogateescape"))


def pairs_of(text: str) -> list[tuple[str, str]]:
    """Names and values of a form, as ``parse_qsl`` returns them with blank values kept.
    ``parse_qsl`` looks for escapes even in texts without any, which would be most of the time that
    reading a webhook takes."""
    found: list[tuple[str, str]] = []
    for part in text.replace("+", " ").split("&"):
        if part:
            name, _, value = part.partition("=")
            if "%" in name:
                name = _unescaped(name)
            if "%" in value:
                # Nearly always this is the only escape: the plus of a number. Replacing it makes
                # no new one.
                value = value.replace("%2B", "+")
                if "%" in value:
                    value = _unescaped(value)
            found.append((name, value))
    return found


def _unescaped(text: str) -> str:
    if text.isascii():
        return _unescaped_run(text)
    # Between characters that should have been escaped, each run of ASCII is decoded by itself.
    return _ASCII.sub(lambda run: _unescaped_run(run[0]), text)


def _unescaped_run(text: str) -> str:
    # The standard library takes fifty times as long for what only looks like escapes.
    found = _ESCAPE.sub(lambda escape: _BYTES[escape[0]], text.encode())
    return found.decode("utf-8", "surrogateescape")


def material(url: str, form: Sequence[tuple[str, str]]) -> bytes:
    """The signed text for a ``url`` without fragment."""
    values = dict(form)
    if len(values) == len(form):
        parts = [name + values[name] for name in sorted(values)]
    else:
        # Sorting the distinct pairs follows the rules for both names and values.
        parts = [name + value for name, value in sorted(set(form))]
    return (url + "".join(parts)).encode("utf-8", "surrogateescape")


def sign(signed: bytes, key: str, algorithm: str) -> bytes:
    """The signature of a text; ``algorithm`` is ``sha1`` or ``sha256``."""
    # Unlike hmac.digest, this keeps the interpreter lock while it hashes such a short text.
    mac = _keyed(key, algorithm).copy()
    mac.update(signed)
    return b2a_base64(mac.digest(), newline=False)


@lru_cache(maxsize=8)
def _keyed(key: str, algorithm: str) -> hmac.HMAC:
    """An HMAC to copy: making a new one takes several times as long."""
    return hmac.new(key.encode(), digestmod=algorithm)


def verify_request(request: WebhookRequest, keys: Keys) -> str:
    """A name for the signed content of ``request``, the same for every delivery of it.

    Raises :exc:`voicecall.errors.WebhookRejected` (401; 400 for a form that is far too long).
    """
    url = request.url.partition("#")[0]
    form = form_of(request)
    if form is None:
        _check_body_hash(url, request.body)
        form = []
    key, algorithm = _key(request.headers, keys)
    given = _given(request.headers)
    own = material(url, form)
    if not _fits(given, own, key, algorithm) and not any(
        _fits(given, material(other, form), key, algorithm) for other in _variants(url)
    ):
        raise WebhookRejected(401, f"wrong signature for {url}")
    request.memo["digest"] = digest = hashlib.sha256(own).hexdigest()
    return digest


def digest_of(request: WebhookRequest) -> str:
    """What :func:`verify_request` returned for ``request``. If signatures are not checked, another
    digest that is the same for every delivery of it."""
    if "digest" not in request.memo:
        told = request.url.encode("utf-8", "surrogateescape") + b"\n" + request.body
        request.memo["digest"] = hashlib.sha256(told).hexdigest()
    digest: str = request.memo["digest"]
    return digest


def verify_upgrade(upgrade: Upgrade, keys: Keys) -> bool:
    """Whether a media socket's handshake is signed.

    Raises :exc:`voicecall.errors.WebhookRejected` (401) for a wrong signature.
    """
    if SIGNATURE_HEADER not in upgrade.headers:
        return False
    url = upgrade.url.partition("#")[0]
    other = url[:-1] if url.endswith("/") else url + "/"
    key, algorithm = _key(upgrade.headers, keys)
    given = _given(upgrade.headers)
    if not any(
        _fits(given, material(each, ()), key, algorithm)
        for form in (url, other)
        for each in (form, *_variants(form))
    ):
        raise WebhookRejected(401, f"wrong signature for the media socket {url}")
    return True


def _given(headers: Mapping[str, str]) -> bytes:
    return headers.get(SIGNATURE_HEADER, "").strip().encode("utf-8", "replace")


def _fits(given: bytes, signed: bytes, key: str, algorithm: str) -> bool:
    return hmac.compare_digest(sign(signed, key, algorithm), given)


def _check_body_hash(url: str, body: bytes) -> None:
    given = query_of(url).get("bodySHA256")
    if given is None:
        raise WebhookRejected(401, "a body that is not a form, without bodySHA256 in the URL")
    wanted = hashlib.sha256(body).hexdigest()
    if not hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace")):
        raise WebhookRejected(401, "the body is not the one that was signed")


def _key(headers: Mapping[str, str], keys: Keys) -> tuple[str, str]:
    """Key and algorithm of a signature."""
    algorithm = "HMAC_SHA1"
    for part in headers.get(SETTINGS_HEADER, "").split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm" and value.strip():
            algorithm = value.strip().upper()
    if algorithm == "HMAC_SHA1":
        return keys.auth_token, "sha1"
    if algorithm != "HMAC_SHA256":
        raise WebhookRejected(401, f"unknown signature algorithm {algorithm!r}")
    if keys.shared_key is None:
        raise WebhookRejected(401, "signed with a shared key, but webhooksSharedKey is not set")
    return keys.shared_key, "sha256"


def _variants(url: str) -> Sequence[str]:
    """Other forms of ``url`` that Twilio may have signed: with and without port, default port and
    user."""
    match = _URL.fullmatch(url)
    if match is None:
        return ()
    scheme, user, host, port, rest = match.group("scheme", "user", "host", "port", "rest")
    default = _DEFAULT_PORTS.get(scheme.lower())
    ports = [f":{each}" if each else "" for each in (port, None, default)]
    users = [f"{user}@", ""] if user is not None else [""]
    found = [f"{scheme}://{who}{host}{at}{rest}" for who in users for at in ports]
    return [form for form in dict.fromkeys(found) if form != url]
