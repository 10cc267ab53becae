"""What one call runs with: root and route merged, voices, models, and which providers are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.configuring import ConfigModel
from voicecall.errors import ConfigError, InvalidRequest, PluginError
from voicecall.model import CallMode, CallRecord, CallState, Direction, MediaPath
from voicecall.providers import Provider, ProviderContext, ProviderInfo, ProviderKind
from voicecall.registry import Registry
from voicecall.seam import SystemSeam
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.agentturn import TurnInput, make_turn
from voicecall_calls.settings import Providers, SettingsBook, effective
from voicecall_calls.wiring import Wiring, resolve
from voicecall_gateway.host import provider_context
from voicecall_testing.offering import offered

from .phone_registry import INFOS, KEYS, info

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

NUMBER = "+15550100021"


class Made(Provider):
    """A provider that knows what it was made from."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.open = False

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.open = True
        yield
        self.open = False


def make(config: Any, context: ProviderContext) -> Made:
    return Made(config)


def registry(*more: ProviderInfo) -> Registry:
    """The scripted providers, made as :class:`Made`, and ``more`` as they are."""
    infos = [*(replace(one, factory=make) for one in INFOS), *more]
    return Registry(entries=[], extra=[offered(one) for one in infos])


REGISTRY = registry()


def wire(
    agents: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = KEYS,
    more: Sequence[ProviderInfo] = (),
    **config: Any,
) -> Wiring:
    return resolve(
        VoiceCallConfig.model_validate(config),
        registry=registry(*more) if more else REGISTRY,
        environ=environ,
        agents=agents or {},
        tts={},
    )


def streamed(voice: str = "anna", **config: Any) -> dict[str, Any]:
    tts = {"provider": "voice", "providers": {"voice": {"voice": voice}}}
    return {"streaming": {"enabled": True, "provider": "ears"}, "tts": tts, **config}


def record(route_key: str | None = None, agent_id: str = "main") -> CallRecord:
    return CallRecord(
        call_id="call",
        provider="mock",
        direction=Direction.INBOUND,
        mode=CallMode.CONVERSATION,
        media=MediaPath.STREAM,
        state=CallState.ACTIVE,
        from_number="+15550100001",
        to_number=NUMBER,
        session_key="agent:main:voice",
        started_at=1,
        agent_id=agent_id,
        route_key=route_key,
    )


@asynccontextmanager
async def providers(wiring: Wiring) -> AsyncIterator[Providers]:
    context = provider_context(
        registry=REGISTRY, environ={}, state_dir=Path(), seam=SystemSeam(), path="x"
    )
    async with AsyncExitStack() as stack:
        made = Providers(stack, context)
        await made.need(wiring)
        yield made


def test_a_route_is_laid_over_the_root() -> None:
    route = {"inboundGreeting": "Sales.", "responseTimeoutMs": 500, "tts": {"provider": "voice"}}
    config = VoiceCallConfig.model_validate(
        {"responseSystemPrompt": "Help.", "numbers": {NUMBER: route}}
    )
    routed = effective(config, NUMBER)
    assert (routed.inbound_greeting, routed.response_timeout_ms) == ("Sales.", 500)
    assert (routed.response_system_prompt, routed.tts) == ("Help.", config.tts)
    assert effective(config, None) is effective(config, "+15550100022") is config


async def test_a_voice_is_chosen_for_each_number_of_one_provider() -> None:
    route = {"tts": {"providers": {"voice": {"voice": "sue"}}}}
    wiring = wire(**streamed(numbers={NUMBER: route}))
    async with providers(wiring) as made:
        book = SettingsBook(wiring, made)
        usual, routed = book.for_call(record()), book.for_call(record(NUMBER))
        assert (usual.voice, routed.voice) == ("anna", "sue")
        assert usual.speech is not None
        assert routed.speech is not None
        (own,), (other,) = usual.speech.members, routed.speech.members
        assert (own.voice, other.voice) == ("anna", "sue")
        assert own.provider is other.provider
        speech: Any = own.provider
        assert speech.open
        # A number that is no longer in the configuration is like any other.
        assert book.for_call(record("+15550100099")).voice == "anna"
        # The calls of a route share its configuration.
        assert book.for_call(record()).config is usual.config
        assert book.for_call(record(NUMBER)).config is routed.config
        assert (routed.config.tts, usual.config.tts) == (
            wiring.speech[NUMBER].tts,
            wiring.speech[None].tts,
        )
    assert not speech.open


async def test_what_a_change_needs_anew() -> None:
    wiring = wire(**streamed())
    async with providers(wiring) as made:
        assert made.has(wire(**streamed("bert")))
        assert made.has(wire(**streamed(), agents={"defaults": {"model": "m/two"}}))
        block = {"provider": "voice", "providers": {"voice": {"apiKey": "another"}}}
        assert not made.has(wire(**streamed(tts=block)))
        keyed = {"defaults": {"backend": "model"}, "backends": {"model": {"apiKey": "k"}}}
        assert not made.has(wire(agents=keyed, **streamed()))


async def test_a_number_whose_voice_cannot_be_had_speaks_with_that_of_the_others() -> None:
    route = {"tts": {"provider": "nobody", "providers": {"nobody": {"voice": "sue"}}}}
    wiring = wire(**streamed(numbers={NUMBER: route}))
    assert any("nobody" in note for note in wiring.notes)
    assert wiring.media is MediaPath.STREAM
    async with providers(wiring) as made:
        settings = SettingsBook(wiring, made).for_call(record(NUMBER))
        assert settings.voice == "anna"
        assert settings.speech is not None


async def test_a_voice_that_would_take_over_may_be_broken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(config: Any, context: ProviderContext) -> Any:
        raise PluginError("a library is missing")

    more = [
        replace(info(ProviderKind.TTS, "broken", auto_select_order=110), factory=broken),
        replace(info(ProviderKind.TTS, "spare", auto_select_order=120), factory=make),
    ]
    block = {"voice": {"voice": "anna"}, "spare": {"voice": "bert"}}
    config = streamed(tts={"provider": "voice", "timeoutMs": 3000, "providers": block})
    wiring = wire(more=more, **config)
    assert wiring.speech[None].labels == ["Voice", "Broken", "Spare"]
    async with providers(wiring) as made:
        settings = SettingsBook(wiring, made).for_call(record())
        assert settings.speech is not None
        voices = [(one.id, one.voice) for one in settings.speech.members]
        assert voices == [("voice", "anna"), ("spare", "bert")]
        assert (settings.speech.timeout_s, settings.config.tts.timeout_ms) == (3.0, 3000)
        # All calls know who failed.
        again = SettingsBook(wiring, made).for_call(record()).speech
        assert again is not None
        assert again.members[0].rest is settings.speech.members[0].rest
        again.members[1].rest.failed("call-1", "ProviderTimeout")
        (failure,) = made.troubles.report()["failures"]
        assert (failure["kind"], failure["provider"]) == ("tts", "spare")
        settings.speech.members[1].rest.spoke()
        (failure,) = made.troubles.report()["failures"]
        assert (failure["callId"], failure["inARow"]) == ("call-1", 0)
        assert made.has(wiring)
        first = wire(more=more, **streamed(tts={"provider": "broken", "providers": block}))
        assert not made.has(first)
        with pytest.raises(PluginError, match="a library is missing"):
            await made.need(first)
    assert "is not used: a library is missing" in caplog.text


class Closed(Made):
    """A provider that cannot be opened."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._fail)
            await anyio.sleep_forever()
            yield

    async def _fail(self) -> None:
        raise RuntimeError("no room")


def missing(config: Any, context: ProviderContext) -> Any:
    raise ModuleNotFoundError("No module named 'vendor'")


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (missing, "ModuleNotFoundError: No module named 'vendor'"),
        (lambda config, context: Closed(config), "RuntimeError: no room"),
    ],
)
async def test_whatever_a_voice_raises_only_the_first_one_is_needed(
    factory: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    more = [replace(info(ProviderKind.TTS, "broken", auto_select_order=110), factory=factory)]
    wiring = wire(more=more, **streamed())
    async with providers(wiring) as made:
        speech = SettingsBook(wiring, made).for_call(record()).speech
        assert speech is not None
        assert [one.id for one in speech.members] == ["voice"]
        with pytest.raises(PluginError, match=f"tts provider 'broken' cannot be used: {words}"):
            await made.need(wire(more=more, **streamed(tts={"provider": "broken"})))
    left_out = "the fallback speech provider broken is not used: "
    assert f"{left_out}the tts provider 'broken' cannot be used: {words}\n" in caplog.text


class Homeless(Closed):
    async def _fail(self) -> None:
        raise ConfigError("the folder of its voices is not there")


async def test_an_error_of_our_own_is_told_without_the_group_of_its_task() -> None:
    broken = info(ProviderKind.TTS, "broken", auto_select_order=110)
    more = [replace(broken, factory=lambda config, context: Homeless(config))]
    async with providers(wire(more=more, **streamed())) as made:
        with pytest.raises(ConfigError, match=r"^the folder of its voices is not there$"):
            await made.need(wire(more=more, **streamed(tts={"provider": "broken"})))


async def test_the_carriers_own_voice_is_that_of_the_number_too() -> None:
    tts = {"provider": "any", "providers": {"any": {"voice": "anna"}}}
    route = {"tts": {"providers": {"any": {"voice": "sue"}}}}
    wiring = wire(tts=tts, numbers={NUMBER: route})
    async with providers(wiring) as made:
        book = SettingsBook(wiring, made)
        found = [(s.voice, s.speech) for s in map(book.for_call, (record(), record(NUMBER)))]
        assert found == [("anna", None), ("sue", None)]


async def test_model_and_agent_of_a_call() -> None:
    agents = {
        "list": [{"id": "main", "default": True, "model": "m/one"}, {"id": "sales"}],
        "defaults": {"model": "m/default"},
    }
    numbers = {NUMBER: {"agentId": "Sales", "responseModel": "m/fast"}}
    wiring = wire(agents, numbers=numbers, responseTimeoutMs=700)
    async with providers(wiring) as made:
        book = SettingsBook(wiring, made)
        usual = book.for_call(record()).brain
        assert (usual.agent_id, usual.model, usual.timeout_s) == ("main", "m/one", 0.7)
        routed = book.for_call(record(NUMBER, "sales")).brain
        assert (routed.agent_id, routed.model) == ("sales", "m/fast")
        # The agent of a call from before a change is gone: the default one takes its place.
        assert book.for_call(record(agent_id="gone")).brain.agent_id == "main"


class ThinkerConfig(ConfigModel):
    model: str


async def test_a_backend_without_a_model_has_that_of_the_agents() -> None:
    thinker = replace(
        info(ProviderKind.AGENT, "thinker", auto_select_order=1),
        factory=make,
        config_model=lambda: ThinkerConfig,
        required=("model",),
    )

    def needing(model: Any, **backends: Any) -> Wiring:
        defaults = {"backend": "thinker", "model": model}
        return wire({"defaults": defaults, "backends": backends}, more=[thinker])

    for given in ("m/one", {"primary": " m/one "}):
        wiring = needing(given)
        async with providers(wiring) as made:
            brain = SettingsBook(wiring, made).for_call(record()).brain
            backend: Any = brain.backend
            assert (backend.config.model, brain.model) == ("m/one", "m/one")
            # It may be that the key of one vendor is another one's then.
            assert not made.has(needing("m/two"))
    own = needing("m/one", thinker={"model": "m/own"})
    assert own.backends["main"].config.model == "m/own"
    missing = ["Thinker is not configured: agents.backends.thinker.model"]
    assert needing(None).problems == missing
    assert needing("m/one", thinker={"model": "${NOT_SET}"}).problems == missing
    # A model alone chooses nobody.
    unnamed = wire({"defaults": {"model": "m/one"}}, more=[thinker])
    assert unnamed.backends["main"].info is not None
    assert unnamed.backends["main"].info.id == "helper"


async def test_what_takes_over_and_what_may_be_used_is_the_agents() -> None:
    agents: dict[str, Any] = {
        "list": [
            {"id": "main", "default": True, "model": "m/one"},
            {"id": "sales", "model": {"fallbacks": []}, "tools": {"allow": ["read"]}},
        ],
        "defaults": {
            "model": {"primary": "m/default", "fallbacks": ["m/two", "m/three"]},
            "tools": {"allow": ["read", "order"]},
        },
    }
    wiring = wire(agents)
    async with providers(wiring) as made:
        book = SettingsBook(wiring, made)
        main = book.for_call(record(agent_id="main")).brain
        sales = book.for_call(record(agent_id="sales")).brain
    assert (main.model, main.fallback_models) == ("m/one", ("m/two", "m/three"))
    assert main.allowed_tools == ("read", "order")
    assert (sales.model, sales.fallback_models) == ("m/default", ())
    assert sales.allowed_tools == ("read",)
    turn = make_turn(record(agent_id="sales"), sales, TurnInput("Hi."), "t")
    assert (turn.fallback_models, turn.allowed_tools) == ((), ("read",))
    assert make_turn(record(), main, TurnInput("Hi."), "t").fallback_models == ("m/two", "m/three")


async def test_an_agent_is_told_its_name() -> None:
    agents = {
        "list": [{"id": "main"}, {"id": "desk", "identity": {"name": " Mira ", "emoji": "x"}}]
    }
    wiring = wire(agents)
    async with providers(wiring) as made:
        book = SettingsBook(wiring, made)
        brains = {name: book.for_call(record(agent_id=name)).brain for name in ("main", "desk")}
    turns = {name: make_turn(record(), b, TurnInput("Hi."), "t") for name, b in brains.items()}
    assert (turns["main"].agent_name, turns["desk"].agent_name) == (None, "Mira")


LISTED = {
    "list": [
        {"id": "desk", "default": True, "backend": "helper"},
        {"id": "Sales", "backend": "helper"},
        {"id": "keyless", "backend": "model"},
        {"id": "wrong", "backend": "typo"},
    ]
}


async def test_a_call_may_be_placed_as_any_agent_of_the_list() -> None:
    wiring = wire(LISTED)
    assert wiring.problems == []
    async with providers(wiring) as made:
        book = SettingsBook(wiring, made)
        assert book.dialling_agent(None) == "desk"
        assert book.dialling_agent(" SALES ") == "sales"
        assert book.for_call(record(agent_id="sales")).brain.agent_id == "sales"
        for asked, words in (
            ("boss", r"'boss' cannot take the call: no such agent .*desk, keyless, sales, wrong"),
            ("keyless", r"agents\.backends\.model\.apiKey \(or set MODEL_KEY\)"),
            ("wrong", "no voicecall.agent provider 'typo' is installed"),
        ):
            with pytest.raises(InvalidRequest, match=words):
                book.dialling_agent(asked)


async def test_without_a_list_there_is_one_agent() -> None:
    wiring = wire(agentId="desk")
    async with providers(wiring) as made:
        book = SettingsBook(wiring, made)
        assert book.dialling_agent("desk") == book.dialling_agent(None) == "desk"
        with pytest.raises(InvalidRequest, match="there are: desk"):
            book.dialling_agent("main")


@pytest.mark.parametrize("chosen", [False, True])
async def test_a_backend_that_fails_keeps_the_phone_down_only_where_it_is_needed(
    chosen: bool,
) -> None:
    def fail(config: Any, context: Any) -> Any:
        raise PluginError("its extra is missing")

    broken = replace(next(i for i in INFOS if i.id == "model"), factory=fail, required=())
    extra = [
        offered(replace(i, factory=lambda config, context: Made(config)))
        for i in INFOS
        if i.id != "model"
    ]
    registry = Registry(entries=[], extra=[*extra, offered(broken)])

    def wired(agent_id: str | None) -> Wiring:
        config = VoiceCallConfig(agent_id=agent_id)
        return resolve(config, registry=registry, environ=KEYS, agents=LISTED, tts={})

    wiring = wired("keyless" if chosen else None)
    if chosen:
        with pytest.raises(PluginError, match="its extra is missing"):
            async with providers(wiring):
                pass
        return
    async with providers(wiring) as made:
        assert made.has(wiring)
        book = SettingsBook(wiring, made)
        with pytest.raises(InvalidRequest, match="'keyless' cannot take the call: its extra"):
            book.dialling_agent("keyless")
        assert book.for_call(record(agent_id="keyless")).brain.agent_id == "desk"
        # If it becomes the default, only a restart can make it.
        assert not made.has(wired("keyless"))
