"""The webhook and media server as the configuration wants it."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from voicecall.errors import ConfigError
from voicecall.seam import Seam
from voicecall.telephony import TelephonyProvider
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.doors import Doors
from voicecall_calls.server import CallServer, ServeOptions, StreamOptions, WebhookSecurity

__all__ = ["answering", "make_server"]

_KEY_FILE = "probe.key"


def answering(state_dir: Path) -> Callable[[str], str]:
    """What this machine answers to a challenge (:mod:`voicecall_calls.probing`). Its key is made
    where there is none yet."""
    folder = state_dir / "voice-calls"
    try:
        # One after the other: the mode is for the last one only.
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be made ({error.strerror}); set VOICECALL_STATE_DIR"
        ) from None
    file = folder / _KEY_FILE
    try:
        key = _key(file)
    except OSError as error:
        raise ConfigError(
            f"{file}: the key of setup --probe cannot be used ({error.strerror}); delete it, and"
            " see to it that the gateway's user may write there"
        ) from None
    return lambda challenge: hmac.new(key, challenge.encode(), hashlib.sha256).hexdigest()


def _key(file: Path) -> bytes:
    if not file.exists():
        # Of two that make one at once the first counts.
        fresh = file.with_name(f"{_KEY_FILE}.{secrets.token_hex(4)}")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as writer:
            writer.write(secrets.token_hex(32))
        try:
            os.link(fresh, file)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return file.read_bytes()


def make_server(
    config: VoiceCallConfig,
    carrier: TelephonyProvider,
    doors: Doors,
    *,
    seam: Seam,
    state_dir: Path,
) -> CallServer:
    """A server that does not listen yet."""
    security, streaming = config.webhook_security, config.streaming
    return CallServer(
        carrier,
        doors,
        serve=ServeOptions(port=config.serve.port, bind=config.serve.bind, path=config.serve.path),
        stream=StreamOptions(
            path=config.media_path,
            pre_start_timeout_ms=streaming.pre_start_timeout_ms,
            max_pending=streaming.max_pending_connections,
            max_pending_per_client=streaming.max_pending_connections_per_ip,
            max_connections=streaming.max_connections,
        ),
        security=WebhookSecurity(
            allowed_hosts=security.allowed_hosts,
            trust_forwarding_headers=security.trust_forwarding_headers,
            trusted_proxy_ips=security.trusted_proxy_ips,
            max_in_flight_per_client=security.max_in_flight_per_client,
            max_in_flight=security.max_in_flight,
            skip_signatures=config.skip_signature_verification,
        ),
        seam=seam,
        public_url=config.public_url,
        challenged=answering(state_dir),
    )
