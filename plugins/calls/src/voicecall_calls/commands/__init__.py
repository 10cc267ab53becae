"""Commands of the phone. Showing help imports nothing heavy."""

from __future__ import annotations

from typing import Any

from voicecall_calls.commands import calls, pairing, records, trying

__all__ = ["add_commands"]


def add_commands(app: Any) -> None:
    """Add all of them to the ``voicecall`` command line."""
    for module in (calls, records, pairing, trying):
        module.add(app)
