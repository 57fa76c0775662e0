"""What the figures were measured on, and how long importing takes on it."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

__all__ = ["describe_load", "describe_machine", "import_time"]

_PROGRAM = """
import time
{before}
begin = time.perf_counter()
{measured}
print(time.perf_counter() - begin)
"""


def describe_machine() -> dict[str, str]:
    """Describe the machine in a few lines."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load before": describe_load(),
    }


def describe_load() -> str:
    """Say how many programs wanted to run; more than there are cores, and figures suffer."""
    return ", ".join(f"{load:.2f}" for load in os.getloadavg())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{pages * size / 2**30:.0f} GiB"


def import_time(measured: str, *, before: str, rounds: int, python: Path | None = None) -> float:
    """Return the median seconds of *measured*, an import, after *before*, in new interpreters."""
    program = _PROGRAM.format(before=before, measured=measured)
    root = Path(__file__).resolve().parent.parent
    # One more than counts: the first one may have to compile.
    times = [
        float(
            subprocess.run(
                [str(python or sys.executable), "-c", program],
                check=True,
                capture_output=True,
                text=True,
                timeout=60,
                cwd=root,
            ).stdout
        )
        for _ in range(rounds + 1)
    ]
    return statistics.median(times[1:])
