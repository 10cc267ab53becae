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
def emulator(*options: str, **environ: str) -> Iterator[tuple[dict[str, str], Any]]:
    """The values that it printed, by name, and the process."""
    command = [str(VOICECALL), "emulate", "twilio", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1", **environ}
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


ACME = """
from voicecall import ProviderInfo, ProviderKind, hookimpl
from voicecall.configuring import ConfigModel
from voicecall_testing.fakes import ScriptedSpeech


class AcmeConfig(ConfigModel):
    api_key: str


def make(config, context):
    assert config.api_key == "a-key-of-acme"
    return ScriptedSpeech()


@hookimpl
def voicecall_tts_providers():
    info = ProviderInfo(
        kind=ProviderKind.TTS,
        id="acme",
        label="Acme",
        factory=make,
        config_model=lambda: AcmeConfig,
        secrets={"apiKey": "ACME_KEY"},
        required=("apiKey",),
    )
    return [info]
"""


def installed(path: Path, module: str) -> str:
    """What to put in ``PYTHONPATH`` for the voice ``acme``."""
    (path / "acme_voice.py").write_text(module)
    about = path / "acme-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[voicecall.tts]\nacme = acme_voice\n")
    return str(path)


def test_a_voice_that_needs_a_key_has_it_from_the_environment(tmp_path: Path) -> None:
    path = installed(tmp_path, ACME)
    with emulator("--tts", "acme", PYTHONPATH=path, ACME_KEY="a-key-of-acme") as (printed, process):
        assert printed["apiBaseUrl"].startswith("http://127.0.0.1:")
    assert process.returncode == 0
    done = subprocess.run(
        [str(VOICECALL), "emulate", "twilio", "--tts", "acme"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    said = "tts.providers.acme.apiKey: is required by Acme (or set ACME_KEY)\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("5", "TypeError: its factory returns int, not a SpeechProvider"),
    ],
)
@pytest.mark.parametrize("carrier", ["mock", "twilio"])
def test_a_voice_that_cannot_be_made_is_named(
    tmp_path: Path, carrier: str, made: str, why: str
) -> None:
    path = installed(tmp_path, ACME.replace("ScriptedSpeech()", made))
    done = subprocess.run(
        [str(VOICECALL), "emulate", carrier, "--tts", "acme"],
        env={**os.environ, "PYTHONPATH": path, "ACME_KEY": "a-key-of-acme"},
        capture_output=True,
        text=True,
    )
    said = f"the tts provider 'acme' cannot be used: {why}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
