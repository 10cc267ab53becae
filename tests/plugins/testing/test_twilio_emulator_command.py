"""``voicecall emulate twilio`` as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.integration

VOICECALL = Path(sys.executable).with_name("voicecall")


@contextmanager
def emulator(*options: str) -> Iterator[tuple[dict[str, str], Any]]:
    """What it printed, by name, and the process."""
    command = [str(VOICECALL), "emulate", "twilio", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}
    ) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline().rstrip("\n") for _ in range(5)]
            yield dict(line.split(": ", 1) for line in lines), process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(15)


def test_it_prints_what_a_configuration_needs_and_takes_a_call() -> None:
    with emulator("--auth-token", "a-token-of-my-own") as (printed, process):
        auth = (printed["accountSid"], printed["authToken"])
        assert auth[1] == "a-token-of-my-own"
        assert printed["to call in"].startswith("curl")
        with httpx.Client(base_url=printed["apiBaseUrl"], auth=auth, trust_env=False) as client:
            numbers = client.get(
                f"/2010-04-01/Accounts/{auth[0]}/IncomingPhoneNumbers.json"
            ).json()["incoming_phone_numbers"]
            assert [number["phone_number"] for number in numbers] == [printed["fromNumber"]]
            body = json.dumps({"voiceUrl": "http://127.0.0.1:9/"})
            assert client.post("/emulator/dial-in", content=body).status_code == 201
    assert process.returncode == 0
