"""A client of the gateway's ``/rpc`` for commands: synchronous, with one request at a time."""

from __future__ import annotations

import ipaddress
import itertools
import json
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from voicecall.errors import ConfigError, VoicecallError

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

__all__ = ["GatewayClient", "GatewayTimeout", "GatewayUnreachable", "RpcError"]

MAX_FRAME = 16 * 1024 * 1024
MAX_EVENTS = 1000
_STOPPING = 503
"""The HTTP status with which a gateway refuses connections while it stops."""


class GatewayUnreachable(VoicecallError):
    """No gateway answers: the connection was refused or lost.

    ``remote``: the address came from ``VOICECALL_GATEWAY_URL``. ``lost``: there was a gateway, but
    it is stopping, or the connection broke after the handshake, so that a request may have taken
    effect. A command may do the work itself only if neither is set.
    """

    def __init__(self, message: str, *, remote: bool = False, lost: bool = False) -> None:
        self.remote = remote
        self.lost = lost
        super().__init__(message)


class GatewayTimeout(VoicecallError):
    """The gateway did not answer in time; the request may still take effect."""


class RpcError(VoicecallError):
    """The gateway answered with an error object."""

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        self.code = code
        self.message = message
        self.details = dict(details or {})
        super().__init__(message)


class GatewayClient:
    """A client of one gateway: use :meth:`connect` in a ``with`` statement."""

    def __init__(
        self, url: str, token: str | None, timeout: float, *, remote: bool, source: str
    ) -> None:
        """``source`` says where the token comes from, for the error if it is not accepted."""
        self.url = url
        self.hello: Mapping[str, Any] = {}
        self._token = token
        self._source = source
        self._timeout = timeout
        self._remote = remote
        self._stack = ExitStack()
        self._socket: ClientConnection | None = None
        self._ids = itertools.count(1)
        self._events: deque[Mapping[str, Any]] = deque(maxlen=MAX_EVENTS)

    @classmethod
    def connect(
        cls, config: Path | None, environ: Mapping[str, str], timeout: float = 5.0
    ) -> GatewayClient:
        """A client for the configured gateway, or the one that ``VOICECALL_GATEWAY_URL`` names. The
        token in the state directory is never sent to another machine. The connection is made on
        entering the ``with`` statement. ``timeout`` (seconds) applies to connecting and is the
        default for calls. Raises :exc:`voicecall.errors.ConfigError`."""
        from .auth import TOKEN_VARIABLE, existing_token
        from .config import load_config
        from .sections import url_host

        loaded = load_config(config, environ)
        named = environ.get("VOICECALL_GATEWAY_URL", "").strip()
        if named:
            url = _rpc_url(named)
            token = environ.get(TOKEN_VARIABLE, "").strip() or loaded.gateway.auth.token
            if not token and not _is_here(url, loaded.gateway.bind):
                raise ConfigError(
                    f"VOICECALL_GATEWAY_URL names another machine: set {TOKEN_VARIABLE} to the"
                    " token of its gateway; the one in the state directory is not sent there"
                )
            token = token or existing_token(loaded.gateway, environ, loaded.state_dir)
        else:
            url = f"ws://{url_host(loaded.gateway.bind)}:{loaded.gateway.port}/rpc"
            token = existing_token(loaded.gateway, environ, loaded.state_dir)
        if token == loaded.gateway.auth.token:
            source = "gateway.auth.token"
        elif token == environ.get(TOKEN_VARIABLE, "").strip():
            source = TOKEN_VARIABLE
        else:
            source = str(loaded.state_dir / "gateway-token")
        return cls(url, token, timeout, remote=bool(named), source=source)

    def __enter__(self) -> GatewayClient:
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
        from websockets.sync.client import connect

        try:
            self._socket = self._stack.enter_context(
                connect(
                    self.url,
                    open_timeout=self._timeout,
                    close_timeout=1,
                    compression=None,
                    max_size=MAX_FRAME,
                    proxy=None,
                )
            )
        except InvalidHandshake as error:
            if isinstance(error, InvalidStatus) and error.response.status_code == _STOPPING:
                text = f"the gateway on {_safe(self.url)} is stopping; try again in a moment"
                raise GatewayUnreachable(text, remote=self._remote, lost=True) from None
            raise self._no_gateway(f"did not accept the connection ({error})") from None
        except TimeoutError:
            raise GatewayTimeout(
                f"{_safe(self.url)} did not answer in time: it hangs, or {self._who_else()}"
            ) from None
        except ConnectionClosed:
            raise self._unreachable("went away while connecting") from None
        except (ConnectionError, EOFError):
            raise self._unreachable("has no voicecall gateway running") from None
        except OSError as error:
            # For instance an unknown host name or an untrusted certificate.
            why = getattr(error, "verify_message", "") or error.strerror or error
            raise GatewayUnreachable(
                f"{_safe(self.url)} cannot be reached: {why}", remote=self._remote
            ) from None
        try:
            self._handshake()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Send a request and return the payload of the answer. Raises :exc:`RpcError`,
        :exc:`GatewayTimeout` and :exc:`GatewayUnreachable`."""
        request_id = str(next(self._ids))
        self._send({"type": "req", "id": request_id, "method": method, "params": params or {}})
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        while True:
            frame = self._receive(deadline)
            if frame.get("type") == "event":
                self._events.append(frame)
            elif frame.get("type") == "res" and frame.get("id") == request_id:
                return self._payload(frame)

    def events(self) -> Iterator[Mapping[str, Any]]:
        """Event frames ``{event, payload, seq}`` as they arrive; ends when the gateway closes the
        connection. Raises :exc:`GatewayUnreachable` if the client is not connected."""
        self._connection()
        while True:
            while self._events:
                yield self._events.popleft()
            try:
                frame = self._receive(None)
            except GatewayUnreachable:
                return
            if frame.get("type") == "event":
                self._events.append(frame)

    # --- inside -----------------------------------------------------------------------------

    def _handshake(self) -> None:
        from .auth import SCOPES
        from .frames import PROTOCOL

        deadline = time.monotonic() + self._timeout
        while self._receive(deadline).get("event") != "connect.challenge":
            continue
        params = {
            "minProtocol": PROTOCOL,
            "maxProtocol": PROTOCOL,
            "client": {"id": "cli", "version": "1", "platform": "python", "mode": "cli"},
            "role": "operator",
            "scopes": list(SCOPES),
            "auth": {"token": self._token} if self._token else {},
        }
        try:
            self.hello = self.call("connect", params)
        except RpcError as error:
            what = self._what_to_change(error)
            raise RpcError(error.code, f"{error.message}{what}", error.details) from None

    def _what_to_change(self, error: RpcError) -> str:
        match error.details.get("code"):
            case "AUTH_TOKEN_MISMATCH":
                wrong = f"{_safe(self.url)} does not accept the token from {self._source}"
            case "AUTH_TOKEN_MISSING":
                wrong = f"{_safe(self.url)} requires a token, and this command has none"
            case _ if "expectedProtocol" in error.details:
                return f"; {_safe(self.url)} has another version than this command"
            case _:
                return ""
        return (
            f": {wrong}; name that gateway's configuration (--config) and state directory"
            " (VOICECALL_STATE_DIR), or set VOICECALL_GATEWAY_TOKEN to its token"
        )

    def _payload(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        done = frame.get("ok") is True
        said = (frame.get("payload") or {}) if done else frame.get("error")
        if not isinstance(said, dict):
            raise self._no_gateway("does not speak the gateway's protocol")
        if done:
            return said
        details = said.get("details")
        message = str(said.get("message"))
        raise RpcError(
            str(said.get("code")),
            message + self._of_another_version(message),
            details if isinstance(details, dict) else None,
        )

    def _of_another_version(self, message: str) -> str:
        """What to do if the error comes from a gateway of another version than this command."""
        server = self.hello.get("server")
        theirs = server.get("version") if isinstance(server, dict) else None
        if theirs is None or not message.startswith("unknown "):
            return ""
        ours = distribution_version("voicecall-gateway")
        if theirs == ours:
            return ""
        return (
            f"; {_safe(self.url)} runs version {theirs}, and this command is version {ours}:"
            " restart the gateway with the version that is installed"
        )

    def _send(self, frame: Mapping[str, Any]) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._connection().send(json.dumps(frame))
        except ConnectionClosed:
            raise self._unreachable("closed the connection") from None

    def _receive(self, deadline: float | None) -> Mapping[str, Any]:
        from websockets.exceptions import ConnectionClosed

        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            frame = json.loads(self._connection().recv(left))
        except TimeoutError:
            raise GatewayTimeout(
                f"the gateway on {_safe(self.url)} did not answer in time; see `voicecall"
                " gateway status`"
            ) from None
        except ConnectionClosed:
            raise self._unreachable("closed the connection") from None
        except (ValueError, RecursionError):
            frame = None
        if not isinstance(frame, dict):
            raise self._no_gateway("does not speak the gateway's protocol")
        return frame

    def _connection(self) -> ClientConnection:
        if self._socket is None:
            raise GatewayUnreachable("the client is not connected; use it in a with statement")
        return self._socket

    def _unreachable(self, what: str) -> GatewayUnreachable:
        advice = "start one with `voicecall gateway run`"
        if self._remote:
            advice = "start one there, or correct VOICECALL_GATEWAY_URL"
        return self._gone(f"{what}; {advice}")

    def _no_gateway(self, what: str) -> GatewayUnreachable:
        return self._gone(f"{what}; {self._who_else()}")

    def _who_else(self) -> str:
        """What to change if another program listens at the address."""
        if self._remote:
            return "VOICECALL_GATEWAY_URL may name another program"
        return "another program may have its port: stop that one, or set gateway.port"

    def _gone(self, why: str) -> GatewayUnreachable:
        return GatewayUnreachable(
            f"{_safe(self.url)} {why}", remote=self._remote, lost=bool(self.hello)
        )


def _rpc_url(text: str) -> str:
    """``VOICECALL_GATEWAY_URL`` as the WebSocket URL of ``/rpc``."""
    wrong = ConfigError(
        "VOICECALL_GATEWAY_URL: must be a URL such as ws://127.0.0.1:18790 (or http://...)"
    )
    try:
        parts = urlsplit(text)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:
        # An invalid port, a malformed IPv6 address, or a name that cannot be looked up.
        raise wrong from None
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname or port == 0:
        raise wrong
    path = parts.path if parts.path.strip("/") else "/rpc"
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def _is_here(url: str, bind: str) -> bool:
    """Whether a URL names this machine, or the address that the configured gateway listens on."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or str(address) == bind


def _safe(url: str) -> str:
    """The URL without user names, passwords and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}"
