"""Commands on recorded data: tail and latency."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from voicecall.errors import VoicecallError
from voicecall_calls.commands.requests import request
from voicecall_gateway.commandline import ConfigOption, JsonOption, command_line
from voicecall_gateway.output import print_error, print_json, print_table, print_text

__all__ = ["add"]

_MOST = 1_000_000


def add(app: typer.Typer) -> None:
    app.command("tail")(tail)
    app.command("latency")(latency)


def tail(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Option("--file", help="Journal (default: calls.jsonl of the store).")
    ] = None,
    since: Annotated[
        int, typer.Option("--since", min=0, max=_MOST, help="Lines to begin with.")
    ] = 25,
    poll: Annotated[
        int, typer.Option("--poll", min=50, max=_MOST, help="Polling interval in milliseconds.")
    ] = 250,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Keep printing new lines until Ctrl-C.")
    ] = True,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Print call records as they change, with phone numbers and transcripts. One record per line;
    with --no-follow and --json, one document."""
    from voicecall_gateway import logreader

    path = file or _journal(context, config)
    try:
        if follow:
            if not path.exists():
                print_error(f"{path} does not exist yet: waiting for it")
            for line in logreader.follow(path, since, lambda: time.sleep(poll / 1000)):
                print_text(line)
            return
    except OSError as error:
        raise _unreadable(path, error) from None
    lines = _last_lines(path, since, named=file is not None)
    if json:
        print_json([_parsed(path, line) for line in lines])
    else:
        for line in lines:
            print_text(line)


def _last_lines(path: Path, count: int, *, named: bool) -> list[str]:
    from voicecall_gateway.logreader import last_lines

    try:
        if not path.exists():
            why = "; name another with --file" if named else ": no call was recorded yet"
            raise VoicecallError(f"{path} does not exist{why}")
        return last_lines(path, count)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> VoicecallError:
    return VoicecallError(f"{path} cannot be read: {error.strerror}")


def _parsed(path: Path, line: str) -> Any:
    try:
        return json_module.loads(line)
    except ValueError:
        raise VoicecallError(f"{path} holds lines that are not JSON; leave --json out") from None


def _journal(context: typer.Context, config: Path | None) -> Path:
    """The journal of the configured phone's store."""
    from voicecall_calls.config import PLUGIN_ID
    from voicecall_calls.storing import store_directory
    from voicecall_gateway.pluginconfig import plugin_config

    line = command_line(context)
    loaded = line.load_config(config)
    phone = plugin_config(line.registry, loaded, PLUGIN_ID)
    return store_directory(phone, loaded.state_dir) / "calls.jsonl"


def latency(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read this journal (default: ask the store).")
    ] = None,
    last: Annotated[
        int,
        typer.Option("--last", min=1, max=_MOST, help="Number of turns (of a journal: lines)."),
    ] = 200,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show how long the last turns took."""
    if file is not None:
        from voicecall_calls.latency import journal_report

        result = journal_report(_last_lines(file, last, named=True))
    else:
        result = request(context, config, "voicecall.latency", {"last": last})
    if json:
        print_json(result)
        return
    print_text(f"{result['recordsScanned']} {'turns' if file is None else 'records'}")
    if result.get("failedTurns") or result.get("fillers"):
        # A journal does not have these.
        print_text(f"failed: {result['failedTurns']}; with a filler: {result['fillers']}")
    columns = ("count", "minMs", "p50Ms", "p90Ms", "p95Ms", "p99Ms", "maxMs", "avgMs")
    rows = [
        (name, *(_number(series[column]) for column in columns))
        for name, series in result.items()
        if isinstance(series, dict)
    ]
    print_table(("series", *columns), rows)


def _number(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)
