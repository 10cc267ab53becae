"""Secrets that a program supplies.

The program reads ``{"protocolVersion": 1, "provider": name, "ids": [...]}`` from stdin and writes
``{"protocolVersion": 1, "values": {id: text}, "errors": {id: {"code": ...}}}`` to stdout
(OpenClaw's exec secret protocol).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .secretrefs import ExecProvider, SecretError

__all__ = ["ask_program"]

PROTOCOL = 1
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_running: set[subprocess.Popen[bytes]] = set()
"""Programs that have not answered yet."""


def ask_program(
    name: str, provider: ExecProvider, ids: Sequence[str], environ: Mapping[str, str]
) -> Mapping[str, str | SecretError]:
    """A value, or why there is none, for each id. Raises :exc:`SecretError` if the program as a
    whole fails. Its stderr is discarded, because it could contain a secret."""
    command = _trusted(provider)
    question = json.dumps({"protocolVersion": PROTOCOL, "provider": name, "ids": list(ids)})
    env = {key: environ[key] for key in provider.pass_env if key in environ} | dict(provider.env)
    output = _run([str(command), *provider.args], question.encode(), env, provider)
    return _answers(output, ids, provider)


def _trusted(provider: ExecProvider) -> Path:
    path = Path(provider.command)
    if not path.is_absolute():
        raise SecretError(f"{provider.command} must be an absolute path")
    try:
        about = path.lstat()
        real = path.resolve(strict=True)
        roots = [Path(root).resolve(strict=True) for root in provider.trusted_dirs]
    except OSError as error:
        raise SecretError(f"{path} cannot be used: {error.strerror}") from None
    except ValueError:
        raise SecretError("the path contains an invalid character") from None
    if stat.S_ISLNK(about.st_mode):
        raise SecretError(f"{path} is a symbolic link; name the program itself")
    if not stat.S_ISREG(about.st_mode) or not os.access(path, os.X_OK):
        raise SecretError(f"{path} is not a program that can be run")
    if about.st_uid not in (os.geteuid(), 0) or about.st_mode & 0o022:
        raise SecretError(f"{path} can be changed by others: chmod go-w it, or own it")
    if roots and not any(real.is_relative_to(root) for root in roots):
        raise SecretError(f"{path} is outside of trustedDirs")
    return path


def _run(
    arguments: Sequence[str], question: bytes, env: Mapping[str, str], provider: ExecProvider
) -> bytes:
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(env),
            cwd="/",
            # Its own process group, so that whatever it starts can be killed with it.
            start_new_session=True,
        )
    except OSError as error:
        raise SecretError(f"{arguments[0]} cannot be run: {error.strerror}") from None
    _running.add(process)
    with process:
        try:
            output = _converse(process, question, provider)
        except BaseException:
            _kill(process)
            raise
        finally:
            _running.discard(process)
    if process.returncode != 0:
        raise SecretError(f"{arguments[0]} failed with status {process.returncode}")
    return output


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@atexit.register
def _kill_all() -> None:
    """Kill programs that have not answered: the threads that wait for them end with this
    process."""
    for process in list(_running):
        _kill(process)


def _converse(process: subprocess.Popen[bytes], question: bytes, provider: ExecProvider) -> bytes:
    """Write the question and read the answer as the program is ready for them."""
    if process.stdin is None or process.stdout is None:
        raise SecretError(f"{provider.command} has no pipes")
    output = bytearray()
    now = time.monotonic()
    deadline = now + provider.timeout_ms / 1000
    patience = (provider.no_output_timeout_ms or provider.timeout_ms) / 1000
    quiet = now + patience
    with selectors.DefaultSelector() as selector:
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ)
        reading = True
        while reading:
            left = min(deadline, quiet) - time.monotonic()
            if left <= 0:
                raise SecretError(f"{provider.command} did not answer in time")
            for key, _ in selector.select(left):
                if key.fileobj is process.stdin:
                    question = _write(key.fd, question)
                    if not question:
                        selector.unregister(process.stdin)
                        with contextlib.suppress(BrokenPipeError):
                            process.stdin.close()
                    continue
                chunk = os.read(key.fd, 65536)
                reading = bool(chunk)
                output += chunk
                quiet = time.monotonic() + patience
                if len(output) > provider.max_output_bytes:
                    raise SecretError(
                        f"{provider.command} wrote more than {provider.max_output_bytes} bytes"
                    )
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise SecretError(f"{provider.command} did not end in time") from None
    return bytes(output)


def _write(descriptor: int, question: bytes) -> bytes:
    """Write what fits; returns what is left."""
    try:
        return question[os.write(descriptor, question) :]
    except BlockingIOError:
        return question
    except BrokenPipeError:
        # A program that does not read the question may still know the answer.
        return b""


def _answers(
    output: bytes, ids: Sequence[str], provider: ExecProvider
) -> Mapping[str, str | SecretError]:
    try:
        document: Any = json.loads(output)
    except (ValueError, RecursionError):
        document = None
    if not provider.json_only and len(ids) == 1 and not isinstance(document, dict):
        value = output.decode("utf-8", "replace").strip()
        return {ids[0]: value or SecretError(f"{provider.command} wrote nothing")}
    if not isinstance(document, dict) or document.get("protocolVersion") != PROTOCOL:
        raise SecretError(f"{provider.command} did not answer with JSON of protocol {PROTOCOL}")
    values, errors = document.get("values"), document.get("errors")
    return {
        secret_id: _answer(
            values if isinstance(values, dict) else {},
            errors if isinstance(errors, dict) else {},
            secret_id,
        )
        for secret_id in ids
    }


def _answer(
    values: Mapping[str, Any], errors: Mapping[str, Any], secret_id: str
) -> str | SecretError:
    if secret_id in errors:
        error = errors[secret_id]
        code = error.get("code") if isinstance(error, dict) else None
        known = isinstance(code, str) and _CODE.fullmatch(code)
        return SecretError(f"the program answers {code if known else 'an error'} for {secret_id}")
    value = values.get(secret_id)
    if not isinstance(value, str) or not value:
        return SecretError(f"the program returns no non-empty string for {secret_id}")
    return value
