"""``voicecall logs``: the gateway's log, for people or as JSON."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from voicecall.errors import VoicecallError
from voicecall_gateway.commandline import JsonOption, command_line
from voicecall_gateway.output import print_error, print_json, print_text

__all__ = ["add"]

POLL_SECONDS = 0.25
MOST_LINES = 1_000_000


def add(app: typer.Typer) -> None:
    app.command("logs")(logs)


def logs(
    context: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new lines until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=MOST_LINES, help="Lines to begin with.")
    ] = 50,
    json: JsonOption = False,
) -> None:
    """Print the gateway's log. With --json, one document; with --follow too, one per line."""
    from voicecall_gateway import logreader
    from voicecall_gateway.config import state_directory
    from voicecall_gateway.logs import log_file

    file = log_file(state_directory(command_line(context).environ))
    try:
        if follow:
            if not file.exists():
                print_error(f"{file} does not exist yet: waiting for it")
            for line in logreader.follow(file, lines, lambda: time.sleep(POLL_SECONDS)):
                print_text(line if json else logreader.pretty(line))
            return
        if not file.exists():
            raise VoicecallError(f"{file}: there is no log yet; start `voicecall gateway run`")
        found = logreader.last_lines(file, lines)
    except OSError as error:
        raise VoicecallError(f"{file}: cannot be read: {error.strerror}") from None
    if json:
        document = [logreader.parse_line(line) for line in found]
        print_json({"file": str(file), "lines": document})
    else:
        for line in found:
            print_text(logreader.pretty(line))
