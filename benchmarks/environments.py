"""Environments of the peers: each is made once, and kept."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks.roster import Peer

__all__ = ["InstallationError", "interpreter"]

_LONGEST = 600.0


class InstallationError(Exception):
    """A peer could not be installed, and why."""


def interpreter(peer: Peer, folder: Path) -> Path:
    """Return the interpreter of a peer's environment, which is made if there is none yet.

    Args:
        peer: What to install.
        folder: Where environments are kept; deleting it renews them.

    Raises:
        InstallationError: It could not be made.
    """
    # Part of the name, so that other requirements make another environment.
    digest = hashlib.sha256("\n".join((*peer.requirements, sys.version)).encode()).hexdigest()[:8]
    home = folder.resolve() / f"{peer.name}-{digest}"
    python = home / "bin" / "python"
    complete = home / "complete"
    if not complete.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(home)])
        _run([str(python), "-m", "pip", "install", "--quiet", *peer.requirements])
        complete.touch()
    return python


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LONGEST)
    except subprocess.TimeoutExpired as exc:
        msg = f"gave up after {_LONGEST:.0f} s"
        raise InstallationError(msg) from exc
    except (subprocess.CalledProcessError, OSError) as exc:
        said = getattr(exc, "stderr", "") or str(exc)
        raise InstallationError(said.strip().splitlines()[-1]) from exc
