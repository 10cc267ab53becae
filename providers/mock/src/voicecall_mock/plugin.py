"""Entry point of the mock carrier. Importing it needs neither a server nor an HTTP client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl
from voicecall.telephony import StreamPoint, TelephonyCapabilities

if TYPE_CHECKING:
    from pydantic import BaseModel

CAPABILITIES = TelephonyCapabilities(
    native_speech=True,
    native_listening=True,
    stream=frozenset({StreamPoint.ANSWER, StreamPoint.DOCUMENT, StreamPoint.COMMAND}),
    dtmf_out=True,
    dtmf_keeps_stream=True,
    pre_connect_dtmf=True,
    explicit_answer=True,
    dial_lookup=True,
    limit_by_command=True,
    public_url=False,
    from_number_required=False,
)


def _config_model() -> type[BaseModel]:
    from .config import MockConfig

    return MockConfig


def _factory(config: Any, context: ProviderContext) -> Any:
    from .provider import MockProvider

    return MockProvider(config, context)


@hookimpl
def voicecall_telephony_providers() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.TELEPHONY,
            id="mock",
            label="Mock exchange",
            factory=_factory,
            config_model=_config_model,
            aliases=("log",),
            secrets={"authToken": "VOICECALL_MOCK_AUTH_TOKEN"},
            auto_select_order=1000,
            capabilities=CAPABILITIES,
        )
    ]
