"""What commands show of recorded calls (tail, latency, the log), and how many are kept."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from voicecall.errors import InvalidRequest
from voicecall.seam import SystemSeam
from voicecall.store import Commit, TurnRow
from voicecall_calls.store import SqliteStore
from voicecall_mock.exchange import HangUp, Interrupt, Say, WaitForSilence
from voicecall_testing.contracts.records import ended

from .lab.process import Home, Process
from .lab.puppets import Puppet
from .lab.town import CALLER, GREETING, PATIENCE_S, Town, open_town, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio, pytest.mark.usefixtures("backstage")]

WAIT = WaitForSilence(300)
STORY = "Once upon a time, there was a very small phone. It rang all day. Nobody ever came."


@asynccontextmanager
async def open_office(home: Home) -> AsyncIterator[Town]:
    """A town whose gateway the commands of ``home`` find."""
    home.state_dir.mkdir()
    agent = Puppet({"Tell me a story.": STORY})
    async with open_town(home.state_dir, agent) as town:
        town.edit({"gateway": {"port": town.gateway.port}})
        yield town


@contextmanager
def followed(home: Home, *command: str) -> Iterator[Process]:
    """A command that goes on until it is interrupted."""
    process = home.popen(*command)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in err
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read(process: Process, count: int) -> list[Any]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def percentile(values: list[int], percent: int) -> int:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[-(-percent * len(ordered) // 100) - 1]


def expected(values: list[int]) -> dict[str, float]:
    if not values:
        keys = ("count", "minMs", "maxMs", "avgMs", "p50Ms", "p90Ms", "p95Ms", "p99Ms")
        return dict.fromkeys(keys, 0)
    return {
        "count": len(values),
        "minMs": min(values),
        "maxMs": max(values),
        "avgMs": sum(values) / len(values),
        **{f"p{percent}Ms": percentile(values, percent) for percent in (50, 90, 95, 99)},
    }


def replied(turns: list[TurnRow], start: str, end: str) -> list[int]:
    pairs = [(getattr(turn, start), getattr(turn, end)) for turn in turns]
    return [b - a for a, b in pairs if a is not None and b is not None]


async def test_latency_is_that_of_the_turns(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with open_office(home) as town:
        empty = await town.rpc("latency")
        assert empty["recordsScanned"] == 0
        assert empty["turnLatency"] == expected([])

        _, record = await town.call(
            WAIT,
            Say("Hi."),
            WAIT,
            Say("Tell me a story."),
            Interrupt(300, "Stop."),
            WAIT,
            HangUp(),
        )
        turns = await town.turns(record)
        assert len(turns) == 4
        journal = home.state_dir / "voice-calls" / "calls.jsonl"
        await until(lambda: journal.read_text().count(turns[-1].turn_id) > 0)
        of_store, of_file, shown = await anyio.to_thread.run_sync(
            home.run_all,
            ("latency", "--json"),
            ("latency", "--file", str(journal), "--json"),
            ("latency", "--last", "2"),
        )
        report = of_store.succeeded().document
        assert report == {
            "recordsScanned": 4,
            "failedTurns": 0,
            "fillers": sum(t.filler for t in turns),
            "turnLatency": expected([t.latency_ms for t in turns if t.latency_ms is not None]),
            "listenWait": expected([]),
            "agentFirstToken": expected(replied(turns, "agent_start", "first_token")),
            "speechFirstByte": expected(replied(turns, "first_token", "tts_first_byte")),
            "bargeInStop": expected([t.barge_in_stop_ms for t in turns if t.barge_in_stop_ms]),
        }
        assert report["turnLatency"]["count"] == 3
        assert report["bargeInStop"]["count"] == 1
        from_file = of_file.succeeded().document
        assert from_file["turnLatency"] == report["turnLatency"]
        assert from_file["listenWait"] == report["listenWait"]
        newest = await town.rpc("latency", last=1)
        assert newest["recordsScanned"] == 1
        assert newest["turnLatency"]["count"] == 1
        assert shown.text.startswith("2 turns\n")
        assert "turnLatency" in shown.text
        with pytest.raises(InvalidRequest, match="last"):
            await town.rpc("latency", last=0)


async def test_tail_shows_calls_as_they_change(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with open_office(home) as town:
        _, first = await town.call(WAIT, HangUp())
        journal = home.state_dir / "voice-calls" / "calls.jsonl"
        lines = [json.loads(line) for line in journal.read_text().splitlines()]

        def look() -> None:
            whole, plain = home.run_all(
                ("tail", "--no-follow", "--json", "--since", "2"),
                ("tail", "--no-follow", "--since", "1"),
            )
            assert json.loads(whole.out) == lines[-2:]
            assert [json.loads(line) for line in plain.out.splitlines()] == lines[-1:]

        await anyio.to_thread.run_sync(look)
        assert lines[-1]["callId"] == first.call_id
        assert lines[-1]["from"] == CALLER
        assert [entry["text"] for entry in lines[-1]["transcript"]] == [GREETING]

        with followed(home, "tail", "--since", "1", "--poll", "50") as process:
            [begin] = await anyio.to_thread.run_sync(read, process, 1)
            assert begin == lines[-1]
            # The journal is rotated while it is followed.
            await town.call(WAIT, HangUp(), number="+15550100002")
            journal.rename(journal.with_name("calls.jsonl.1"))
            whole = journal.with_name("calls.jsonl.1").read_text().splitlines()[len(lines) :]
            journal.write_text('{"after": "rotation"}\n')
            more = await anyio.to_thread.run_sync(read, process, len(whole) + 1)
        assert more == [*map(json.loads, whole), {"after": "rotation"}]
        assert len({entry["callId"] for entry in more[:-1]}) == 1


def test_tail_of_another_file(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.configure({})
    file = tmp_path / "other.jsonl"
    own, *named = home.run_all(
        ("tail", "--no-follow"),
        ("tail", "--no-follow", "--file", str(file)),
        ("latency", "--file", str(file)),
    )
    assert "no call was recorded yet" in own.one_sentence()
    for output in named:
        assert output.one_sentence() == f"{file} does not exist; name another with --file"
    with followed(home, "tail", "--poll", "50", "--file", str(file)) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"{file} does not exist yet: waiting for it\n"
        file.write_text('{"n": 0}\n')
        assert read(process, 1) == [{"n": 0}]
    file.write_text('{"n": 1}\nnot json\n{"n": 3}\n{"n": ')
    file.with_name("other.jsonl.1").write_text('{"n": 0}\n')
    ours = ("tail", "--no-follow", "--file", str(file))
    older, plain, document, broken, folder, negative = home.run_all(
        (*ours, "--since", "4"),
        (*ours, "--since", "2"),
        (*ours, "--since", "1", "--json"),
        (*ours, "--json"),
        ("tail", "--no-follow", "--file", str(tmp_path)),
        ("tail", "--since", "-1"),
    )
    assert older.out == '{"n": 0}\n{"n": 1}\nnot json\n{"n": 3}\n'
    assert plain.out == 'not json\n{"n": 3}\n'
    assert json.loads(document.out) == [{"n": 3}]
    assert "not JSON" in broken.one_sentence()
    assert "cannot be read" in folder.one_sentence()
    assert negative.status == 2


def test_the_log_names_the_phases_of_a_call_and_no_numbers(tmp_path: Path) -> None:
    home = Home(tmp_path)
    phone = {"serve": {"port": 0}, "outbound": {"notifyHangupDelaySec": 0}}
    home.configure({"plugins": {"entries": {"voice-call": {"config": phone}}}})
    assert "there is no log yet" in home.run("logs").one_sentence()
    number = "+15555550123"
    call = ("call", "--to", number, "--message", "Mind the gap.", "--mode", "notify", "--json")
    call_id = home.run(*call).document["callId"]
    whole, newest = home.run_all(("logs", "--json", "-n", "500"), ("logs", "-n", "3"))
    document = json.loads(whole.out)
    phases = [line["message"] for line in document["lines"] if call_id in line["message"]]
    lines = [phase.removeprefix(f"call {call_id}: ") for phase in phases]
    told = [name for line in lines for name in line.split("; ")]
    for phase in ("dialed", "answered", "greeting started"):
        assert phase in told
    assert told[-1].startswith("ended, hangup-bot")
    text = Path(document["file"]).read_text()
    assert number not in text
    assert "Mind the gap" not in text
    assert len(newest.text.splitlines()) == 3


async def test_only_the_newest_calls_are_kept(tmp_path: Path) -> None:
    seam = SystemSeam()
    async with (store := SqliteStore(tmp_path / "voice-calls", seam)).lifespan():
        for n, call_id in enumerate(("oldest", "older")):
            await store.commit(Commit(record=ended(call_id, seam.now_ms() - 1000 + n)))
    async with open_town(tmp_path, Puppet({}), config={"retention": {"calls": 1}}) as town:
        with anyio.fail_after(PATIENCE_S):
            while (await town.rpc("status", callId="oldest"))["found"]:
                await anyio.sleep(0.01)
        assert (await town.rpc("status", callId="older"))["found"] is True
        _, newest = await town.call(WAIT, HangUp())
        for call_id in ("older", newest.call_id):
            assert (await town.rpc("status", callId=call_id))["found"] is True
