"""The hooks: registering plugins, asking them, and observers that fail or block."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Generator
from typing import Any

import pluggy
import pytest

from voicecall import ProviderInfo, ProviderKind, hookimpl, hookspecs
from voicecall.events import Ringing
from voicecall.hooks import HOOK_OF_KIND, Hooks
from voicecall.hosting import PluginInfo, SetupCheck
from voicecall.machine import CallPolicy, open_inbound
from voicecall.model import MediaPath

pytestmark = pytest.mark.unit

EVENT = Ringing(at=1, key="k", provider_call_id="P1")
RECORD = open_inbound(
    call_id="c",
    provider="p",
    event=EVENT,
    media=MediaPath.NATIVE,
    greeting=None,
    policy=CallPolicy(),
)


class Speech:
    @hookimpl
    def voicecall_tts_providers(self) -> list[ProviderInfo]:
        info = ProviderInfo(
            kind=ProviderKind.TTS, id="a", label="A", factory=lambda config, context: config
        )
        return [info]


class Everything(Speech):
    def __init__(self) -> None:
        self.seen: list[object] = []

    @hookimpl
    def voicecall_plugin_info(self) -> PluginInfo:
        return PluginInfo("every", "Everything")

    @hookimpl
    def voicecall_services(self, host: Any) -> list[Any]:
        return [host]

    @hookimpl
    def voicecall_setup_checks(self) -> list[SetupCheck]:
        return [SetupCheck("one", True, "fine")]

    @hookimpl
    def voicecall_commands(self, app: Any) -> None:
        app.append("command")

    @hookimpl
    def voicecall_call_event(self, event: Any) -> None:
        self.seen.append(event)

    @hookimpl
    def voicecall_call_ended(self, record: Any) -> None:
        self.seen.append(record)


class Clumsy:
    @hookimpl
    def voicecall_call_event(self) -> None:
        raise RuntimeError("clumsy")


def test_every_kind_has_its_hook() -> None:
    assert set(HOOK_OF_KIND) == set(ProviderKind)
    assert len(set(HOOK_OF_KIND.values())) == len(ProviderKind)
    assert all(callable(getattr(hookspecs, name)) for name in HOOK_OF_KIND.values())


def test_every_hook_is_told_in_one_sentence() -> None:
    hooks = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("voicecall_")}
    assert set(HOOK_OF_KIND.values()) < set(hooks)
    for name, spec in hooks.items():
        text = (spec.__doc__ or "").strip()
        assert text.endswith("."), name
        assert text.count(".") <= 2, name


def test_hooks_are_asked_of_one_plugin_at_a_time() -> None:
    hooks = Hooks()
    speech, everything = Speech(), Everything()
    hooks.register(speech, "speech")
    hooks.register(everything, "everything")
    hooks.register(everything, "again")
    assert [info.id for info in hooks.provider_infos(ProviderKind.TTS, speech)] == ["a"]
    assert hooks.provider_infos(ProviderKind.STORE, everything) == []
    assert hooks.plugin_info(speech) is None
    assert hooks.plugin_info(everything) == PluginInfo("every", "Everything")
    host: Any = object()
    context: Any = object()
    assert hooks.services(everything, host) == [host]
    assert [check.id for check in hooks.setup_checks(everything, context)] == ["one"]
    app: list[str] = []
    hooks.commands(everything, app)
    hooks.commands(speech, app)
    assert app == ["command"]


def test_a_clumsy_observer_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks()
    everything = Everything()
    hooks.register(everything, "everything")
    hooks.register(Clumsy(), "clumsy")
    with caplog.at_level(logging.ERROR, "voicecall.plugins"):
        hooks.call_event(RECORD, EVENT)
        hooks.call_ended(RECORD)
    assert everything.seen == [EVENT, RECORD]
    assert "plugin clumsy failed in voicecall_call_event" in caplog.text


def test_an_observer_that_blocks_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    takes_s = iter((0.05, 1.2, 1.2, 2.0, 0.2))

    class Slow:
        @hookimpl
        def voicecall_call_event(self) -> None:
            nonlocal now
            now += next(takes_s)

    hooks = Hooks(lambda: now)
    hooks.register(Slow(), "slow")
    hooks.register(Everything(), "quick")
    told = []
    for pause_s in (0.0, 0.0, 50.0, 10.0, 0.0):
        caplog.clear()
        hooks.call_event(RECORD, EVENT)
        told.append(caplog.messages)
        now += pause_s
    text = "plugin slow blocked all calls for {} s in voicecall_call_event; {}"
    rest = "hooks must not block"
    assert told == [[], [text.format(1.2, rest)], [], [], [text.format(0.2, rest)]]


def test_a_hook_that_does_not_exist_is_refused() -> None:
    class Mistaken:
        @hookimpl
        def voicecall_tts_provider(self) -> None:
            return None

    with pytest.raises(Exception, match="voicecall_tts_provider"):
        Hooks().register(Mistaken(), "mistaken")


@pytest.mark.parametrize("hook", ["voicecall_tts_provider", "voicecall_tts_providers"])
def test_a_plugin_with_a_wrong_hook_is_not_kept(hook: str) -> None:
    def wanting(this: object, surplus: Any) -> None:
        return None

    hooks = Hooks()
    mistaken = type("Mistaken", (), {hook: hookimpl(wanting)})()
    for _ in range(2):
        with pytest.raises(pluggy.PluginValidationError, match=hook):
            hooks.register(mistaken, "mistaken")
    speech = Speech()
    hooks.register(speech, "speech")
    assert [info.id for info in hooks.provider_infos(ProviderKind.TTS, speech)] == ["a"]


def test_a_hook_without_its_mark_is_refused() -> None:
    class Unmarked(Speech):
        def voicecall_services(self, host: Any) -> list[Any]:
            return [host]

    hooks = Hooks()
    for _ in range(2):
        with pytest.raises(pluggy.PluginValidationError, match="voicecall_services is not marked"):
            hooks.register(Unmarked(), "unmarked")


async def _later(this: object) -> None:
    return None


async def _bit_by_bit(this: object) -> AsyncIterator[None]:
    yield None


def _around(this: object) -> Generator[None]:
    return (yield)


@pytest.mark.parametrize(
    ("implementation", "words"),
    [
        (hookimpl(_later), "voicecall_call_ended is async"),
        (hookimpl(_bit_by_bit), "voicecall_call_ended is async"),
        (hookimpl(_around, wrapper=True), "voicecall_call_ended is a wrapper"),
        (hookimpl(_around, hookwrapper=True), "voicecall_call_ended is a wrapper"),
    ],
)
def test_a_hook_that_would_have_no_effect_is_refused(implementation: Any, words: str) -> None:
    hooks = Hooks()
    idle = type("Idle", (), {"voicecall_call_ended": implementation})()
    everything = Everything()
    hooks.register(everything, "everything")
    with pytest.raises(pluggy.PluginValidationError, match=words):
        hooks.register(idle, "idle")
    hooks.call_ended(RECORD)
    assert everything.seen == [RECORD]
