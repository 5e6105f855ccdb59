"""What this machine has, and what a model needs of it."""

from __future__ import annotations

import os
from pathlib import Path

from phikit.serve.facts import Facts

GIB = 1 << 30
OVERHEAD = 200 << 20  # bytes of a process and its compute buffers beside weights and cache


def memory() -> tuple[int, int]:
    """(total, available) bytes; a container's limit counts. (0, 0) where the system does not say."""
    total = available = 0
    try:
        rows = Path("/proc/meminfo").read_text().splitlines()
        values = {r.split(":")[0]: int(r.split()[1]) * 1024 for r in rows if r.endswith("kB")}
        total, available = values["MemTotal"], values["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        try:
            total = available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError):
            return 0, 0
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = int(Path(limit).read_text()), int(Path(used).read_text())
        except (OSError, ValueError):  # no such limit ("max")
            continue
        if most < total:
            total, available = most, min(available, max(most - now + _reclaimable(limit), 0))
    return total, available


def _reclaimable(limit: str) -> int:
    """Bytes of files that a container's memory holds and gives back when asked."""
    try:
        rows = (Path(limit).parent / "memory.stat").read_text().split("\n")
        return sum(int(r.split()[1]) for r in rows if r.split(" ")[0] in ("inactive_file", "active_file"))
    except (OSError, ValueError, IndexError):
        return 0


def cores() -> int:
    """CPU cores this process may use."""
    try:
        return max(len(os.sched_getaffinity(0)), 1)
    except AttributeError:
        return os.cpu_count() or 1


def needs(facts: Facts, context: int, parallel: int) -> int:
    """Bytes that a loaded model takes: weights, keys and values of every slot, buffers."""
    if facts.kind == "gguf":
        return facts.bytes + facts.cache_bytes * context * parallel + OVERHEAD
    return 4 * facts.parameters + facts.cache_bytes * context + 3 * OVERHEAD  # torch computes in fp32


def show(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
