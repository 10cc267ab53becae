"""The demo's output, while it runs and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from voicecall_gateway.output import OutputLost, print_styled

__all__ = ["Report"]


@dataclass(slots=True)
class Report:
    """Collects events of the gateway and, unless ``quiet``, prints the transcript as it grows.
    ``lost`` is set once it cannot print any more."""

    quiet: bool
    heard: dict[str, list[str]] = field(default_factory=dict)
    turns: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    ended: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    lost: OutputLost | None = None
    _console: Any = None

    def show(self, what: Any, style: str = "") -> None:
        """Print one line, or a table."""
        if self.quiet:
            return
        if self._console is None:
            from rich.console import Console

            self._console = Console(highlight=False, markup=False)
        with self._console.capture() as captured:
            self._console.print(what, style=style)
        try:
            print_styled(captured.get().removesuffix("\n"))
        except OutputLost as lost:
            # Not raised here, in the publisher of the events; the demo checks for it.
            self.lost, self.quiet = lost, True

    def listen(self, event: str, payload: Mapping[str, Any]) -> None:
        """A listener for :meth:`voicecall.hosting.GatewayHost.subscribe`."""
        match event:
            case "voicecall.transcript":
                self._transcript(payload)
            case "voicecall.turn":
                self.turns.setdefault(payload["callId"], []).append(payload)
                self._turn(payload)
            case "voicecall.call" if payload["event"] == "DigitsPressed":
                self.show("  caller  presses a key", "cyan")
            case "voicecall.ended":
                call = payload["call"]
                self.ended[call["callId"]] = call
                self.show(f"  call ended: {call['endReason']} ({call.get('endDetail', '')})", "dim")
            case _:
                return

    def _transcript(self, payload: Mapping[str, Any]) -> None:
        if payload["speaker"] == "user":
            self.heard.setdefault(payload["callId"], []).append(payload["text"])
            self.show(f"  caller  {payload['text']}", "cyan")
        else:
            cut = "" if payload["complete"] else " … (interrupted)"
            self.show(f"  agent   {payload['text']}{cut}", "green")

    def _turn(self, payload: Mapping[str, Any]) -> None:
        if payload.get("latencyMs") is not None:
            self.show(f"          [answered after {payload['latencyMs']} ms]", "dim")

    def table(self, document: Mapping[str, Any]) -> None:
        """Print the figures at the end."""
        if self.quiet:
            return
        from rich.table import Table

        table = Table(title="Measurements of the conversation")
        table.add_column("figure")
        table.add_column("value", justify="right")
        rows = [
            ("turns answered", len(document["turnLatencyMs"])),
            ("turn latency at the gateway (ms)", _spread(document["turnLatencyMs"])),
            ("silence heard before an answer (ms)", _spread(document["responseMs"])),
            ("barge-in: speech to silence (ms)", _spread(document["bargeInStopMs"])),
            ("underruns at the phone", document["underruns"]),
            ("sentences understood", f"{document['understood']} of {document['expected']}"),
        ]
        for name, value in rows:
            table.add_row(name, str(value))
        self.show("")
        self.show(table)


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    return f"{middle:.0f} ({ordered[0]:.0f} to {ordered[-1]:.0f})"
