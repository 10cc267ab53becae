"""Answers challenges, which show whether a URL leads to this machine: only its key can produce the
answer (:mod:`voicecall_calls.probing`)."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from voicecall.errors import ConfigError

__all__ = ["CHALLENGE", "CHALLENGE_LIMIT", "answering", "key_file"]

CHALLENGE = "voicecallChallenge"
"""Name of the query parameter that carries a challenge."""
CHALLENGE_LIMIT = 128
_KEY_FILE = "probe.key"


def key_file(state_dir: Path) -> Path:
    """The file of this machine's key."""
    return state_dir / "voice-calls" / _KEY_FILE


def answering(state_dir: Path) -> Callable[[str], str]:
    """A function that answers challenges for this machine. Its key is created if necessary."""
    file = key_file(state_dir)
    folder = file.parent
    try:
        # Separately: with parents=True the mode applies to the last directory only.
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be created ({error.strerror}); set VOICECALL_STATE_DIR"
        ) from None
    try:
        key = _key(file)
    except OSError as error:
        raise ConfigError(
            f"{file}: the key of setup --probe cannot be used ({error.strerror}); delete it, and"
            " make sure that the gateway's user can write there"
        ) from None
    return lambda challenge: hmac.new(key, challenge.encode(), hashlib.sha256).hexdigest()


def _key(file: Path) -> bytes:
    if file.exists() and not file.stat().st_size:
        # Power was lost before the key was on disk.
        file.unlink(missing_ok=True)
    if not file.exists():
        # If two processes create a key at the same time, the first one counts.
        fresh = file.with_name(f"{_KEY_FILE}.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # A full disk may be reported only when the file is closed.
            with open(descriptor, "w") as writer:
                writer.write(secrets.token_hex(32))
            os.link(fresh, file)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return file.read_bytes()
