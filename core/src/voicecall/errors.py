"""All errors that voicecall raises on purpose.

::

    VoicecallError
    ├── ConfigError            a fault in the configuration; names the key and the variable
    ├── PluginError            an installed package cannot be loaded or conflicts with another
    ├── CallError              a request about a call cannot be carried out
    │   ├── InvalidRequest     a parameter is missing or malformed
    │   ├── CallNotFound       no call has this id
    │   ├── CallNotActive      the call is over
    │   ├── CallNotReady       the call is not connected yet, or busy with another turn
    │   ├── CapacityExceeded   a limit on calls or rates is reached
    │   └── MissingScope       a parameter needs a scope that the client does not have
    ├── ProviderError          a vendor failed; has provider, retryable, request id
    │   ├── AuthenticationFailed  the vendor does not accept the credentials
    │   ├── RequestRejected    the vendor understood the request and refused it (4xx)
    │   ├── ProviderUnavailable  network, 5xx, rate limit; retryable
    │   ├── ProviderTimeout    no answer in time; retryable
    │   └── OutcomeUnknown     the request may have taken effect; never repeated blindly
    ├── WebhookRejected        a webhook is answered with an HTTP status and has no effect
    ├── MediaProtocolError     a message on a media socket violates the protocol
    └── StoreError             the call store failed
        └── DuplicateKey       an event, webhook or reservation is already stored
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "AuthenticationFailed",
    "CallError",
    "CallNotActive",
    "CallNotFound",
    "CallNotReady",
    "CapacityExceeded",
    "ConfigError",
    "DuplicateKey",
    "InvalidRequest",
    "MediaProtocolError",
    "MissingScope",
    "OutcomeUnknown",
    "PluginError",
    "ProviderError",
    "ProviderTimeout",
    "ProviderUnavailable",
    "RequestRejected",
    "StoreError",
    "VoicecallError",
    "WebhookRejected",
]


class VoicecallError(Exception):
    """Base of every error in this module."""


class ConfigError(VoicecallError):
    """The configuration cannot be used.

    ``path`` is the full configuration path (``plugins.entries.voice-call.config.fromNumber``),
    ``env`` the environment variable that can supply the value, if there is one.
    """

    def __init__(self, message: str, *, path: str | None = None, env: str | None = None) -> None:
        self.path = path
        self.env = env
        text = f"{path}: {message}" if path else message
        if env:
            text += f" (or set {env})"
        super().__init__(text)


class PluginError(VoicecallError):
    """An installed package cannot be used; the message names it, or what it provides."""


class CallError(VoicecallError):
    """A request about a call cannot be carried out."""


class InvalidRequest(CallError):
    """A parameter is missing or malformed; the message names it."""


class CallNotFound(CallError):
    """No call has this id. The message contains ``call not found``."""

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id
        super().__init__(f"call not found: {call_id}")


class CallNotActive(CallError):
    """The call is over. The message contains ``call is not active``."""

    def __init__(self, call_id: str, detail: str) -> None:
        self.call_id = call_id
        super().__init__(f"call is not active: {call_id} ({detail})")


class CallNotReady(CallError):
    """The call cannot do this now: it is not connected yet, or another turn is running."""


class CapacityExceeded(CallError):
    """A limit on concurrent calls or on rates is reached."""


class MissingScope(CallError):
    """``parameter`` needs the scope ``scope`` (``operator.admin``), which the client does not
    have."""

    def __init__(self, scope: str, parameter: str) -> None:
        self.scope = scope
        super().__init__(f"missing scope: {scope} (for {parameter})")


class ProviderError(VoicecallError):
    """A carrier, speech vendor or model vendor failed.

    ``provider`` is the provider's id, ``retryable`` says whether the same request may be sent again
    (None: the default of the class), ``request_id`` is the vendor's reference, ``status`` the HTTP
    status, if there was one. The subclasses have the same parameters.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        retryable: bool | None = None,
        request_id: str | None = None,
        status: int | None = None,
    ) -> None:
        self.provider = provider
        if retryable is not None:
            self.retryable = retryable
        self.request_id = request_id
        self.status = status
        super().__init__(f"{provider}: {message}")


class AuthenticationFailed(ProviderError):
    """The vendor does not accept the credentials."""


class RequestRejected(ProviderError):
    """The vendor understood the request and refused it."""


class ProviderUnavailable(ProviderError):
    """The vendor could not be reached, is overloaded or limits the rate. The request had no
    effect."""

    retryable = True


class ProviderTimeout(ProviderError):
    """The vendor did not answer in time, and repeating the request is harmless."""

    retryable = True


class OutcomeUnknown(ProviderError):
    """The request may or may not have taken effect. Look up the outcome; never repeat the request
    blindly."""


class WebhookRejected(VoicecallError):
    """The webhook is answered with the HTTP status ``status`` and has no effect. The reason is
    logged, never sent."""

    def __init__(
        self, status: int, reason: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})
        super().__init__(f"{status}: {reason}")


class MediaProtocolError(VoicecallError):
    """A message on a media socket violates the carrier's protocol."""


class StoreError(VoicecallError):
    """The call store could not carry out a request. Nothing was stored, unless the answer of the
    database to a commit was lost."""


class DuplicateKey(StoreError):
    """A key that must be unique is already stored. ``kind`` is ``processed`` (an event),
    ``replay`` (a webhook) or ``dial`` (a reservation)."""

    def __init__(self, kind: str, key: str, *, detail: Any = None) -> None:
        self.kind = kind
        self.key = key
        self.detail = detail
        super().__init__(f"{kind} key is already stored: {key}")
