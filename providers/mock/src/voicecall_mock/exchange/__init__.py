"""A telephone exchange on loopback (HTTP and WebSockets), with phones that follow scripts."""

from __future__ import annotations

from .carrier import CallStats
from .exchange import Exchange, NoWebhook
from .faults import FaultError
from .ledger import Ledger
from .options import ExchangeOptions
from .script import (
    AnswerMode,
    Behaviour,
    DropSocket,
    HangUp,
    HangUpMidWord,
    Interrupt,
    Loop,
    Press,
    Say,
    Script,
    ScriptError,
    Silent,
    Step,
    Wait,
    WaitForSilence,
    behaviour_from_json,
    default_script,
    script_from_json,
    script_to_json,
)

__all__ = [
    "AnswerMode",
    "Behaviour",
    "CallStats",
    "DropSocket",
    "Exchange",
    "ExchangeOptions",
    "FaultError",
    "HangUp",
    "HangUpMidWord",
    "Interrupt",
    "Ledger",
    "Loop",
    "NoWebhook",
    "Press",
    "Say",
    "Script",
    "ScriptError",
    "Silent",
    "Step",
    "Wait",
    "WaitForSilence",
    "behaviour_from_json",
    "default_script",
    "script_from_json",
    "script_to_json",
]
