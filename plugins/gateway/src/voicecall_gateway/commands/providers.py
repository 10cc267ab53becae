"""``voicecall providers list``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from voicecall.errors import PluginError
from voicecall.providers import ProviderKind
from voicecall.registry import Registry
from voicecall_gateway.commandline import JsonOption, command_line
from voicecall_gateway.output import print_json, print_table

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Carriers, speech vendors and other providers.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )

    # Without a callback, typer would turn a group with a single command into that command.
    @group.callback()
    def providers() -> None: ...

    group.command("list")(list_providers)
    app.add_typer(group, name="providers")


def list_providers(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Import each package and show its error.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the installed providers. With --check, exit 1 if one cannot be loaded."""
    rows = _rows(command_line(context).registry, check)
    if json:
        print_json({"providers": rows})
    else:
        headers = ["KIND", "ID", "PACKAGE", "VERSION", *(["STATE"] if check else [])]
        print_table(headers, [_cells(row, check) for row in rows])
    if any(row.get("ok") is False for row in rows):
        raise typer.Exit(1)


def _rows(registry: Registry, check: bool) -> list[dict[str, Any]]:
    rows = []
    for kind in ProviderKind:
        for found in registry.found(kind.group):
            row: dict[str, Any] = {
                "kind": kind.value,
                "id": found.id,
                "package": found.source,
                "version": found.version,
            }
            if check:
                row |= _state(registry, kind, found.id)
            rows.append(row)
    return rows


def _state(registry: Registry, kind: ProviderKind, provider_id: str) -> dict[str, Any]:
    try:
        info = registry.load(kind, provider_id)
    except PluginError as error:
        return {"ok": False, "error": str(error)}
    except Exception as error:  # noqa: BLE001 (a stranger's hook)
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}
    return {
        "ok": True,
        "label": info.label,
        "aliases": list(info.aliases),
        "secrets": dict(info.secrets),
        "demo": info.demo,
    }


def _cells(row: dict[str, Any], check: bool) -> list[str]:
    cells = [row["kind"], row["id"], row["package"], row["version"]]
    if check:
        cells.append("ok" if row["ok"] else f"error: {row['error']}")
    return cells
