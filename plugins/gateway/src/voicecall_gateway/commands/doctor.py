"""``voicecall doctor``: what is wrong or out of date here, and ``--fix`` for what can be fixed."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Annotated, Any

import typer

from voicecall.errors import ConfigError
from voicecall_gateway.commandline import CommandLine, ConfigOption, JsonOption, command_line
from voicecall_gateway.output import print_json, print_text

__all__ = ["add", "issues"]

Issue = dict[str, Any]

_URL_PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
_OPEN = "holds credentials and can be used by every user: chmod o= it"


def add(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    context: typer.Context,
    fix: Annotated[
        bool, typer.Option("--fix", help="Rewrite old keys, tighten file modes.")
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Look for old keys, broken plugins and files that others can read. Exit 1 if there are
    any."""
    line = command_line(context)
    found = issues(line, config)
    report: dict[str, Any] = {"ok": not found, "issues": found}
    if fix:
        report |= _fix(line, config, found)
    if json:
        print_json(report)
    else:
        _print(report)
        if not fix and (_old_keys(line, config) or any(map(_is_mode, found))):
            print_text("voicecall doctor: run it with --fix to fix what can be fixed")
    if not report["ok"]:
        raise typer.Exit(1)


def issues(line: CommandLine, config: Path | None) -> list[Issue]:
    """Everything found, as ``{path, replacement, message}``: ``path`` is a configuration path or
    a file, ``replacement`` the key to write instead, if there is one."""
    return [
        *_old_keys(line, config),
        *_problems(line, config),
        *_files(line),
        *(_issue(path, _OPEN) for path in _open_files(line, config)),
    ]


def _old_keys(line: CommandLine, config: Path | None) -> list[Issue]:
    from voicecall_gateway.config import config_file
    from voicecall_gateway.jsonfile import file_exists, read_tree
    from voicecall_gateway.migration import old_keys

    file = config_file(config, line.environ)
    try:
        tree = read_tree(file) if file_exists(file) else {}
    except ConfigError:
        # The check of the configuration reports it.
        return []
    return [
        {"path": change.path, "replacement": change.replacement, "message": change.message}
        for change in old_keys(tree, line.registry)[1]
    ]


def _problems(line: CommandLine, config: Path | None) -> list[Issue]:
    from .config import config_report

    report = config_report(line, config)
    # A problem of the file names it; one of a plugin is not about the file.
    return [
        {"path": report["file"], "replacement": None, "message": text}
        for text in report["problems"]
    ]


def _files(line: CommandLine) -> list[Issue]:
    from voicecall_gateway.config import state_directory

    found: list[Issue] = []
    state_dir = state_directory(line.environ)
    for path, mode in ((state_dir, 0o700), (state_dir / "gateway-token", 0o600)):
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            return [*found, _issue(path, f"cannot be looked at: {error.strerror}")]
        if path == state_dir and not stat.S_ISDIR(about.st_mode):
            return [_issue(path, "is not a directory; name another with VOICECALL_STATE_DIR")]
        if about.st_uid != os.geteuid():
            found.append(_issue(path, "belongs to another user: chown it"))
        elif about.st_mode & 0o077:
            found.append(_issue(path, f"can be used by others: chmod {mode:o} it"))
        elif about.st_mode & mode != mode:
            found.append(_issue(path, f"cannot be used by its owner: chmod {mode:o} it"))
    return found


def _open_files(line: CommandLine, config: Path | None) -> list[Path]:
    """The configuration file and its backup, if they hold credentials in clear text and every user
    can access them. Access for their group is accepted: the gateway may read them that way."""
    from voicecall_gateway.config import config_file
    from voicecall_gateway.jsonfile import read_tree
    from voicecall_gateway.logs import credentials_in

    file = config_file(config, line.environ)
    found = []
    for path in (file, file.with_name(file.name + ".bak")):
        try:
            tree = read_tree(path)
            credentials = [*credentials_in(tree), *_passwords_in_urls(tree)]
            clear = [text for text in credentials if not text.startswith("$")]
            if any(text.strip() for text in clear) and path.stat().st_mode & 0o007:
                found.append(path)
        except (ConfigError, OSError):
            # The file does not exist, or the check of the configuration reports it.
            continue
    return found


def _passwords_in_urls(tree: Any) -> list[str]:
    """Passwords in the URLs of databases and servers."""
    if isinstance(tree, str):
        return _URL_PASSWORD.findall(tree)
    below = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [text for value in below for text in _passwords_in_urls(value)]


def _issue(path: Path | str, message: str) -> Issue:
    return {"path": str(path), "replacement": None, "message": f"{path} {message}"}


def _is_mode(issue: Issue) -> bool:
    return "chmod" in issue["message"]


def _fix(line: CommandLine, config: Path | None, found: list[Issue]) -> dict[str, Any]:
    """Fix what can be fixed, look again, and report what was done."""
    from voicecall_gateway.config import config_file, state_directory
    from voicecall_gateway.json5edit import CannotEdit
    from voicecall_gateway.migration import rewrite

    report: dict[str, Any] = {"notes": []}
    file = config_file(config, line.environ)
    if _old_keys(line, config):
        try:
            rewritten = rewrite(file, line.registry)
        except CannotEdit as error:
            report["notes"].append(f"{error}: write the new keys yourself")
        else:
            report["backup"] = str(rewritten.backup)
            if rewritten.plain:
                report["notes"].append(
                    f"{file} could not be edited in place and was rewritten without its"
                    f" comments; the old text is in {rewritten.backup}"
                )
    state_dir = state_directory(line.environ)
    wanted = {str(state_dir): 0o700, str(state_dir / "gateway-token"): 0o600}
    told = [issue["path"] for issue in found if _is_mode(issue)]
    modes = {Path(path): wanted[path] for path in told if path in wanted}
    modes |= {path: path.stat().st_mode & 0o770 for path in _open_files(line, config)}
    for path, mode in modes.items():
        try:
            path.chmod(mode)
        except OSError as error:
            report["notes"].append(f"{path}: its mode cannot be changed: {error.strerror}")
    left = issues(line, config)
    fixed = [issue for issue in found if issue not in left]
    return {**report, "ok": not left, "issues": left, "fixed": fixed}


def _print(report: dict[str, Any]) -> None:
    for issue in report.get("fixed", ()):
        print_text(f"fixed: {issue['message']}")
    for text in report.get("notes", ()):
        print_text(f"note: {text}")
    for issue in report["issues"]:
        print_text(f"issue: {issue['message']}")
    if report["ok"]:
        print_text("voicecall doctor: OK")
