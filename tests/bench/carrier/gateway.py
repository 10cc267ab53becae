"""Our gateway as the command runs it, with carrier Twilio and the voice model ``echo``."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.ports import reserve_port

from .processes import ServerProcess, serving
from .webhooks import ACCOUNT, AUTH_TOKEN, HERE

__all__ = ["gateway"]

_MANY = 1_000_000


@contextmanager
def gateway(api_url: str, *, policy: str = "open") -> Iterator[ServerProcess]:
    """A gateway whose caps do not limit the load. The port is that of webhooks and media."""
    admin, port = reserve_port(), reserve_port()
    phone: dict[str, Any] = {
        "provider": "twilio",
        "fromNumber": HERE,
        "twilio": {"accountSid": ACCOUNT, "authToken": AUTH_TOKEN, "apiBaseUrl": api_url},
        "inboundPolicy": policy,
        "maxConcurrentInboundCalls": _MANY,
        "serve": {"port": port},
        "realtime": {"enabled": True, "provider": "echo"},
        "streaming": {
            "maxConnections": _MANY,
            "maxPendingConnections": _MANY,
            "maxPendingConnectionsPerIp": _MANY,
        },
        "webhookSecurity": {"maxInFlightPerClient": _MANY, "maxInFlight": _MANY},
    }
    tree = {
        "gateway": {"port": admin, "drainSeconds": 0},
        "plugins": {"entries": {"voice-call": {"config": phone}}},
    }

    def ready(port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    with TemporaryDirectory(prefix="voicecall-bench-") as directory:
        file = Path(directory, "config.json5")
        file.write_text(json.dumps(tree))
        environ = {"VOICECALL_STATE_DIR": str(Path(directory, "state"))}
        command = [str(Path(sys.executable).with_name("voicecall")), "gateway", "run"]
        with serving(
            [*command, "--config", str(file)], port, environ=environ, ready=ready
        ) as server:
            yield server
