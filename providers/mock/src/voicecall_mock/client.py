"""The REST side of the mock exchange, as a client."""

from __future__ import annotations

from typing import Any

import httpx

from voicecall.errors import (
    AuthenticationFailed,
    OutcomeUnknown,
    ProviderUnavailable,
    RequestRejected,
)

__all__ = ["ExchangeClient"]

_PROVIDER = "mock"


class ExchangeClient:
    """Requests to ``base_url``; open between ``__aenter__`` and ``__aexit__``."""

    def __init__(self, base_url: str, auth_token: str, *, timeout_s: float = 10.0) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"authorization": f"Bearer {auth_token}"},
            timeout=timeout_s,
            trust_env=False,
        )

    async def __aenter__(self) -> ExchangeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def request(
        self, method: str, path: str, body: Any = None, *, once: bool = False
    ) -> httpx.Response:
        """Send a request. ``once``: it must not be carried out twice, so a failure after it was
        sent raises :exc:`OutcomeUnknown`."""
        try:
            response = await self._http.request(method, path, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise ProviderUnavailable(
                f"cannot reach the exchange: {error}", provider=_PROVIDER
            ) from None
        except httpx.TransportError as error:
            if once:
                raise OutcomeUnknown(f"no reply: {error!r}", provider=_PROVIDER) from None
            raise ProviderUnavailable(f"no reply: {error!r}", provider=_PROVIDER) from None
        if response.is_success:
            return response
        status, text = response.status_code, response.text or f"HTTP {response.status_code}"
        if status in (401, 403):
            raise AuthenticationFailed(
                "the exchange refuses mock.authToken", provider=_PROVIDER, status=status
            )
        if status in (429, 503):
            raise ProviderUnavailable(text, provider=_PROVIDER, status=status)
        if status >= 500:
            error_type = OutcomeUnknown if once else ProviderUnavailable
            raise error_type(text, provider=_PROVIDER, status=status)
        raise RequestRejected(text, provider=_PROVIDER, status=status)
