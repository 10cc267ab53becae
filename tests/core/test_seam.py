"""Ids and tokens of the system seam: their form, randomness, threads and forks."""

from __future__ import annotations

import base64
import os
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from voicecall.seam import SystemSeam

pytestmark = pytest.mark.integration

MANY = 2000
"""More than the seam draws at once."""


def test_an_id_is_a_uuid_that_begins_with_the_time() -> None:
    seam = SystemSeam()
    before = seam.now_ms()
    ids = [seam.new_id() for _ in range(MANY)]
    after = seam.now_ms()
    read = [uuid.UUID(text) for text in ids]
    assert [str(each) for each in read] == ids
    assert {(each.version, each.variant) for each in read} == {(7, uuid.RFC_4122)}
    assert len(set(ids)) == MANY
    times = [each.int >> 80 for each in read]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= after


def test_every_free_bit_of_an_id_is_random() -> None:
    seam = SystemSeam()
    numbers = [uuid.UUID(seam.new_id()).int for _ in range(MANY)]
    seen_set, seen_clear = 0, 0
    numbers = [number & ((1 << 80) - 1) for number in numbers]
    for number in numbers:
        seen_set |= number
        seen_clear |= ~number
    assert (seen_set & seen_clear & (2**80 - 1)).bit_count() == 74


def test_a_token_has_128_bits() -> None:
    seam = SystemSeam()
    tokens = {seam.token() for _ in range(MANY)}
    assert len(tokens) == MANY
    assert {len(base64.urlsafe_b64decode(token + "==")) for token in tokens} == {16}
    assert all(token.replace("-", "a").replace("_", "a").isalnum() for token in tokens)


def test_threads_get_ids_of_their_own() -> None:
    seam = SystemSeam()
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda _: seam.new_id(), range(8 * MANY)))
    assert len(set(ids)) == 8 * MANY


def test_a_forked_process_has_ids_of_its_own() -> None:
    seam = SystemSeam()
    seam.new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, seam.new_id().encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        theirs = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    assert uuid.UUID(theirs).version == 7
    assert theirs != seam.new_id()
