"""Twilio on loopback: REST, signed webhooks, TwiML and media streams, with phones that follow
scripts (:mod:`voicecall_mock.exchange`). For development and tests."""

from __future__ import annotations

from .emulator import NoVoiceUrl, TwilioEmulator
from .faults import Faults, RestFault, SocketFault, WebhookFault
from .options import DEFAULT_ACCOUNT_SID, DEFAULT_AUTH_TOKEN, TwilioOptions

__all__ = [
    "DEFAULT_ACCOUNT_SID",
    "DEFAULT_AUTH_TOKEN",
    "Faults",
    "NoVoiceUrl",
    "RestFault",
    "SocketFault",
    "TwilioEmulator",
    "TwilioOptions",
    "WebhookFault",
]
