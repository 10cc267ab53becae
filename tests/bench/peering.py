"""The peers of the benchmarks: installed in their own environment, started as servers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["node", "prepare", "python"]

_HERE = Path(__file__).parent / "peers"
_ENVIRONMENT = Path(__file__).parents[2] / ".bench"
_PYTHON = _ENVIRONMENT / "venv" / "bin" / "python"
_NODE = _ENVIRONMENT / "ws"


def prepare() -> None:
    """Install the peers, unless these versions are installed already. Raises
    ``subprocess.CalledProcessError`` or ``OSError`` if that fails."""
    uv = str(Path(sys.executable).with_name("uv"))
    wanted = _HERE / "requirements.txt"
    if not _same(wanted, _ENVIRONMENT / wanted.name):
        subprocess.run([sys.executable, "-m", "venv", _PYTHON.parents[1]], check=True)
        install = [uv, "pip", "install", "--quiet", "--system-certs", "--python", str(_PYTHON)]
        subprocess.run([*install, "-r", str(wanted)], check=True)
        shutil.copy(wanted, _ENVIRONMENT)
    if not _same(_HERE / "ws" / "package-lock.json", _NODE / "package-lock.json"):
        shutil.rmtree(_NODE, ignore_errors=True)
        shutil.copytree(_HERE / "ws", _NODE)
        try:
            subprocess.run(
                ["npm", "ci", "--silent", "--ignore-scripts", "--no-audit"], cwd=_NODE, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            shutil.rmtree(_NODE)
            raise


def _same(one: Path, other: Path) -> bool:
    return other.exists() and other.read_bytes() == one.read_bytes()


def python(name: str, *arguments: str) -> Sequence[str]:
    """The command of a peer written in Python. Its folder is not on ``sys.path``: a peer may have
    the name of the package that it imports."""
    return [str(_PYTHON), "-P", str(_HERE / f"{name}.py"), *arguments]


def node(*arguments: str) -> Sequence[str]:
    """The command of the peer on Node."""
    return ["node", str(_NODE / "server.js"), *arguments]
