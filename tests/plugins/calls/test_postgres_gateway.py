"""Whole gateways whose calls are in PostgreSQL: a crash, another machine, a second gateway."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from ...e2e.lab.process import Home  # noqa: TID252 (the server is here, the commands are there)
from .postgres_server import Server

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

PHONE = "+15555550123"


def home_with(root: Path, url: str) -> Home:
    root.mkdir()
    home = Home(root)
    phone: dict[str, Any] = {
        "serve": {"port": 0},
        "store": {"provider": "postgres", "url": url},
    }
    home.configure({"plugins": {"entries": {"voice-call": {"config": phone}}}})
    return home


def test_calls_are_kept_on_the_server(
    tmp_path: Path, database_url: str, postgres_server: Server
) -> None:
    one, two = home_with(tmp_path / "one", database_url), home_with(tmp_path / "two", database_url)
    assert one.json("setup")["ok"] is True
    assert one.json("status") == {"found": True, "calls": []}
    with one.gateway() as process:
        dialled = one.json("start", "--to", PHONE, "--message", "Hello.")
        call_id = dialled["callId"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    states = postgres_server.execute("SELECT call_id, live FROM calls", database_url)
    assert states == [(call_id, 1)]
    # Another machine goes on: its exchange does not know the call, which is closed.
    with two.gateway() as process:
        over = two.wait_for(call_id, "completed", "failed", "error", "timeout", "hangup-bot")
        assert over["endReason"]
        refused = one.popen("gateway", "run")
        try:
            line = next(text for text in refused.stderr or () if "another gateway" in text)
        finally:
            refused.kill()
            refused.communicate()
        assert f"another gateway (voicecall pid {process.pid} on " in line
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert two.json("status", "--call-id", call_id)["call"]["state"] == over["state"]
    assert call_id in two.run("tail", "--no-follow", "--since", "100").out
