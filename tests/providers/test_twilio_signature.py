"""Twilio's signatures: vectors, requests signed by Twilio's own library, and their mutations."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import string
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from voicecall.errors import WebhookRejected
from voicecall.media import Upgrade
from voicecall.telephony import WebhookRequest
from voicecall_twilio.signature import (
    Keys,
    digest_of,
    form_of,
    verify_request,
    verify_upgrade,
)

pytestmark = pytest.mark.unit

TOKEN = "12345678901234567890123456789012"
SHARED = "shared-secret-0001"
KEYS = Keys(TOKEN, SHARED)
FORM = "application/x-www-form-urlencoded; charset=UTF-8"
BY_SHARED_KEY = "key=webhooks_sharedkey_abc,algorithm=HMAC_SHA256"
HOST = "voice.example.com"
WEBHOOK = f"https://{HOST}/voice/webhook"
CA1 = "CA00000000000000000000000000000001"

Pairs = Sequence[tuple[str, str]]


def request(
    url: str, body: bytes, signature: str, headers: Mapping[str, str] | None = None
) -> WebhookRequest:
    return WebhookRequest(
        method="POST",
        url=url,
        query={},
        headers={"content-type": FORM, "x-twilio-signature": signature, **(headers or {})},
        body=body,
        client="203.0.113.7",
    )


def form_request(url: str, pairs: Pairs, signature: str, settings: str = "") -> WebhookRequest:
    headers = {"x-twilio-webhooks-signature-settings": settings} if settings else {}
    return request(url, urlencode(pairs).encode(), signature, headers)


def accepted(asked: WebhookRequest, keys: Keys = KEYS) -> bool:
    status = 401
    try:
        return bool(verify_request(asked, keys))
    except WebhookRejected as refused:
        status = refused.status
    assert status == 401
    return False


# --- the vectors of the fact sheet -----------------------------------------------------------

IN_PROGRESS = [("CallSid", CA1), ("CallStatus", "in-progress")]
FORMS: list[tuple[str, str, Pairs, str]] = [
    (
        "T1",
        WEBHOOK,
        [
            ("CallSid", CA1),
            ("AccountSid", "AC00000000000000000000000000000001"),
            ("From", "+15550001234"),
            ("To", "+15550005678"),
            ("CallStatus", "ringing"),
            ("Direction", "inbound"),
            ("ApiVersion", "2010-04-01"),
        ],
        "wQOTY7VYFJzR3qG+2Gat5wFTS0U=",
    ),
    (
        "T2",
        f"{WEBHOOK}?callId=c-1&type=status",
        [("CallSid", CA1), ("CallStatus", "completed"), ("CallDuration", "12")],
        "czAtpGgO1O8fuLgd7gsSASO1FR4=",
    ),
    ("T3a", f"https://{HOST}:8443/voice/webhook", IN_PROGRESS, "YUq8p0zato2Q6Tqi8bHC4PImh5E="),
    ("T3b", WEBHOOK, IN_PROGRESS, "HTamh61EBBLRWUi4G7G1sBF1Dn4="),
    ("T3b-port", f"https://{HOST}:8443/voice/webhook", IN_PROGRESS, "HTamh61EBBLRWUi4G7G1sBF1Dn4="),
    ("T3c", f"https://{HOST}:443/voice/webhook", IN_PROGRESS, "5A1w0sOVXv0PAa6DSnvDVRs0Yfw="),
    ("T3c-no-port", WEBHOOK, IN_PROGRESS, "5A1w0sOVXv0PAa6DSnvDVRs0Yfw="),
    (
        "T4",
        WEBHOOK,
        [("MediaUrl", "b"), ("MediaUrl", "a"), ("MediaUrl", "a"), ("CallSid", "CA1")],
        "Ya0KnTeGS5CGOnUXoXym/1eeCSk=",
    ),
    (
        "T5",
        f"{WEBHOOK}?callId=c-1",
        [
            ("SpeechResult", "Grüße, 你好 – ok?"),  # noqa: RUF001 (as in the vector)
            ("Confidence", "0.91"),
            ("CallSid", "CA1"),
            ("aaa", ""),
            ("Zed", "1"),
        ],
        "WdWwqnnS7rI6uYBmMmlsbYsgPic=",
    ),
    (
        "T10",
        f"https://user:pa%3Ass@{HOST}/voice/webhook",
        [("CallSid", "CA1")],
        "2Cck6jY+hE/P9AoJfuGe1FPwi/4=",
    ),
]


@pytest.mark.parametrize(
    ("url", "pairs", "signature"), [pytest.param(*vector[1:], id=vector[0]) for vector in FORMS]
)
def test_vectors_of_forms(url: str, pairs: Pairs, signature: str) -> None:
    asked = form_request(url, pairs, signature)
    assert accepted(asked)
    assert not accepted(replace(asked, url=url.replace("webhook", "webhooks")))
    assert not accepted(asked, Keys(TOKEN[::-1], SHARED))


def test_vector_of_a_get_request() -> None:
    url = f"{WEBHOOK}?callId=a%20b%2Fc"
    asked = replace(request(url, b"", "1qEelnCU1HvVXbc2YBQnYHNR0mE="), method="GET")
    assert accepted(asked)
    assert not accepted(replace(asked, url=f"{WEBHOOK}?callId=a+b%2Fc"))


def test_vector_of_a_json_body() -> None:
    url = (
        f"https://{HOST}/voice/json?foo=bar&bodySHA256="
        "be774330127c396452aa1146354650fdbed558be0a03f9fed01b227955c52c17"
    )
    body = '{"event":"stream-started","n":1,"t":"é"}'.encode()
    headers = {"content-type": "application/json"}
    asked = request(url, body, "3r+zkZDEyqc6+Nlij5fy8MPQbhs=", headers)
    assert accepted(asked)
    assert not accepted(replace(asked, body=body + b" "))
    assert not accepted(replace(asked, headers={**asked.headers, "content-type": FORM}))


def test_vector_of_a_shared_key() -> None:
    pairs = [("CallSid", "CA1"), ("CallStatus", "ringing")]
    signature = "rzeWhGZwKAusZYud1QBZSEMFo00XnPhNALMsmCUC4IM="
    in_other_ways = (
        ", ".join(reversed(BY_SHARED_KEY.split(","))),
        "key = webhooks_sharedkey_abc , algorithm = hmac_sha256 ",
    )
    for settings in (BY_SHARED_KEY, *in_other_ways):
        assert accepted(form_request(WEBHOOK, pairs, signature, settings))
    assert not accepted(form_request(WEBHOOK, pairs, signature))
    assert not accepted(form_request(WEBHOOK, pairs, signature, BY_SHARED_KEY), Keys(TOKEN))
    other = "key=webhooks_sharedkey_abc,algorithm=HMAC_MD5"
    assert not accepted(form_request(WEBHOOK, pairs, signature, other))
    by_token = RequestValidator(TOKEN).compute_signature(WEBHOOK, dict(pairs))
    for settings in ("key=webhooks_sharedkey_abc", "algorithm=", "algorithm= "):
        assert accepted(form_request(WEBHOOK, pairs, by_token, settings))


SOCKET = f"wss://{HOST}/voice/stream"


@pytest.mark.parametrize("url", [SOCKET, f"{SOCKET}/"])
@pytest.mark.parametrize(
    "signature", ["ShBS1RXHJBmpmNy2t3mrjK43R40=", "Y2J5ViEtOZjIfjuFL/qz6M1Pjuk="]
)
def test_vectors_of_media_sockets(url: str, signature: str) -> None:
    upgrade = Upgrade("/voice/stream", {}, {"x-twilio-signature": signature}, "203.0.113.7", url)
    assert verify_upgrade(upgrade, KEYS)
    for wrong in (replace(upgrade, url=url.replace("stream", "x")), replace(upgrade, url="")):
        with pytest.raises(WebhookRejected) as caught:
            verify_upgrade(wrong, KEYS)
        assert caught.value.status == 401


@pytest.mark.parametrize("port", [":443", ":8443", ""])
def test_ports_of_media_sockets(port: str) -> None:
    signed = f"wss://{HOST}:443/voice/stream"
    signature = RequestValidator(TOKEN).compute_signature(signed, {})
    url = f"wss://{HOST}{port}/voice/stream"
    assert verify_upgrade(Upgrade("/", {}, {"x-twilio-signature": signature}, "", url), KEYS)


def test_a_media_socket_without_a_signature_is_left_to_its_token() -> None:
    assert not verify_upgrade(Upgrade("/voice/stream", {}, {}, "203.0.113.7", SOCKET), KEYS)


# --- rules -----------------------------------------------------------------------------------


def test_user_and_password_may_be_signed_or_not() -> None:
    validator = RequestValidator(TOKEN)
    with_user = f"https://user:secret@{HOST}/voice/webhook"
    with_port = with_user.replace(HOST, f"{HOST}:443")
    for signed in (with_user, WEBHOOK, with_port):
        signature = validator.compute_signature(signed, {"CallSid": "CA1"})
        assert accepted(form_request(with_user, [("CallSid", "CA1")], signature))


@pytest.mark.parametrize("host", ["[2001:db8::1]", "[2001:db8::1]:8443", "198.51.100.7:443"])
def test_addresses_as_hosts(host: str) -> None:
    url = f"https://{host}/voice/webhook"
    signature = RequestValidator(TOKEN).compute_signature(url, {"CallSid": "CA1"})
    asked = form_request(url, [("CallSid", "CA1")], signature)
    assert accepted(asked)
    without = f"https://{host.removesuffix(':8443').removesuffix(':443')}/voice/webhook"
    signature = RequestValidator(TOKEN).compute_signature(without, {"CallSid": "CA1"})
    assert accepted(form_request(url, [("CallSid", "CA1")], signature))


def test_the_fragment_is_not_signed() -> None:
    signature = RequestValidator(TOKEN).compute_signature(WEBHOOK, {"CallSid": "CA1"})
    assert accepted(form_request(f"{WEBHOOK}#rc=3&rp=all", [("CallSid", "CA1")], signature))


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data"])
def test_a_body_that_no_signature_covers_is_refused(kind: str) -> None:
    signature = RequestValidator(TOKEN).compute_signature(WEBHOOK, {})
    asked = request(WEBHOOK, b'{"CallSid":"CA1"}', signature, {"content-type": kind})
    assert not accepted(asked)


@pytest.mark.parametrize(
    "kind", ["Application/X-WWW-Form-Urlencoded", " application/x-www-form-urlencoded ;charset=x"]
)
def test_the_kind_of_a_form_may_be_written_in_other_ways(kind: str) -> None:
    signature = RequestValidator(TOKEN).compute_signature(WEBHOOK, {"CallSid": "CA1"})
    asked = request(WEBHOOK, b"CallSid=CA1", signature, {"content-type": kind})
    assert accepted(asked)
    assert not accepted(replace(asked, body=b"CallSid=CA2"))


def test_a_body_whose_kind_is_not_told_is_a_form_unless_its_hash_is_given() -> None:
    validator = RequestValidator(TOKEN)
    signature = validator.compute_signature(WEBHOOK, {"CallSid": "CA1"})
    form = request(WEBHOOK, b"CallSid=CA1", signature, {"content-type": ""})
    assert accepted(form)
    assert not accepted(replace(form, body=b"CallSid=CA2"))
    url = f"{WEBHOOK}?bodySHA256={hashlib.sha256(form.body).hexdigest()}"
    signature = validator.compute_signature(url, {})
    hashed = request(url, form.body, signature, {"content-type": ""})
    assert accepted(hashed)
    assert not accepted(replace(hashed, body=b"CallSid=CA2"))


def test_a_redelivery_has_the_same_digest_and_other_content_another() -> None:
    pairs = [("CallSid", CA1), ("CallStatus", "ringing")]
    signature = RequestValidator(TOKEN).compute_signature(WEBHOOK, dict(pairs))
    first, again = (form_request(WEBHOOK, pairs, signature) for _ in range(2))
    assert digest_of(first) == digest_of(again)
    other = replace(first, body=first.body + b"&more=1")
    assert digest_of(other) != digest_of(first)
    # The rounds of a silent caller have equal forms.
    rounds = [replace(first, url=f"{WEBHOOK}?type=turn&n={n}") for n in (0, 1)]
    assert len({digest_of(each) for each in (first, *rounds)}) == 3
    # Once the signature was checked, it is the name of the signed content.
    checked = replace(first)
    assert verify_request(checked, KEYS) == digest_of(checked)


def test_the_key_is_that_of_the_content_alone() -> None:
    validator = RequestValidator(TOKEN)
    keys = set()
    for signed in (WEBHOOK, f"https://{HOST}:443/voice/webhook"):
        signature = validator.compute_signature(signed, {"CallSid": "CA1"})
        asked = form_request(WEBHOOK, [("CallSid", "CA1")], signature)
        for token in ("a", "b"):
            headers = {**asked.headers, "i-twilio-idempotency-token": token}
            keys.add(verify_request(replace(asked, headers=headers), KEYS))
    assert len(keys) == 1


# --- against Twilio's library ----------------------------------------------------------------


class Repeated:
    """Parameters with repeated names, as the library takes them."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._pairs])

    def __len__(self) -> int:
        return len(self._pairs)

    def getall(self, name: str) -> list[str]:
        return [value for each, value in self._pairs if each == name]


_TEXT = string.ascii_letters + string.digits + " +&=%#?/:;,.'\"<>\\~-_\n\täöß€你好🙂"


def _text(chance: random.Random, longest: int) -> str:
    return "".join(chance.choice(_TEXT) for _ in range(chance.randrange(longest)))


def _url(chance: random.Random) -> str:
    user = chance.choice(["", "", "", "u:p%40ss@"])
    host = chance.choice(["voice.example.com", "198.51.100.7", "a-b.example"])
    port = chance.choice(["", "", ":443", ":8443", ":80"])
    path = "/" + "/".join(quote(_text(chance, 8)) for _ in range(chance.randrange(4)))
    pairs = [(f"q{n}", _text(chance, 12)) for n in range(chance.randrange(4))]
    plus = chance.random() < 0.5
    written = urlencode(pairs) if plus else "&".join(f"{k}={quote(v)}" for k, v in pairs)
    query = f"?{written}" if pairs else ""
    return f"https://{user}{host}{port}{path}{query}"


def _signed(chance: random.Random) -> tuple[WebhookRequest, Pairs]:
    """A request as Twilio sends it, signed by its library with one of both algorithms."""
    url = _url(chance)
    names = [_text(chance, 10) or "CallSid" for _ in range(chance.randrange(1, 8))]
    pairs = [(chance.choice(names), _text(chance, 30)) for _ in range(chance.randrange(1, 12))]
    shared = chance.random() < 0.3
    algorithm = "HMAC_SHA256" if shared else "HMAC_SHA1"
    signature = RequestValidator(SHARED if shared else TOKEN).compute_signature(
        url, Repeated(pairs), algorithm
    )
    return form_request(url, pairs, signature, BY_SHARED_KEY if shared else ""), pairs


def _other(chance: random.Random, text: str) -> str:
    """``text`` with one character changed, added or taken away."""
    at = chance.randrange(len(text) + 1)
    fresh = chance.choice(string.ascii_lowercase)
    match chance.randrange(3):
        case 0:
            return text[:at] + fresh + text[at:]
        case 1 if text[at : at + 1] not in ("", fresh):
            return text[:at] + fresh + text[at + 1 :]
    return text[:at] + text[at + 1 :] if at < len(text) else text + fresh


def _mutated(chance: random.Random, asked: WebhookRequest, pairs: Pairs) -> WebhookRequest:
    match chance.randrange(4):
        case 0:
            # After the host: other ports are accepted on purpose.
            start = asked.url.index("/", 8)
            url = asked.url[:start] + "/" + _other(chance, asked.url[start + 1 :])
            return replace(asked, url=url)
        case 1:
            at = chance.randrange(len(pairs))
            name, value = pairs[at]
            changed = [*pairs[:at], (name, _other(chance, value)), *pairs[at + 1 :]]
        case 2:
            at = chance.randrange(len(pairs))
            changed = [*pairs[:at], *pairs[at + 1 :]]
        case _:
            headers = dict(asked.headers)
            name = "x-twilio-signature"
            headers[name] = _other(chance, headers[name])
            return replace(asked, headers=headers)
    return replace(asked, body=urlencode(changed).encode())


def compare(count: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(count):
        asked, pairs = _signed(chance)
        assert accepted(asked), (seed, number, asked)
        mutated = _mutated(chance, asked, pairs)
        same = mutated == asked or set_of(mutated) == set_of(asked)
        assert accepted(mutated) is same, (seed, number, asked, mutated)


def set_of(asked: WebhookRequest) -> tuple[object, ...]:
    """What Twilio signs of a request: repetitions of a value do not count."""
    pairs = frozenset(parse_qsl(asked.body.decode(), keep_blank_values=True))
    return asked.url, pairs, asked.headers["x-twilio-signature"]


def test_the_librarys_signatures_are_accepted_and_mutations_refused() -> None:
    compare(1000, 1)


@pytest.mark.soak
def test_many_of_the_librarys_signatures() -> None:
    count = int(os.environ.get("VOICECALL_SIGNATURE_COUNT", "100000"))
    seed = random.SystemRandom().randrange(10**9)
    compare(count, seed)


# --- reading a form --------------------------------------------------------------------------


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text("ab=&+%25C3A9\n ;", max_size=60).map(str.encode),
    )
)
def test_a_form_is_read_as_the_standard_library_reads_it(body: bytes) -> None:
    asked = request(WEBHOOK, body, "")
    text = body.decode("utf-8", "surrogateescape")
    assert form_of(asked) == parse_qsl(text, keep_blank_values=True, errors="surrogateescape")


@pytest.mark.parametrize("body", [b"a=" + b"%" * 60_000, b"a=\xc3\xa9" + b"%4" * 30_000])
def test_what_looks_like_escapes_and_is_none_costs_little(body: bytes) -> None:
    """Anybody may send it, and in a tenth of a second no call is heard."""
    asked, steps = request(WEBHOOK, body, ""), itertools.count()
    sys.setprofile(lambda *_: next(steps))
    try:
        assert not accepted(asked)
    finally:
        sys.setprofile(None)
    assert form_of(asked) == [("a", body[2:].decode())]
    assert next(steps) < 1000


def test_a_form_has_few_parameters() -> None:
    body = b"a=%&" * 999 + b"a=%"
    assert len(form_of(request(WEBHOOK, body, "")) or ()) == 1000
    for verify in (lambda asked: verify_request(asked, KEYS), form_of):
        with pytest.raises(WebhookRejected) as caught:
            verify(request(WEBHOOK, body + b"&", ""))
        assert caught.value.status == 400


def test_a_copy_of_a_request_is_read_anew() -> None:
    asked = request(WEBHOOK, b"CallSid=CA1", "")
    assert form_of(asked) == [("CallSid", "CA1")]
    assert form_of(replace(asked, body=b"CallSid=CA2")) == [("CallSid", "CA2")]
