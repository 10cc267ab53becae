"""Access to the admin port: the token, its file, scopes, and the Origin check."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from voicecall.errors import ConfigError
from voicecall.seam import Seam

from .sections import GatewaySection

__all__ = [
    "ADMIN",
    "READ",
    "SCOPES",
    "TOKEN_VARIABLE",
    "WRITE",
    "existing_token",
    "expand_scopes",
    "gateway_token",
    "origin_allowed",
    "scope_name",
    "token_matches",
]

READ = "operator.read"
WRITE = "operator.write"
ADMIN = "operator.admin"
SCOPES = (READ, WRITE, ADMIN)
TOKEN_VARIABLE = "VOICECALL_GATEWAY_TOKEN"


def scope_name(scope: str) -> str:
    """``read`` or ``operator.read`` as ``operator.read``; raises ValueError for others."""
    name = scope if scope.startswith("operator.") else f"operator.{scope}"
    if name not in SCOPES:
        raise ValueError(f"unknown scope {scope!r}; one of {', '.join(SCOPES)}")
    return name


def expand_scopes(requested: Iterable[str]) -> frozenset[str]:
    """The known scopes among ``requested``, and the scopes that they include (admin > write >
    read)."""
    ranks = [SCOPES.index(scope) for scope in requested if scope in SCOPES]
    return frozenset(SCOPES[: max(ranks) + 1]) if ranks else frozenset()


def token_matches(expected: str, given: str | None) -> bool:
    """Compare in constant time, ignoring white space around ``given``."""
    # A JSON string can hold lone surrogates.
    return given is not None and hmac.compare_digest(
        expected.encode(errors="surrogatepass"), given.strip().encode(errors="surrogatepass")
    )


def existing_token(
    section: GatewaySection, environ: Mapping[str, str], state_dir: Path
) -> str | None:
    """The configured token, ``VOICECALL_GATEWAY_TOKEN``, or the token in the state directory;
    None if there is none yet or authentication is off."""
    if section.auth.mode == "none":
        return None
    if section.auth.token:
        return section.auth.token
    if environ.get(TOKEN_VARIABLE, "").strip():
        return environ[TOKEN_VARIABLE].strip()
    file = state_dir / "gateway-token"
    try:
        token = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise ConfigError(
            f"{state_dir} is not a directory; name another with VOICECALL_STATE_DIR"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{file}: the gateway's token cannot be read: {error.strerror}; make it readable for"
            f" this user, or set {TOKEN_VARIABLE}"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: the gateway's token is not UTF-8 text (byte {error.start}); delete the file,"
            f" or set {TOKEN_VARIABLE}"
        ) from None
    if not token:
        raise ConfigError(f"{file}: the gateway's token is empty; delete the file")
    return token


def gateway_token(
    section: GatewaySection, environ: Mapping[str, str], state_dir: Path, seam: Seam
) -> str | None:
    """The token that clients must send; generated and stored (mode 0600) on the first start."""
    token = existing_token(section, environ, state_dir)
    if token is not None or section.auth.mode == "none":
        return token
    file = state_dir / "gateway-token"
    draft = state_dir / f".gateway-token.{seam.new_id()}"
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(f"{seam.token()}\n")
            # A link never replaces a file, so two simultaneous first starts use the same token.
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{file}: the gateway's token cannot be stored ({error.strerror}); set"
            " VOICECALL_STATE_DIR to a writable directory"
        ) from None
    return existing_token(section, environ, state_dir)


def origin_allowed(origin: str | None, host: str | None, bind: str) -> bool:
    """Whether to accept a request with these ``Origin`` and ``Host`` headers.

    Programs send no Origin. A page in a browser is accepted if it comes from this machine or, when
    the port is open to the network, from the host that it talks to. A loopback port never trusts
    the Host header: a page can make its own name resolve to 127.0.0.1.
    """
    if origin is None:
        return True
    name = _host_of(origin)
    if not name:
        return False
    if name == "localhost" or _is_loopback(name):
        return True
    return not _is_loopback(bind) and name == _host_of(f"//{host}")


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
