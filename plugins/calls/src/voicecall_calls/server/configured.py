"""Making the server from the configuration."""

from __future__ import annotations

from pathlib import Path

from voicecall.seam import Seam
from voicecall.telephony import TelephonyProvider
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.doors import Doors

from .challenge import answering
from .options import StreamOptions, WebhookSecurity
from .server import CallServer

__all__ = ["make_server"]


def make_server(
    config: VoiceCallConfig,
    carrier: TelephonyProvider,
    doors: Doors,
    *,
    seam: Seam,
    state_dir: Path,
) -> CallServer:
    """The server, not listening yet."""
    security, streaming = config.webhook_security, config.streaming
    return CallServer(
        carrier,
        doors,
        serve=config.serve,
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
