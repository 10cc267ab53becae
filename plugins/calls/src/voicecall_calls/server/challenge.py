"""Whether a URL leads to this machine: only its key makes the answer to a challenge
(:mod:`voicecall_calls.probing`)."""

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
"""Name of the query parameter of a challenge."""
CHALLENGE_LIMIT = 128
_KEY_FILE = "probe.key"


def key_file(state_dir: Path) -> Path:
    """The file of this machine's key."""
    return state_dir / "voice-calls" / _KEY_FILE


def answering(state_dir: Path) -> Callable[[str], str]:
    """What this machine answers to a challenge. Its key is made where there is none yet."""
    file = key_file(state_dir)
    folder = file.parent
    try:
        # One after the other: the mode is for the last one only.
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be made ({error.strerror}); set VOICECALL_STATE_DIR"
        ) from None
    try:
        key = _key(file)
    except OSError as error:
        raise ConfigError(
            f"{file}: the key of setup --probe cannot be used ({error.strerror}); delete it, and"
            " see to it that the gateway's user may write there"
        ) from None
    return lambda challenge: hmac.new(key, challenge.encode(), hashlib.sha256).hexdigest()


def _key(file: Path) -> bytes:
    if file.exists() and not file.stat().st_size:
        # The power went before it was on the disk.
        file.unlink(missing_ok=True)
    if not file.exists():
        # Of two that make one at once the first counts.
        fresh = file.with_name(f"{_KEY_FILE}.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # What a full disk does not take is told at the end of the block.
            with open(descriptor, "w") as writer:
                writer.write(secrets.token_hex(32))
            os.link(fresh, file)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return file.read_bytes()
