"""``voicecall setup --probe`` against Twilio's emulator, with and without a running gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.backstage import closed_backstage
from tests.ports import reserve_port
from typer.testing import CliRunner

from voicecall.registry import Registry
from voicecall_gateway.cli import build_app
from voicecall_gateway.commandline import CommandLine
from voicecall_gateway.config import load_config
from voicecall_gateway.runtime import Gateway
from voicecall_testing.twilio import TwilioEmulator, TwilioOptions

from .lab.carriers import CLINIC

pytestmark = [pytest.mark.e2e, pytest.mark.anyio, pytest.mark.usefixtures("backstage")]


@asynccontextmanager
async def office(directory: Path, **phone: Any) -> AsyncIterator[Office]:
    port = reserve_port()
    options = TwilioOptions(numbers=(CLINIC,))
    async with closed_backstage(TwilioEmulator(options).serve()) as twilio:
        url = f"http://127.0.0.1:{port}/voice/webhook"
        config = {
            "provider": "twilio",
            "fromNumber": CLINIC,
            "publicUrl": url,
            "serve": {"port": port},
            "twilio": {
                "accountSid": options.account_sid,
                "authToken": options.auth_token,
                "apiBaseUrl": twilio.base_url,
            },
            **phone,
        }
        config = {key: value for key, value in config.items() if value is not None}
        tree = {
            "gateway": {"port": 0},
            "plugins": {"entries": {"voice-call": {"config": config}}},
        }
        file = directory / "config.json5"
        file.write_text(json.dumps(tree))
        yield Office(file, directory, url, twilio)


class Office:
    def __init__(self, file: Path, state: Path, url: str, twilio: TwilioEmulator) -> None:
        self.environ = {"VOICECALL_STATE_DIR": str(state), "VOICECALL_CONFIG": str(file)}
        self.file = file
        self.url = url
        self.twilio = twilio

    async def setup(self, *arguments: str) -> Mapping[str, tuple[bool, str]]:
        """The checks of the command by their ids."""

        def run() -> str:
            registry = Registry()
            line = CommandLine(registry, self.environ)
            app = build_app(registry)
            result = CliRunner().invoke(app, ["setup", "--json", *arguments], obj=line)
            report = json.loads(result.stdout)
            assert result.exit_code == (0 if report["ok"] else 1)
            return result.stdout

        report = json.loads(await anyio.to_thread.run_sync(run))
        return {each["id"]: (each["ok"], each["message"]) for each in report["checks"]}


async def test_a_number_that_points_to_us_passes(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        local = await here.setup()
        assert "credentials" not in local
        ok, urls = local["number-urls"]
        assert ok
        again = "#rc=3&rp=all&rt=4500"
        assert f"A call comes in: {here.url}{again}" in urls
        status = f"{here.url}?type=status{again}"
        assert f"Call status changes: {status}" in urls
        here.twilio.set_voice_url(f"{here.url}{again}", status_callback=status)
        probed = await here.setup("--probe")
        for name in (
            "credentials",
            "number-owned",
            "number-webhook",
            "number-status",
            "public-url",
        ):
            assert probed[name][0], probed[name]


async def test_a_running_gateway_answers_for_itself(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        loaded = load_config(here.file, here.environ)
        gateway = Gateway(loaded, Registry())
        async with closed_backstage(gateway.run()):
            assert list(await gateway.wait_started()) == []
            probed = await here.setup("--probe")
            assert probed["public-url"] == (True, f"{here.url} leads to this machine")
            ok, text = probed["listening"]
            assert ok
            assert text.endswith(" of 127.0.0.1 is in use by a running gateway")


async def test_a_media_socket_is_opened_where_calls_are_streamed(tmp_path: Path) -> None:
    realtime = {"enabled": True, "provider": "echo"}
    async with office(tmp_path, realtime=realtime, inboundPolicy="open") as here:
        path = here.url.replace("http:", "ws:").replace("webhook", "stream/realtime")
        through = (True, f"media sockets can be opened at {path}")
        assert (await here.setup("--probe"))["media-url"] == through
        gateway = Gateway(load_config(here.file, here.environ), Registry())
        async with closed_backstage(gateway.run()):
            assert list(await gateway.wait_started()) == []
            assert (await here.setup("--probe"))["media-url"] == through


async def test_wrong_credentials_and_a_number_of_somebody_else_are_named(tmp_path: Path) -> None:
    async with office(tmp_path, fromNumber="+15550100077") as here:
        probed = await here.setup("--probe")
        ok, text = probed["number-owned"]
        assert not ok
        assert "+15550100077" in text
        tree = json.loads(here.file.read_text())
        block = tree["plugins"]["entries"]["voice-call"]["config"]["twilio"]
        block["authToken"] = "0" * 32
        here.file.write_text(json.dumps(tree))
        probed = await here.setup("--probe")
        assert not probed["credentials"][0]
        assert "number-owned" not in probed


async def test_a_number_of_the_environment_is_looked_up_too(tmp_path: Path) -> None:
    async with office(tmp_path, fromNumber=None) as here:
        here.environ["TWILIO_FROM_NUMBER"] = "+15550100077"
        ok, text = (await here.setup("--probe"))["number-owned"]
        assert not ok
        assert "+15550100077" in text


async def test_a_public_url_that_leads_elsewhere_or_nowhere_is_named(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        tree = json.loads(here.file.read_text())
        phone = tree["plugins"]["entries"]["voice-call"]["config"]
        nowhere = reserve_port()
        wrong = {
            f"{here.twilio.base_url}/voice/webhook": "answers 401",
            f"http://127.0.0.1:{nowhere}/voice/webhook": "cannot be reached",
            "https://xn--a.example/voice/webhook": "cannot be reached",
        }
        for url, complaint in wrong.items():
            phone["publicUrl"] = url
            here.file.write_text(json.dumps(tree))
            ok, text = (await here.setup("--probe"))["public-url"]
            assert not ok
            assert complaint in text
            assert url in text
