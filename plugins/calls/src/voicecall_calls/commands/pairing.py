"""``voicecall pairing``: who may call in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from voicecall_calls.commands.requests import request
from voicecall_gateway.commandline import ConfigOption, JsonOption
from voicecall_gateway.output import print_json, print_table, print_text

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    group = typer.Typer(
        help="List, approve and revoke callers.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("list")(listed)
    group.command("approve")(approve)
    group.command("revoke")(revoke)
    app.add_typer(group, name="pairing")


def listed(context: typer.Context, config: ConfigOption = None, json: JsonOption = False) -> None:
    """List approved, revoked and waiting callers."""
    result = request(context, config, "voicecall.pairing.list", {})
    if json:
        print_json(result)
        return
    rows = [
        (entry["number"], entry["status"], entry["code"] or "", _when(entry["at"]))
        for entry in result["callers"]
    ]
    if rows:
        print_table(("number", "status", "code", "since"), rows)
    else:
        print_text("no callers")


def approve(
    context: typer.Context,
    caller: Annotated[str, typer.Argument(help="The code that the caller was told, or a number.")],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Let a caller in, from the next call on."""
    result = request(context, config, "voicecall.pairing.approve", {"caller": caller})
    _tell(result, json, "is approved", "may call in")


def revoke(
    context: typer.Context,
    number: Annotated[str, typer.Argument(help="Number of the caller.")],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Refuse a caller from now on."""
    result = request(context, config, "voicecall.pairing.revoke", {"number": number})
    _tell(result, json, "is revoked", "may not call in any more")


def _tell(result: Mapping[str, Any], json: bool, done: str, then: str) -> None:
    if json:
        print_json(result)
        return
    number, but = result["caller"]["number"], result.get("but")
    print_text(f"{number} {then}" if but is None else f"{number} {done}, but {but}")


def _when(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_ms / 1000))
