"""Commands on what is recorded: tail and latency."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from voicecall.errors import VoicecallError
from voicecall_calls.commands.requests import request
from voicecall_gateway.commandline import ConfigOption, JsonOption, command_line
from voicecall_gateway.output import print_json, print_table, print_text

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    app.command("tail")(tail)
    app.command("latency")(latency)


def tail(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Option("--file", help="Journal (default: calls.jsonl of the store).")
    ] = None,
    since: Annotated[int, typer.Option("--since", min=0, help="Lines to begin with.")] = 25,
    poll: Annotated[int, typer.Option("--poll", min=50, help="Milliseconds between looks.")] = 250,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for more.")] = True,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Print call records as they change: whole records, with numbers and words."""
    path = file or _journal(context, config)
    if not path.exists() and not follow:
        raise VoicecallError(f"{path} does not exist: no call was recorded yet")
    lines = _follow(path, since, poll / 1000) if follow else iter(_last_lines(path, since))
    if json and not follow:
        print_json([json_module.loads(line) for line in lines])
        return
    for line in lines:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _journal(context: typer.Context, config: Path | None) -> Path:
    """Where the store of the configured phone keeps its journal."""
    loaded = command_line(context).load_config(config)
    values = loaded.plugin_values("voice-call")
    directory = values.get("store")
    folder = Path(directory).expanduser() if directory else loaded.state_dir / "voice-calls"
    return folder / "calls.jsonl"


def _last_lines(path: Path, count: int) -> list[str]:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [line for line in text.split("\n")[:-1] if line.strip()]
    return lines[len(lines) - min(count, len(lines)) :]


def _follow(path: Path, since: int, poll_s: float) -> Iterator[str]:
    """The last lines, then new ones; begins again when the file is replaced or cut."""
    yield from _last_lines(path, since)
    offset, inode = _size(path), _inode(path)
    rest = ""
    while True:
        time.sleep(poll_s)
        if _inode(path) != inode or _size(path) < offset:
            offset, inode, rest = 0, _inode(path), ""
        if _size(path) == offset:
            continue
        with path.open("rb") as journal:
            journal.seek(offset)
            data = journal.read()
        offset += len(data)
        *whole, rest = (rest + data.decode("utf-8", "replace")).split("\n")
        yield from (line for line in whole if line.strip())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def latency(
    context: typer.Context,
    last: Annotated[int, typer.Option("--last", min=1, help="Turns to look at.")] = 200,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """How long turns took, over the last turns of every kind."""
    result = request(context, config, "voicecall.latency", {"last": last})
    if json:
        print_json(result)
        return
    print_text(f"{result['recordsScanned']} turns")
    columns = ("count", "minMs", "p50Ms", "p90Ms", "p95Ms", "p99Ms", "maxMs", "avgMs")
    rows = [
        (name, *(_number(series[column]) for column in columns))
        for name, series in result.items()
        if isinstance(series, dict)
    ]
    print_table(("series", *columns), rows)


def _number(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)
