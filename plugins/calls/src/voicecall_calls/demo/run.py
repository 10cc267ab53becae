"""Running the demo: gateway, exchange, one call in, one call out, a report."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio

from voicecall.errors import VoicecallError
from voicecall.providers import ProviderKind
from voicecall.registry import Registry
from voicecall.seam import SystemSeam
from voicecall_calls.demo.exchange import DemoExchange, exchange_process
from voicecall_calls.demo.report import Report
from voicecall_calls.demo.story import Story, built_in_story, normal, spoken_story
from voicecall_calls.plugin import PLUGIN_ID

__all__ = ["demo_tree", "run_demo", "save"]

CALLER = "+15550100001"
CLINIC = "+15550100000"
NOTIFIED = "+15550100002"
_NOTICE = "This is the clinic. We look forward to seeing you on monday at three. Goodbye."
_CALL_PATIENCE_S = 90.0


def run_demo(
    registry: Registry, *, sentences: Sequence[str] | None, output: str, as_json: bool
) -> int:
    """Run the demo and return the exit status. 1: a sentence in the grammar was misheard."""
    _check_installed(registry)
    story = spoken_story(sentences) if sentences else built_in_story()
    recording = Path(output)
    with _writing(recording):
        fresh = not os.path.lexists(recording)
        recording.open("ab").close()
        if fresh:
            # This was only a check that the file can be written: it is created with its content.
            recording.unlink()
    return anyio.run(_demo, registry, story, recording, as_json)


@contextlib.contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VoicecallError(f"{file} cannot be written: {error.strerror}") from None


def save(recording: Path, data: bytes) -> None:
    """Write the recording. Raises :exc:`VoicecallError`; no partial file is left then."""
    with _writing(recording):
        try:
            recording.write_bytes(data)
        except OSError:
            if recording.is_file():
                recording.unlink()
            raise


def _check_installed(registry: Registry) -> None:
    """Raises :exc:`VoicecallError` if the demo's speech providers are not installed."""
    phone = demo_tree()["plugins"]["entries"][PLUGIN_ID]["config"]
    voice, _, _ = phone["callerVoice"].partition(":")
    wanted = {ProviderKind.TTS: voice, ProviderKind.TRANSCRIPTION: phone["streaming"]["provider"]}
    absent = [one for kind, one in wanted.items() if one not in registry.ids(kind)]
    if absent:
        raise VoicecallError(
            f"the demo needs {' and '.join(absent)}: run pip install 'voicecall[demo]'"
        )


def demo_tree() -> dict[str, Any]:
    """The demo's configuration as shipped."""
    import json5

    text = files("voicecall_calls.demo").joinpath("config.json5").read_text(encoding="utf-8")
    tree: dict[str, Any] = json5.loads(text)
    return tree


async def _demo(registry: Registry, story: Story, output: Path, as_json: bool) -> int:
    from voicecall_gateway.config import config_from_tree
    from voicecall_gateway.runtime import Gateway

    tree = demo_tree()
    phone: dict[str, Any] = tree["plugins"]["entries"][PLUGIN_ID]["config"]
    carrier, voice = phone["provider"], phone.pop("callerVoice")
    auth_token = SystemSeam().token()
    report = Report(quiet=as_json)
    with tempfile.TemporaryDirectory(prefix="voicecall-demo-") as directory:
        async with exchange_process(carrier, voice, auth_token) as exchange:
            phone[carrier] = {"apiBaseUrl": exchange.base_url, "authToken": auth_token}
            loaded = config_from_tree(tree, environ={}, source="demo", state_dir=Path(directory))
            gateway = Gateway(loaded, registry, environ=dict(os.environ))
            async with gateway.run():
                problems = await gateway.wait_started()
                if problems:
                    raise VoicecallError("the demo cannot run: " + "; ".join(problems))
                gateway.host.subscribe(report.listen)
                document = await _calls(gateway.host.methods, exchange, story, report, output)
    phrases = _phrases(tree)
    expected = [normal(text) for text in story.said if normal(text) in phrases]
    document["expected"] = len(expected)
    document["understood"] = _count_understood(expected, document["heard"])
    if as_json:
        from voicecall_gateway.output import print_json

        print_json(document)
    else:
        report.table(document)
        if len(expected) < len(story.said):
            report.show(f"the recogniser of the demo knows only: {'; '.join(phrases)}")
        report.show(f"recording: {output} (left: caller, right: agent)")
        if report.lost is not None:
            raise report.lost
    return 0 if document["understood"] == document["expected"] else 1


async def _calls(
    methods: Mapping[str, Any],
    exchange: DemoExchange,
    story: Story,
    report: Report,
    output: Path,
) -> dict[str, Any]:
    from voicecall.hosting import RpcCall

    report.show(f"A phone, {CALLER}, calls the clinic, {CLINIC}.", "bold")
    carrier_id = await exchange.call_in(CALLER, CLINIC, story.steps)
    inbound = await _until_ended(report, lambda call: call.get("providerCallId") == carrier_id)
    stats = await exchange.stats(carrier_id)
    save(output, await exchange.recording(carrier_id))
    report.show("")
    report.show(f"The clinic calls {NOTIFIED} with a notice.", "bold")
    started = await methods["voicecall.start"].handler(
        {"to": NOTIFIED, "message": _NOTICE, "mode": "notify"},
        RpcCall("demo", frozenset({"operator.write"})),
    )
    outbound = await _until_ended(report, lambda call: call["callId"] == started["callId"])
    turns = report.turns.get(inbound["callId"], [])
    return {
        "inbound": inbound,
        "outbound": outbound,
        "said": list(story.said),
        "heard": report.heard.get(inbound["callId"], []),
        "turnLatencyMs": [t["latencyMs"] for t in turns if t.get("latencyMs") is not None],
        "responseMs": list(stats["response_ms"]),
        "bargeInStopMs": list(stats["barge_in_stop_ms"]),
        "underruns": stats["underruns"],
        "recording": str(output),
    }


async def _until_ended(
    report: Report, wanted: Callable[[Mapping[str, Any]], bool]
) -> Mapping[str, Any]:
    with anyio.move_on_after(_CALL_PATIENCE_S):
        while True:
            if report.lost is not None:
                raise report.lost
            for call in report.ended.values():
                if wanted(call):
                    return call
            await anyio.sleep(0.05)
    raise VoicecallError("the call did not end in time")


def _phrases(tree: Mapping[str, Any]) -> list[str]:
    """The sentences that the recogniser knows, in the form of :func:`normal`."""
    streaming = tree["plugins"]["entries"][PLUGIN_ID]["config"]["streaming"]
    return [normal(p) for p in streaming["providers"][streaming["provider"]]["phrases"]]


def _count_understood(expected: Sequence[str], heard: Sequence[str]) -> int:
    """How many of ``expected`` were heard, in order."""
    rest = [normal(text) for text in heard]
    count = 0
    for sentence in expected:
        if sentence in rest:
            rest = rest[rest.index(sentence) + 1 :]
            count += 1
    return count
