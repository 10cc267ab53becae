"""Configuration of the ``voice-call`` plugin: the tree below
``plugins.entries.voice-call.config``. Times are milliseconds unless the name says otherwise."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from voicecall.configuring import ConfigModel, UrlPath, is_http_url
from voicecall.machine import CallPolicy
from voicecall.model import Direction

from .exposure import (
    FUNNEL_PORTS,
    ServeConfig,
    TailscaleConfig,
    TunnelConfig,
    WebhookSecurityConfig,
    realtime_path,
)
from .phrasesconfig import PhrasesConfig, WordsOrNone
from .plugin import PLUGIN_ID
from .realtimeconfig import RealtimeConfig
from .speechconfig import TtsConfig

__all__ = [
    "CONFIG_PATH",
    "E164",
    "PLUGIN_ID",
    "BargeInConfig",
    "NumberRoute",
    "OutboundConfig",
    "PhrasesConfig",
    "RealtimeConfig",
    "RetentionConfig",
    "ServeConfig",
    "SilenceConfig",
    "StoreConfig",
    "StreamingConfig",
    "TailscaleConfig",
    "TtsConfig",
    "TunnelConfig",
    "VoiceCallConfig",
    "WebhookSecurityConfig",
    "normalize_number",
]

CONFIG_PATH = f"plugins.entries.{PLUGIN_ID}.config"

_E164 = re.compile(r"\+[1-9][0-9]{1,14}")
_MANY = re.compile(r"\+[1-9][0-9]{0,13}\*")
_OWN_PARAMETERS = frozenset({"callId", "type"})
"""Query parameters that the gateway or a carrier's adapter adds to the webhook URL."""


def normalize_number(text: str) -> str | None:
    """``text`` in E.164 form, without spaces, dots, dashes, slashes and brackets; None if it is not
    a phone number."""
    number = _written(text)
    return number if _E164.fullmatch(number) else None


def _written(text: str) -> str:
    number = re.sub(r"[\s().\-/]", "", text)
    return "+" + number[2:] if number.startswith("00") else number


def _e164(value: str) -> str:
    number = normalize_number(value)
    if number is None:
        raise ValueError("must be a phone number in E.164 form, such as +15550001234")
    return number


def _destination(value: str) -> str:
    number = _written(value)
    if not (_E164.fullmatch(number) or _MANY.fullmatch(number)):
        raise ValueError(
            "must be a phone number in E.164 form, or the beginning of one with *, such as +1555*"
        )
    return number


def _agent_id(value: str) -> str:
    agent_id = value.strip().lower()
    if not agent_id:
        raise ValueError("must be the id of an agent")
    return agent_id


E164 = Annotated[str, AfterValidator(_e164)]
Destination = Annotated[str, AfterValidator(_destination)]
AgentId = Annotated[str, AfterValidator(_agent_id)]
"""In lower case, since agent ids are compared that way."""
OpenBlock = dict[str, Any]


class OutboundConfig(ConfigModel):
    default_mode: Literal["notify", "conversation"] = "notify"
    notify_hangup_delay_sec: int = Field(default=3, ge=0)
    allow_to: tuple[Destination, ...] | None = None
    max_per_minute: PositiveInt | None = None

    def allows(self, number: str) -> bool:
        """Whether ``number``, in E.164 form, may be called."""
        if self.allow_to is None:
            return True
        return any(
            number.startswith(each[:-1]) if each.endswith("*") else number == each
            for each in self.allow_to
        )


class StreamingConfig(ConfigModel):
    """Transcription, agent and speech over a media socket."""

    enabled: bool = False
    provider: str | None = Field(default=None, min_length=1)
    stream_path: UrlPath = "/voice/stream"
    providers: dict[str, OpenBlock] = Field(default_factory=dict)
    pre_start_timeout_ms: PositiveInt = 5000
    max_pending_connections: PositiveInt = 32
    max_pending_connections_per_ip: PositiveInt = 4
    max_connections: PositiveInt = 128


class NumberRoute(ConfigModel):
    """Settings for calls to one of your numbers."""

    inbound_greeting: WordsOrNone | None = None
    agent_id: AgentId | None = None
    response_model: str | None = Field(default=None, min_length=1)
    response_system_prompt: str | None = None
    response_timeout_ms: PositiveInt | None = None
    tts: TtsConfig | None = None


def _once(routes: Any) -> Any:
    """Refuse two spellings of one number: only one of their routes would be kept."""
    if isinstance(routes, Mapping):
        known: dict[str | None, str] = {}
        for key in routes:
            number = normalize_number(str(key))
            if number is not None and number in known:
                raise ValueError(f"names one number twice, as {known[number]} and as {key}")
            known[number] = key
    return routes


class BargeInConfig(ConfigModel):
    """When the caller may interrupt.

    Speech counts once it has lasted ``minSpeechMs`` or words are recognised. Speech that begins
    within the first ``greetingProtectionMs`` of a greeting does not interrupt it. On streamed
    calls with an installed voice activity detector, the agent is only paused at first: recognised
    words, or continued speech, make it an interruption; otherwise the agent resumes where it
    stopped. On turn-based calls none of this has an effect: the carrier does the listening, and
    decides what interrupts.
    """

    enabled: bool = True
    min_speech_ms: int = Field(default=250, ge=0)
    greeting_protection_ms: int = Field(default=500, ge=0)
    outbound_greeting_protection_ms: int = Field(default=1500, ge=0)
    detector: str | None = Field(default=None, min_length=1)

    def protection_ms(self, direction: Direction) -> int:
        """The protection of the first message of a call in this direction."""
        outbound = direction is Direction.OUTBOUND
        return self.outbound_greeting_protection_ms if outbound else self.greeting_protection_ms


class SilenceConfig(ConfigModel):
    """What happens while nobody speaks: the agent asks again, and finally says goodbye. This has
    no effect on calls held by a voice model."""

    prompt_after_ms: int = Field(default=15_000, ge=0)
    prompts: int = Field(default=2, ge=0)


class StoreConfig(ConfigModel):
    """``provider`` is the id of an installed store; the other keys are its own."""

    model_config = ConfigDict(extra="allow")

    provider: str = Field(min_length=1)

    @property
    def block(self) -> Mapping[str, Any]:
        """The configuration of the provider."""
        return self.model_extra or {}

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        # The provider's keys may contain credentials.
        yield "provider", self.provider


def _store(value: Any) -> Any:
    """A string is the directory of the SQLite store."""
    if not isinstance(value, str):
        return value
    return {"provider": "sqlite", "directory": value} if value else None


StoreChoice = Annotated[
    StoreConfig | None, BeforeValidator(_store, json_schema_input_type=str | StoreConfig | None)
]


class RetentionConfig(ConfigModel):
    """Which finished calls the store keeps: the newest ``calls``, each for ``days``, and separately
    as many refused inbound calls. Live calls are always kept."""

    calls: int = Field(default=10_000, ge=0, le=1_000_000_000)
    days: int = Field(default=365, ge=1, le=36_500)


class VoiceCallConfig(ConfigModel):
    enabled: bool = True
    provider: str = "mock"
    from_number: E164 | None = None
    to_number: E164 | None = None
    agent_id: AgentId | None = None
    session_scope: Literal["per-phone", "per-call", "main"] = "per-phone"
    store: StoreChoice = None
    retention: RetentionConfig = Field(default_factory=RetentionConfig)

    inbound_policy: Literal["disabled", "allowlist", "pairing", "open"] = "disabled"
    allow_from: tuple[E164, ...] = ()
    inbound_greeting: WordsOrNone | None = None
    numbers: Annotated[dict[E164, NumberRoute], BeforeValidator(_once)] = Field(
        default_factory=dict
    )

    outbound: OutboundConfig = Field(default_factory=OutboundConfig)
    max_duration_seconds: PositiveInt = 300
    stale_call_reaper_seconds: int = Field(default=120, ge=0)
    silence_timeout_ms: PositiveInt = 800
    transcript_timeout_ms: PositiveInt = 180_000
    ring_timeout_ms: PositiveInt = 30_000
    hang_up_on_stop: bool = False
    max_concurrent_calls: PositiveInt = 1
    max_concurrent_inbound_calls: PositiveInt = 32
    response_model: str | None = Field(default=None, min_length=1)
    response_system_prompt: str | None = None
    response_timeout_ms: PositiveInt = 30_000
    filler_after_ms: int = Field(default=1500, ge=0)

    serve: ServeConfig = Field(default_factory=ServeConfig)
    public_url: str | None = None
    tunnel: TunnelConfig = Field(default_factory=TunnelConfig)
    tailscale: TailscaleConfig = Field(default_factory=TailscaleConfig)
    skip_signature_verification: bool = False
    webhook_security: WebhookSecurityConfig = Field(default_factory=WebhookSecurityConfig)
    streaming: StreamingConfig = Field(default_factory=StreamingConfig)
    realtime: RealtimeConfig = Field(default_factory=RealtimeConfig)
    tts: TtsConfig = Field(default_factory=TtsConfig)
    barge_in: BargeInConfig = Field(default_factory=BargeInConfig)
    silence: SilenceConfig = Field(default_factory=SilenceConfig)
    phrases: PhrasesConfig = Field(default_factory=PhrasesConfig)
    carriers: dict[str, OpenBlock] = Field(default_factory=dict, exclude=True)
    """Blocks of carriers, by id; in the file they are at the top level of the phone's
    configuration."""

    @model_validator(mode="before")
    @classmethod
    def _carrier_blocks(cls, values: Any) -> Any:
        """Move blocks of carriers out of the closed model: the chosen carrier's, and any other
        object whose key does not look misspelt. Each carrier validates its own block."""
        if not isinstance(values, Mapping):
            return values
        chosen = values.get("provider", cls.model_fields["provider"].default)
        if isinstance(chosen, str) and not isinstance(values.get(chosen, {}), Mapping):
            raise _wrong([(chosen, "must be an object, { ... }")])
        own = set(cls.model_fields) | {field.alias or "" for field in cls.model_fields.values()}
        carriers = {
            key: value
            for key, value in values.items()
            if key not in own
            and isinstance(value, Mapping)
            and (key == chosen or not difflib.get_close_matches(key, own - {"carriers"}, 1, 0.75))
        }
        rest = {key: value for key, value in values.items() if key not in carriers}
        given = rest.get("carriers", {})
        if not isinstance(given, Mapping):
            return values
        return {**rest, "carriers": {**given, **carriers}}

    @model_validator(mode="after")
    def _consistent(self) -> VoiceCallConfig:
        problems = list(self._contradictions())
        if problems:
            raise _wrong(problems)
        return self

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        """Keys whose values contradict others, each with an error message."""
        if self.streaming.enabled and self.realtime.enabled:
            yield "realtime.enabled", "cannot be true if streaming.enabled is"
        if self.to_number is not None and not self.outbound.allows(self.to_number):
            yield "toNumber", "is not allowed by outbound.allowTo"
        if self.streaming.stream_path == self.serve.path:
            yield "streaming.streamPath", "streaming.streamPath and serve.path must differ"
        if self.realtime.stream_path == self.serve.path:
            yield "realtime.streamPath", "realtime.streamPath and serve.path must differ"
        if self.public_url is not None and not is_http_url(self.public_url):
            yield "publicUrl", "must be an absolute http(s) URL, without blanks"
        elif "#" in (self.public_url or ""):
            why = "what follows it belongs in the number's settings at the carrier"
            yield "publicUrl", f"must not contain #: {why}"
        else:
            query = parse_qsl(urlsplit(self.public_url or "").query, keep_blank_values=True)
            for name in sorted(_OWN_PARAMETERS.intersection(dict(query))):
                why = "the gateway adds one of that name"
                yield "publicUrl", f"must not have a parameter {name}: {why}"
        if self.tunnel_id == "tailscale-funnel" and self.tailscale.port not in FUNNEL_PORTS:
            yield "tailscale.port", "must be 443, 8443 or 10000 for a funnel"

    @property
    def tunnel_id(self) -> str | None:
        """Id of the configured tunnel."""
        if self.tunnel.provider != "none":
            return self.tunnel.provider
        return None if self.tailscale.mode == "off" else f"tailscale-{self.tailscale.mode}"

    @property
    def media_path(self) -> str:
        """Path of the media sockets."""
        if self.realtime.enabled:
            return self.realtime.stream_path or realtime_path(self.serve.path)
        return self.streaming.stream_path

    def policy(self) -> CallPolicy:
        """The time limits of the state machine."""
        max_duration_ms = self.max_duration_seconds * 1000
        return CallPolicy(
            max_duration_ms=max_duration_ms,
            ring_timeout_ms=self.ring_timeout_ms,
            unanswered_ms=self.stale_call_reaper_seconds * 1000,
            notify_hangup_delay_ms=self.outbound.notify_hangup_delay_sec * 1000,
            # Probe a call whose end was not reported before the cap would end it as too long.
            quiet_ms=min(CallPolicy().quiet_ms, max_duration_ms // 2),
        )


def _wrong(problems: Sequence[tuple[str, str]]) -> ValidationError:
    """A validation error from keys and their messages."""
    return ValidationError.from_exception_data(
        "VoiceCallConfig",
        [
            InitErrorDetails(
                type=PydanticCustomError("wrong", "{text}", {"text": text}),
                loc=tuple(key.split(".")),
                input=None,
            )
            for key, text in problems
        ],
    )
