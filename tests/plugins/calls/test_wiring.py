"""Which providers a configuration selects, and its problems and notes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

import voicecall_mock.plugin
from voicecall import ProviderKind
from voicecall.errors import ConfigError
from voicecall.model import MediaPath
from voicecall.registry import Registry
from voicecall.selection import Selected, Selection
from voicecall.telephony import StreamPoint, TelephonyCapabilities
from voicecall_calls.config import CONFIG_PATH, VoiceCallConfig
from voicecall_calls.exposure import TailscaleConfig, TunnelConfig, is_public_url, tunnel_block
from voicecall_calls.knownsecrets import known_secrets
from voicecall_calls.wiring import Wiring, require, resolve
from voicecall_mock.config import MockConfig
from voicecall_testing.fakes import NATIVE
from voicecall_testing.offering import offered
from voicecall_testing.tunnels import ScriptedTunnel, offered_tunnel

from .phone_registry import INFOS, KEYS, info, registry, wire

pytestmark = pytest.mark.unit

STREAM = {"streaming": {"enabled": True}}
[MOCK] = voicecall_mock.plugin.voicecall_telephony_providers()


def test_an_empty_configuration_makes_a_phone() -> None:
    wiring = wire()
    assert wiring.problems == []
    assert wiring.media is MediaPath.NATIVE
    carrier, _ = require(wiring.carrier)
    assert carrier.id == "mock"
    assert wiring.agent_id == "main"
    backend, _ = require(wiring.backends["main"])
    assert backend.id == "helper"


def test_a_carrier_that_is_not_installed_is_a_problem_with_a_suggestion() -> None:
    wiring = wire(provider="mok")
    assert "mock" in wiring.problems[0]
    with pytest.raises(ConfigError):
        require(wiring.carrier)


def test_a_carrier_without_its_key_names_path_and_variable() -> None:
    wiring = wire(provider="public", fromNumber="+15550000000")
    (problem,) = wiring.problems
    assert "plugins.entries.voice-call.config.public.apiKey" in problem
    assert "PUBLIC_KEY" in problem


def test_a_real_carrier_needs_a_number_of_ours() -> None:
    wiring = wire(provider="public", public={"apiKey": "k"})
    assert wiring.problems == [
        "plugins.entries.voice-call.config.fromNumber is required by Public (or set PUBLIC_NUMBER)"
    ]


def test_all_that_a_carrier_lacks_is_told_at_once() -> None:
    key, tunnel, number = wire(provider="public", tunnel={"provider": "hole"}).problems
    assert "config.public.apiKey (or set PUBLIC_KEY)" in key
    assert number.endswith("config.fromNumber is required by Public (or set PUBLIC_NUMBER)")
    assert "no tunnel 'hole' is installed" in tunnel


def test_streaming_takes_the_first_configured_providers() -> None:
    wiring = wire(environ=KEYS, **STREAM)
    assert wiring.media is MediaPath.STREAM
    assert wiring.transcription is not None
    assert require(wiring.transcription)[0].id == "ears"
    other = wire(environ={"OTHER_KEY": "k", "VOICE_KEY": "k"}, **STREAM)
    assert other.transcription is not None
    assert require(other.transcription)[0].id == "other"


@pytest.mark.parametrize(
    ("without", "environ", "word"),
    [
        ((ProviderKind.TRANSCRIPTION,), KEYS, "no transcription provider is installed"),
        ((ProviderKind.TTS,), KEYS, "no tts provider is installed"),
        ((), {"VOICE_KEY": "k"}, "EARS_KEY"),
        ((), {"EARS_KEY": "k"}, "VOICE_KEY"),
    ],
)
def test_streaming_stays_off_with_a_note(
    without: tuple[ProviderKind, ...], environ: dict[str, str], word: str
) -> None:
    wiring = wire(*without, environ=environ, **STREAM)
    assert wiring.media is MediaPath.NATIVE
    assert wiring.problems == []
    assert any(word in note and "streaming stays off" in note for note in wiring.notes)


def test_what_steers_interruptions_has_no_effect_on_turn_based_calls() -> None:
    barge_in = {"bargeIn": {"enabled": False}}
    (note,) = wire(environ=KEYS, **barge_in).notes
    why = "on turn-based calls the carrier does the listening"
    assert note.endswith(f"bargeIn has no effect: {why}")
    assert not any("bargeIn" in note for note in wire(environ=KEYS, **STREAM, **barge_in).notes)
    assert wire(environ=KEYS).notes == []


def test_patience_with_silence_has_no_effect_on_calls_of_a_voice_model() -> None:
    silence: dict[str, Any] = {"silence": {"promptAfterMs": 5000}}
    realtime: dict[str, Any] = {"realtime": {"enabled": True}, "inboundPolicy": "open"}
    (note,) = wire(environ=KEYS, **realtime, **silence).notes
    assert note.endswith("silence has no effect: the voice model deals with silent callers")
    assert wire(environ=KEYS, **silence).notes == []


def test_streaming_with_a_provider_that_is_not_installed() -> None:
    streaming = {"streaming": {"enabled": True, "provider": "nobody"}}
    wiring = wire(environ=KEYS, **streaming)
    assert wiring.media is MediaPath.NATIVE
    assert any("nobody" in note for note in wiring.notes)


def test_a_carrier_without_media_streams_cannot_stream() -> None:
    for mode in ("streaming", "realtime"):
        wiring = wire(provider="plain", environ=KEYS, **{mode: {"enabled": True}})
        assert any(f"{mode}.enabled: Plain has no media streams" in p for p in wiring.problems)


def test_the_block_of_a_carrier_that_is_named_by_an_alias_is_not_said_to_be_ignored() -> None:
    again = info(ProviderKind.TELEPHONY, "again", capabilities=NATIVE, aliases=("nick",))
    values = {"provider": "nick", "nick": {"voice": "anna"}, "nock": {}}
    wiring = resolve(
        VoiceCallConfig.model_validate(values),
        registry=registry(more=[again]),
        environ={},
        agents={},
        tts={},
    )
    carrier, block = require(wiring.carrier)
    assert (carrier.id, block.voice) == ("again", "anna")
    [ignored] = [note for note in wiring.notes if "is ignored" in note]
    assert ignored.startswith("plugins.entries.voice-call.config.nock is ignored: no such carrier")


def test_a_carrier_that_cannot_speak_or_listen_by_itself_needs_media_streams() -> None:
    streams = TelephonyCapabilities(
        stream=frozenset({StreamPoint.COMMAND}), public_url=False, from_number_required=False
    )
    dumb = info(ProviderKind.TELEPHONY, "dumb", capabilities=streams)
    deaf = info(ProviderKind.TELEPHONY, "deaf", capabilities=replace(streams, native_speech=True))

    def wired(environ: dict[str, str], **config: Any) -> Wiring:
        installed = registry(more=[dumb, deaf])
        values = VoiceCallConfig.model_validate(config)
        return resolve(values, registry=installed, environ=environ, agents={}, tts={})

    [problem] = wired({}, provider="dumb").problems
    assert problem.startswith("Dumb has no voice of its own, and calls need media streams (")
    alone = wired({}, provider="deaf")
    assert alone.problems == []
    assert any("Deaf has no recogniser of its own" in note for note in alone.notes)
    for name in ("dumb", "deaf"):
        streamed = wired(KEYS, provider=name, **STREAM)
        assert streamed.problems == []
        assert not any("of its own" in note for note in streamed.notes)


def test_realtime_takes_the_place_of_transcription_and_speech() -> None:
    realtime: dict[str, Any] = {"realtime": {"enabled": True}, "inboundPolicy": "open"}
    assert wire(environ=KEYS, **realtime).media is MediaPath.REALTIME
    off = wire(**realtime)
    assert off.media is MediaPath.NATIVE
    assert any("realtime stays off" in note for note in off.notes)


def test_realtime_without_inbound_calls_is_noted() -> None:
    wiring = wire(environ=KEYS, realtime={"enabled": True})
    assert wiring.media is MediaPath.REALTIME
    assert any("outbound calls only" in note for note in wiring.notes)


def test_plugin_speech_overlays_core_speech() -> None:
    wiring = wire(
        environ=KEYS,
        core_tts={
            "provider": "voice",
            "timeoutMs": 4000,
            "providers": {"voice": {"voice": "anna"}},
        },
        streaming={"enabled": True},
        tts={"timeoutMs": 6000},
    )
    choice = wiring.speech[None]
    assert choice.tts.timeout_ms == 6000
    assert choice.tts.providers["voice"]["voice"] == "anna"
    assert require(choice.selected)[0].id == "voice"


def test_a_number_has_a_voice_of_its_own() -> None:
    number = "+15550001111"
    wiring = wire(
        environ=KEYS,
        streaming={"enabled": True},
        tts={"provider": "voice", "providers": {"voice": {"voice": "anna"}}},
        numbers={number: {"tts": {"providers": {"voice": {"voice": "bert"}}}}},
    )
    assert wiring.speech[None].tts.providers["voice"]["voice"] == "anna"
    assert wiring.speech[number].tts.providers["voice"]["voice"] == "bert"
    assert wiring.speech[number].tts.provider == "voice"


def test_keys_that_could_poison_a_merge_are_left_out() -> None:
    blocks = {"voice": {"__proto__": {"x": 1}, "voice": "anna"}, "constructor": {"x": 1}}
    merged = wire(environ=KEYS, tts={"providers": blocks}, **STREAM).speech[None].tts
    assert merged.providers == {"voice": {"voice": "anna"}}


def test_the_default_agent_and_its_backend() -> None:
    agents = {
        "defaults": {"backend": "helper"},
        "list": [{"id": "sales"}, {"id": "Support", "default": True, "backend": "model"}],
        "backends": {"model": {"apiKey": "k"}},
    }
    wiring = wire(agents=agents)
    assert wiring.agent_id == "support"
    assert require(wiring.backends["support"])[0].id == "model"
    # Only an agent that answers calls must be available.
    assert wiring.optional == {"sales"}
    routed = wire(agents=agents, agentId="sales", numbers={"+15550001111": {"agentId": "support"}})
    assert routed.agent_id == "sales"
    assert set(routed.backends) == {"sales", "support"}
    with pytest.raises(ConfigError, match=r"no agent 'night' in agents\.list"):
        wire(agents=agents, agentId="night")


def test_a_backend_without_its_key_is_a_problem() -> None:
    (problem,) = wire(agents={"defaults": {"backend": "model"}}).problems
    assert "agents.backends" in problem
    assert "MODEL_KEY" in problem


def test_what_is_passed_over_or_useless_is_noted() -> None:
    wiring = wire(inboundPolicy="allowlist", elsewhere={"accountSid": "x"})
    assert any("elsewhere is ignored" in note for note in wiring.notes)
    assert any("allowFrom is empty" in note for note in wiring.notes)
    listed = wire(inboundPolicy="allowlist", allowFrom=["+15550001111"])
    assert listed.notes == []
    (unused,) = wire(allowFrom=["+15550001111"]).notes
    assert "allowFrom has no effect: inboundPolicy is disabled" in unused
    assert wire(inboundPolicy="open", allowFrom=["+15550001111"]).notes == []
    (misspelt,) = wire(pubic={"apiKey": "k"}).notes
    assert misspelt.endswith("no such carrier is installed; did you mean 'public'?")


@pytest.mark.parametrize("block", ["reports", "live", "callbacks", "voicemail"])
def test_blocks_of_newer_files_are_not_taken_for_carriers(block: str) -> None:
    blocks: dict[str, Any] = {block: {"enabled": True}}
    wiring = wire(**blocks)
    assert wiring.problems == []
    assert wiring.notes == [
        f"plugins.entries.voice-call.config.{block} is ignored: this is not supported yet"
    ]


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://phone.example.com/voice", True),
        ("https://8.8.8.8/voice", True),
        ("https://[2001:4860:4860::8888]/x", True),
        ("http://localhost:3334/x", False),
        ("http://box.local/x", False),
        ("http://gateway.internal/x", False),
        ("http://printer/x", False),
        ("http://127.0.0.1:3334/x", False),
        ("http://10.1.2.3/x", False),
        ("http://192.168.1.2/x", False),
        ("http://[::1]/x", False),
        ("http://[::ffff:10.1.2.3]/x", False),
        ("http://169.254.1.1/x", False),
        ("nonsense", False),
        ("https://phone.example.com./x", True),
        ("https://0x7f.example.com/x", True),
        ("https://localhost/x", False),
        ("https://localhost./x", False),
        ("https://box.local./x", False),
        ("https://printer./x", False),
        ("https://127.0.0.1./x", False),
        ("https://127.1/x", False),
        ("https://0x7f.1/x", False),
        ("https://127.0.0.0x1/x", False),
        ("https://0X7F000001/x", False),
        ("https://2130706433/x", False),
        ("https://[::1]/x", False),
        ("https://[::ffff:127.0.0.1]/x", False),
        ("https://[::ffff:10.1.2.3]/x", False),
        ("https://[fd00::1]/x", False),
    ],
)
def test_which_urls_a_carrier_may_reach(url: str, public: bool) -> None:
    assert is_public_url(url) is public


PUBLIC: dict[str, Any] = {
    "provider": "public",
    "public": {"apiKey": "k"},
    "fromNumber": "+15550000000",
}


@pytest.mark.parametrize(
    ("asked", "key", "tunnel"),
    [
        ({"tunnel": {"provider": "burrow"}}, "tunnel.provider", "burrow"),
        ({"tailscale": {"mode": "serve"}}, "tailscale.mode", "tailscale-serve"),
        (
            {"tunnel": {"provider": "burrow"}, "tailscale": {"mode": "funnel"}},
            "tunnel.provider",
            "burrow",
        ),
    ],
)
def test_a_tunnel_that_is_not_installed(asked: dict[str, Any], key: str, tunnel: str) -> None:
    text = f"plugins.entries.voice-call.config.{key}: no tunnel '{tunnel}' is installed"
    [problem] = wire(**PUBLIC, **asked).problems
    assert problem.startswith(text)
    assert "publicUrl" in problem
    reachable = wire(**PUBLIC, **asked, publicUrl="https://phone.example.com/voice/webhook")
    local = wire(**asked)
    for wiring in (reachable, local):
        assert wiring.problems == []
        assert any(note.startswith(text) for note in wiring.notes)
    # An installed package is not asked for.
    assert f"{text}; publicUrl is used" in reachable.notes


def tunnelled(**config: Any) -> Wiring:
    extra = [offered_tunnel(ScriptedTunnel(), name) for name in ("burrow", "burrow-net")]
    whole = Registry(entries=[], extra=[*map(offered, INFOS), *extra])
    return resolve(
        VoiceCallConfig.model_validate(config), registry=whole, environ={}, agents={}, tts={}
    )


def test_a_tunnel_stands_in_for_a_public_url() -> None:
    for tunnel in ("burrow", "burrow-net"):
        wiring = tunnelled(**PUBLIC, tunnel={"provider": tunnel})
        assert (wiring.problems, wiring.notes) == ([], [])
        assert wiring.tunnel is not None
        assert require(wiring.tunnel)[0].id == tunnel
    named = tunnelled(
        **PUBLIC, tunnel={"provider": "burrow"}, publicUrl="https://phone.example.com/voice/webhook"
    )
    assert (named.tunnel, named.problems) == (None, [])
    path = "plugins.entries.voice-call.config.tunnel.provider"
    assert named.notes == [f"{path} has no effect: publicUrl is set"]


def test_the_block_of_a_tunnel_comes_from_where_its_keys_may_stand() -> None:
    config = VoiceCallConfig.model_validate(
        {
            "tunnel": {
                "provider": "ngrok",
                "ngrokAuthToken": "flat-token",
                "ngrokDomain": "phone.example.app",
                "providers": {"ngrok": {"authToken": "block-token", "region": "eu"}},
            },
            "tailscale": {"mode": "funnel", "port": 8443},
        }
    )
    assert tunnel_block("ngrok", config.tunnel, config.tailscale) == {
        "authToken": "block-token",
        "domain": "phone.example.app",
        "region": "eu",
    }
    assert tunnel_block("tailscale-funnel", config.tunnel, config.tailscale) == {"port": 8443}
    for other in ("burrow", "pro", "providers-net"):
        assert tunnel_block(other, config.tunnel, config.tailscale) == {}
    alone = TunnelConfig(provider="ngrok", ngrok_domain="phone.example.app")
    assert tunnel_block("ngrok", alone, TailscaleConfig()) == {"domain": "phone.example.app"}
    assert tunnel_block("tailscale-serve", alone, TailscaleConfig()) == {}
    assert "block-token" not in repr(config)
    assert "flat-token" not in repr(config)


def test_no_tunnel_is_no_matter() -> None:
    assert wire(tunnel={"provider": "none"}, tailscale={"mode": "off"}).notes == []


def test_unverified_webhooks_are_warned_of() -> None:
    [note] = wire(skipSignatureVerification=True).notes
    assert note.startswith("SECURITY: plugins.entries.voice-call.config.skipSignatureVerification")


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"publicUrl": "https://voice.example.com/voice/webhook"}, "publicUrl is set"),
        ({"tunnel": {"provider": "burrow"}}, "a tunnel is opened"),
        ({"serve": {"bind": "0.0.0.0"}}, "serve.bind is 0.0.0.0"),
    ],
)
def test_a_token_that_everybody_knows_is_warned_of_where_others_reach_the_webhooks(
    config: dict[str, Any], where: str
) -> None:
    def notes(environ: dict[str, str], **more: Any) -> list[str]:
        wiring = resolve(
            VoiceCallConfig.model_validate({**config, **more}),
            registry=Registry(
                entries=[],
                extra=[
                    (ProviderKind.TELEPHONY.group, "mock", voicecall_mock.plugin),
                    offered(INFOS[-2]),
                    offered_tunnel(ScriptedTunnel(), "burrow"),
                ],
            ),
            environ=environ,
            agents={},
            tts={},
        )
        assert wiring.problems == []
        return wiring.notes

    [note] = notes({})
    assert note.startswith(
        "SECURITY: plugins.entries.voice-call.config.mock.authToken has its default value, which"
        f" is public, and {where}"
    )
    assert "VOICECALL_MOCK_AUTH_TOKEN" in note
    assert notes({}, mock={"authToken": "a-token-of-our-own"}) == []
    assert notes({"VOICECALL_MOCK_AUTH_TOKEN": "a-token-of-our-own"}) == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:3334/voice/webhook", "http://localhost/voice/webhook", None]
)
def test_on_this_machine_alone_it_is_no_matter(url: str | None) -> None:
    config = VoiceCallConfig.model_validate({"publicUrl": url})
    carrier = Selected(Selection.OK, info=MOCK, config=MockConfig())
    assert list(known_secrets(carrier, config, tunnel=False)) == []
    [note] = known_secrets(carrier, config, tunnel=True)
    path = "plugins.entries.voice-call.config.mock.authToken"
    assert note.startswith(f"SECURITY: {path} has its default value")


@pytest.mark.parametrize(
    ("agents", "place"),
    [
        ({"list": {}}, "agents.list: must be a list"),
        ({"list": ["main"]}, "agents.list.0: must be an object"),
        ({"list": [{"id": "a"}, {"name": "b"}]}, "agents.list.1.id: must be the name"),
        ({"list": [{"id": "a"}, {"id": " A"}]}, "agents.list.1.id: the agent 'a' is listed twice"),
        ({"list": [{"id": "a", "backend": 5}]}, "agents.list.0.backend"),
        ({"list": [{"id": "a", "model": {"primary": []}}]}, "agents.list.0.model.primary"),
        ({"list": [{"id": "a", "tools": ["read"]}]}, "agents.list.0.tools: must be an object"),
        ({"list": [{"id": "a", "tools": {"allow": "read"}}]}, "agents.list.0.tools.allow: must be"),
        ({"defaults": {"tools": {"allow": [""]}}}, "agents.defaults.tools.allow.0: must be a name"),
        ({"defaults": {"model": {"fallbacks": "m/x"}}}, "agents.defaults.model.fallbacks: must be"),
        ({"defaults": 5}, "agents.defaults: must be an object"),
        ({"defaults": {"model": 5}}, "agents.defaults.model"),
        ({"backends": []}, "agents.backends: must be an object"),
        ({"backends": {"helper": "x"}}, "agents.backends.helper: must be an object"),
    ],
)
def test_a_mistake_in_the_section_of_agents_is_named(agents: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError, match=f"^{place}"):
        wire(agents=agents)


def test_what_else_is_said_of_an_agents_tools_is_told_to_steer_nothing() -> None:
    tools = {"allow": ["read"], "deny": ["order"], "profile": "full"}
    notes = wire(agents={"list": [{"id": "desk", "tools": tools}], "defaults": {"tools": {}}}).notes
    assert notes == [
        "agent 'desk' in agents.list: tools.allow alone has an effect, not deny, profile"
    ]


def test_fields_that_nothing_is_filled_in_for_are_told() -> None:
    pairing = "{code} for {name}"
    greetings = {"+15550001111": {"inboundGreeting": "{a} {a}"}, "+15550002222": {}}
    notes = wire(
        inboundGreeting="Hello {name}",
        phrases={"pairing": pairing, "goodbye": "Bye {code}", "stillThere": "there?"},
        numbers=greetings,
    ).notes
    path, spoken = "plugins.entries.voice-call.config", "is spoken literally"
    assert notes == [
        f"{path}.phrases.goodbye: {{code}} {spoken}",
        f"{path}.phrases.pairing: {{name}} {spoken}",
        f"{path}.inboundGreeting: {{name}} {spoken}",
        f"{path}.numbers.+15550001111.inboundGreeting: {{a}} {spoken}",
    ]


def test_keys_of_other_sections_that_look_like_slips_are_told() -> None:
    model = {"primary": "v/small", "fallback": ["v/big"]}
    identity = {"nmae": "Mira", "avatar": "mira.png"}
    agents = {
        "default": {"backend": "helper"},
        "backend": "helper",
        "defaults": {"backnd": "helper", "models": {}, "imageModel": "x"},
        "list": [
            {"id": "desk", "name": "Desk", "identity": identity},
            {"id": "shop", "defualt": True, "model": model},
        ],
    }
    tts = {"providr": "voice", "providers": {}, "effects": 1}
    assert wire(agents=agents, core_tts=tts).notes == [
        "agents.backend is ignored; did you mean 'backends'?",
        "agents.defaults.backnd is ignored; did you mean 'backend'?",
        "agents.list.0.identity.nmae is ignored; did you mean 'name'?",
        "agents.list.1.defualt is ignored; did you mean 'default'?",
        "agents.list.1.model.fallback is ignored; did you mean 'fallbacks'?",
        "tts.providr is ignored; did you mean 'provider'?",
    ]
    assert wire(agents={"default": {}}).notes == [
        "agents.default is ignored; did you mean 'defaults'?"
    ]


def test_an_agent_that_a_number_names_must_be_there() -> None:
    numbers = {"+15550001111": {"agentId": "nobody"}}
    place = r"^plugins\.entries\.voice-call\.config\.numbers\.\+15550001111\.agentId: no agent"
    with pytest.raises(ConfigError, match=place):
        wire(agents={"list": [{"id": "main"}]}, numbers=numbers)


def test_a_carriers_variable_gives_what_the_file_does_not() -> None:
    variable = {"PUBLIC_NUMBER": "+15550001234", "PUBLIC_KEY": "k"}
    assert wire(provider="public", environ=variable).config.from_number == "+15550001234"
    given = wire(provider="public", fromNumber="+15550009999", environ=variable)
    assert given.config.from_number == "+15550009999"
    assert wire(provider="mock", environ=variable).config.from_number is None
    with pytest.raises(ConfigError, match=r"fromNumber \(or PUBLIC_NUMBER\): must be"):
        wire(provider="public", environ={**variable, "PUBLIC_NUMBER": "a number"})


def test_a_key_that_is_null_and_a_variable_that_is_blank_count_as_absent() -> None:
    variable = {"PUBLIC_NUMBER": " +15550001234 ", "PUBLIC_KEY": "k"}
    null = wire(provider="public", fromNumber=None, environ=variable)
    assert (null.config.from_number, null.problems) == ("+15550001234", [])
    [problem] = wire(provider="public", environ={**variable, "PUBLIC_NUMBER": "  "}).problems
    assert "config.fromNumber is required by Public" in problem


def test_a_value_from_a_variable_costs_no_word_about_other_carriers() -> None:
    variable = {"PUBLIC_NUMBER": "+15550001234", "PUBLIC_KEY": "k"}
    path = "plugins.entries.voice-call.config"
    assert wire(provider="public", voicemail={"detection": "on"}, environ=variable).notes == [
        f"{path}.voicemail is ignored: this is not supported yet"
    ]


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({"provider": "nobody"}, "plugins.entries.voice-call.config.provider"),
        (
            {"streaming": {"enabled": True, "provider": "nobody"}},
            "plugins.entries.voice-call.config.streaming.provider",
        ),
        (
            {"realtime": {"enabled": True, "provider": "nobody"}},
            "plugins.entries.voice-call.config.realtime.provider",
        ),
    ],
)
def test_a_provider_that_is_not_installed_is_named_with_its_key(
    over: dict[str, Any], named: str
) -> None:
    wiring = wire(**over)
    told = [*wiring.problems, *wiring.notes]
    assert any(f"{named}: no " in text and "'nobody' is installed" in text for text in told), told


@pytest.mark.parametrize(
    ("core", "phone", "named"),
    [
        ({"provider": "nobody"}, {}, "tts.provider"),
        (
            {"provider": "voice"},
            {"tts": {"provider": "nobody"}},
            "plugins.entries.voice-call.config.tts.provider",
        ),
        (
            {"provider": "voice"},
            {"numbers": {"+15550001111": {"tts": {"provider": "nobody"}}}},
            "plugins.entries.voice-call.config.numbers.+15550001111.tts.provider",
        ),
    ],
)
def test_a_voice_that_is_not_installed_is_named_where_it_is_chosen(
    core: dict[str, Any], phone: dict[str, Any], named: str
) -> None:
    told = wire(environ=KEYS, core_tts=core, **STREAM, **phone).notes
    # Another voice speaks.
    assert [note.partition(": no ")[0] for note in told] == [f"Voice speaks: {named}"]


@pytest.mark.parametrize(
    ("core", "phone", "path"),
    [
        ({"voice": {"voise": "x"}}, {}, "tts"),
        ({}, {"tts": {"providers": {"voice": {"voise": "x"}}}}, f"{CONFIG_PATH}.tts"),
        (
            {},
            {"numbers": {"+15550001111": {"tts": {"providers": {"voice": {"voise": "x"}}}}}},
            f"{CONFIG_PATH}.numbers.+15550001111.tts",
        ),
        # Blocks of several places are merged, and a key may be of any.
        ({"voice": {}}, {"tts": {"providers": {"voice": {"voise": "x"}}}}, "tts"),
    ],
)
def test_a_block_of_a_voice_that_is_wrong_is_named_where_it_stands(
    core: dict[str, Any], phone: dict[str, Any], path: str
) -> None:
    named = rf"^{re.escape(path)}\.providers\.voice\.voise: unknown key"
    with pytest.raises(ConfigError, match=named):
        wire(environ=KEYS, core_tts={"provider": "voice", "providers": core}, **STREAM, **phone)


def test_a_backend_that_is_not_installed_is_named_with_its_key() -> None:
    other, desk = {"id": "other", "backend": "agent"}, {"id": "desk", "backend": "nobody"}
    wiring = wire(agents={"list": [other, {**desk, "default": True}]})
    [problem] = wiring.problems
    assert problem.startswith("agents.list.1.backend: no voicecall.agent provider 'nobody' is")
    wiring = wire(agents={"list": [{"id": "desk"}], "defaults": {"backend": "nobody"}})
    [problem] = wiring.problems
    assert problem.startswith("agents.defaults.backend: no voicecall.agent provider 'nobody' is")
