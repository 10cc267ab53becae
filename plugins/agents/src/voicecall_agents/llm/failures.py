"""Translates errors of the model library into voicecall's."""

from __future__ import annotations

from pydantic_ai.exceptions import (
    AgentRunError,
    ContentFilterError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    ModelTimeoutError,
    OutputTokenLimitExceeded,
    RunTimedOut,
    UnexpectedModelBehavior,
    UsageLimitExceeded,
    UserError,
)

from voicecall.errors import (
    AuthenticationFailed,
    ConfigError,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RequestRejected,
)
from voicecall_agents.llm.config import BACKEND_ID, BACKEND_PATH

__all__ = ["as_provider_error", "retry_delay"]

_REQUEST_IDS = ("x-request-id", "request-id", "x-goog-request-id", "cf-ray")
_LONGEST_WAIT_S = 2.0
_DEFAULT_WAIT_S = 0.25


def as_provider_error(error: BaseException, silence_s: float) -> ProviderError:
    """``error`` as a :exc:`ProviderError`. Its text contains no response bodies, which may quote
    credentials. ``silence_s`` is how long the model was silent in the case of a timeout."""
    if isinstance(error, ModelTimeoutError | ModelRequestTimeout | RunTimedOut | TimeoutError):
        return ProviderTimeout(f"the model was silent for {silence_s:g} s", provider=BACKEND_ID)
    if isinstance(error, ModelAPIError):
        return _of_request(error)
    if isinstance(error, UsageLimitExceeded):
        return RequestRejected("the model went on calling tools", provider=BACKEND_ID)
    if isinstance(error, ContentFilterError):
        return RequestRejected(
            "the model refuses to answer, or its provider withholds the answer",
            provider=BACKEND_ID,
        )
    if isinstance(error, OutputTokenLimitExceeded):
        return RequestRejected(
            "the model used up its tokens before it said anything; raise or leave out"
            f" {BACKEND_PATH}.maxTokens",
            provider=BACKEND_ID,
        )
    if isinstance(error, UserError | ConfigError):
        return RequestRejected(f"the model cannot be asked: {error}", provider=BACKEND_ID)
    if isinstance(error, UnexpectedModelBehavior | AgentRunError | ValueError):
        name = type(error).__name__
        return ProviderUnavailable(
            f"the model's answer makes no sense ({name})", provider=BACKEND_ID
        )
    return ProviderUnavailable(f"the model failed ({type(error).__name__})", provider=BACKEND_ID)


def _of_request(error: ModelAPIError) -> ProviderError:
    kind, what, retryable = _judge(error)
    headers = (error.headers if isinstance(error, ModelHTTPError) else None) or {}
    status = error.status_code if isinstance(error, ModelHTTPError) else None
    details = [error.model_name]
    if status is not None:
        details.append(f"status {status}")
    if error.provider_error_code:
        details.append(error.provider_error_code)
    return kind(
        f"{what} ({', '.join(details)})",
        provider=BACKEND_ID,
        retryable=retryable,
        request_id=next((headers[key] for key in _REQUEST_IDS if key in headers), None),
        status=status,
    )


def _judge(error: ModelAPIError) -> tuple[type[ProviderError], str, bool]:
    """The error's class, its text, and whether the request may be retried."""
    if isinstance(error, ModelAuthenticationError):
        return AuthenticationFailed, "the model's provider does not accept the key", False
    if isinstance(error, ModelQuotaExceededError):
        return ProviderUnavailable, "the quota at the model's provider is used up", False
    if isinstance(error, ModelConnectionError):
        return ProviderUnavailable, "the model's provider cannot be reached", True
    if isinstance(error, ModelRequestRejectedError):
        return RequestRejected, "the model's provider refuses the request", False
    status = error.status_code if isinstance(error, ModelHTTPError) else None
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return RequestRejected, "the model's provider refuses the request", False
    what = "limits the rate" if status == 429 else "has a failure"
    return ProviderUnavailable, f"the model's provider {what}", True


def retry_delay(error: BaseException) -> float | None:
    """Seconds after which the same request may be sent again; None if it may not, or only after
    longer than a caller can wait."""
    if not isinstance(error, ModelHTTPError) or isinstance(error, ModelQuotaExceededError):
        return None
    busy = error.status_code == 429 or error.status_code >= 500
    if not busy or error.provider_retry_hint is False:
        return None
    wait = _DEFAULT_WAIT_S if error.retry_after is None else error.retry_after
    return wait if wait <= _LONGEST_WAIT_S else None
