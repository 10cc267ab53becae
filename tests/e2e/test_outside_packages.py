"""Providers from third-party packages: built, installed and used, or broken."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeAlias

import pytest

from .lab.process import Home

pytestmark = pytest.mark.e2e

PHONE = "+15555550123"
STOP_S = 30.0

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "strangers-voice"
version = "1.2.3"

[project.entry-points."voicecall.tts"]
beep = "strangers_voice"
"""

VOICE = '''
"""Says every character as a short tone."""

import math

from voicecall import PCM16_8K, ProviderInfo, ProviderKind, hookimpl
from voicecall.tts import PlainSpeechProvider


class Beeps(PlainSpeechProvider):
    native_format = PCM16_8K

    async def synthesize(self, text, voice):
        for character in text:
            step = 2 * math.pi * (300 + ord(character) % 64 * 40) / 8000
            wave = (int(6000 * math.sin(n * step)) for n in range(400))
            yield b"".join(sample.to_bytes(2, "little", signed=True) for sample in wave)


@hookimpl
def voicecall_tts_providers():
    return [
        ProviderInfo(
            kind=ProviderKind.TTS,
            id="beep",
            label="Beeps",
            factory=lambda config, context: Beeps(),
            demo=True,
        )
    ]
'''

STREAMED = {
    "streaming": {
        "enabled": True,
        "provider": "pocketsphinx",
        "providers": {"pocketsphinx": {"phrases": ["goodbye"]}},
    },
    "tts": {"provider": "beep"},
    "outbound": {"notifyHangupDelaySec": 0},
    "serve": {"port": 0},
}
"""Notifications over a media stream; nobody is listened to."""


Site: TypeAlias = Callable[[str], Path]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The folder of an installed package by its name; built when first asked for."""
    root = tmp_path_factory.mktemp("site")
    broken = PYPROJECT.replace("strangers", "broken").replace("beep", "boom")
    misspelt = PYPROJECT.replace("strangers", "misspelt").replace("beep", "bang")
    misspelt_hook = VOICE.replace("voicecall_tts_providers", "voicecall_tts_provider")
    hanging = PYPROJECT.replace("strangers", "hanging").replace("beep", "hush")
    begin, _, end = VOICE.replace('"beep"', '"hush"').partition("        for character")
    work = "        await anyio.to_thread.run_sync(threading.Event().wait)\n        yield b''\n"
    hook = "\n\n@hookimpl" + end.partition("@hookimpl")[2]
    hangs = f"import threading\nimport anyio.to_thread\n{begin}{work}{hook}"
    projects = {
        "strangers-voice": (PYPROJECT, VOICE),
        "broken-voice": (broken, "import no_such_library_at_all\n"),
        "misspelt-voice": (misspelt, misspelt_hook),
        "hanging-voice": (hanging, hangs),
    }

    @cache
    def installed(name: str) -> Path:
        install(root, name, name.replace("-", "_"), *projects[name])
        return root / name

    return installed


def install(root: Path, name: str, module: str, pyproject: str, source: str) -> None:
    """Build a wheel and install it into the folder of its name, without any index."""
    project = root / "sources" / name
    project.mkdir(parents=True)
    (project / "pyproject.toml").write_text(pyproject)
    (project / f"{module}.py").write_text(source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--no-compile", "--target", str(root / name)]
    subprocess.run([*command, str(project)], check=True, capture_output=True, timeout=120)


def bring(home: Home, *packages: Path) -> None:
    """Put installed packages where the commands of ``home`` find them."""
    for package in packages:
        shutil.copytree(package, home.packages, dirs_exist_ok=True)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    config = {"provider": "mock", **STREAMED}
    home.configure({"plugins": {"entries": {"voice-call": {"config": config}}}})
    return home


def test_a_strangers_package_is_listed_and_speaks_on_calls(home: Home, site: Site) -> None:
    bring(home, site("strangers-voice"))
    checked, listed, setup = home.run_all(
        ("providers", "list", "--check", "--json"),
        ("providers", "list"),
        ("setup", "--json"),
    )
    rows = checked.succeeded().document["providers"]
    [beep] = [row for row in rows if row["id"] == "beep"]
    assert (beep["kind"], beep["package"], beep["version"], beep["ok"], beep["label"]) == (
        "tts",
        "strangers-voice",
        "1.2.3",
        True,
        "Beeps",
    )
    assert "strangers-voice" in listed.text
    checks = setup.succeeded().document["checks"]
    [mode] = [check for check in checks if check["id"] == "mode"]
    assert "spoken by Beeps" in mode["message"]
    with home.gateway():
        assert_notified(home)


def assert_notified(home: Home) -> None:
    """A streamed notification is played to its end."""
    started = home.json("call", "--to", PHONE, "--message", "Your taxi.", "--mode", "notify")
    call = home.wait_for(started["callId"], "hangup-bot", "completed", "error", "failed")
    assert (call["state"], call["endDetail"]) == ("hangup-bot", "notified")


def test_a_library_that_hangs_does_not_hold_up_the_stop(home: Home, site: Site) -> None:
    bring(home, site("hanging-voice"))
    config = {"provider": "mock", **STREAMED, "tts": {"provider": "hush", "timeoutMs": 60_000}}
    home.configure(
        {
            "gateway": {"drainSeconds": 0},
            "plugins": {"entries": {"voice-call": {"config": config}}},
        }
    )
    with home.gateway() as process:
        started = home.json("call", "--to", PHONE, "--message", "Your taxi.", "--mode", "notify")
        home.wait_until(started["callId"], "speaking")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=STOP_S)
        assert process.wait() == 0, err
        assert "does not end when it is cancelled; it is abandoned" in err


@pytest.mark.parametrize(
    ("package", "voice", "error"),
    [
        (
            "broken-voice",
            "boom",
            "ModuleNotFoundError: No module named 'no_such_library_at_all'",
        ),
        ("misspelt-voice", "bang", "unknown hook 'voicecall_tts_provider'"),
    ],
)
def test_a_broken_package_is_shown_with_its_error_and_disturbs_nothing(
    home: Home, site: Site, package: str, voice: str, error: str
) -> None:
    bring(home, site("strangers-voice"), site(package))
    output, shown, plain, setup = home.run_all(
        ("providers", "list", "--check", "--json"),
        ("providers", "list", "--check"),
        ("providers", "list", "--json"),
        ("setup", "--json"),
    )
    assert output.status == 1
    rows = json.loads(output.out)["providers"]
    failed = [row for row in rows if not row["ok"]]
    assert [(row["kind"], row["id"], row["package"]) for row in failed] == [("tts", voice, package)]
    assert error in failed[0]["error"]
    assert shown.status == 1
    assert "Traceback" not in shown.err
    listed = plain.succeeded().document["providers"]
    assert [row["id"] for row in listed] == [row["id"] for row in rows]
    assert setup.succeeded().document["ok"] is True
    with home.gateway():
        assert_notified(home)


def test_choosing_the_broken_package_names_its_error(home: Home, site: Site) -> None:
    bring(home, site("broken-voice"))
    config = {**STREAMED, "tts": {"provider": "boom"}}
    home.configure({"plugins": {"entries": {"voice-call": {"config": config}}}})
    report = home.run("setup", "--json")
    [mode] = [check for check in report.document["checks"] if check["id"] == "mode"]
    assert not mode["ok"]
    assert "no_such_library_at_all" in mode["message"]
    assert report.status == 1
