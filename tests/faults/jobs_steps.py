"""Steps of a plan that a test can hold and kill: run by workers, which find this module by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from phikit.jobs.plan import Plan, Shard, Step, compile
from phikit.records.io import read_jsonl, write_jsonl, write_text

SHARDS = 5
LINES = 400


def plan(folder: Path) -> Plan:
    """Squares in SHARDS tasks, then their sum as a barrier, in `folder`."""
    for i in range(SHARDS):
        write_jsonl(folder / "in" / f"{i}.jsonl", ({"n": i * LINES + j} for j in range(LINES)))
    squares = tuple(f"squares/{i}.jsonl.zst" for i in range(SHARDS))
    shards = [Shard({"shard": i}, (f"in/{i}.jsonl",), (squares[i],)) for i in range(SHARDS)]
    last = Shard({}, squares, ("sum.jsonl",))
    return compile(folder, [Step("square", square, shards), Step("sum", add, [last], "group")])


def square(options, reads, writes):
    control = reads[0].parent
    name = f"{options['shard']}"
    with (control / "journal").open("a") as f:
        f.write(f"{name}\n")
    write_jsonl(writes[0], ({"n": row["n"] ** 2} for row in read_jsonl(reads[0])))
    if (control / f"poison-{name}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (control / f"hold-{name}").exists():
        (control / f"hold-{name}").unlink()  # the next try goes through
        write_text(control / f"pid-{name}", str(os.getpid()))
        time.sleep(120)
    return {"in": LINES, "out": LINES}


def add(options, reads, writes):
    total = sum(row["n"] for path in reads for row in read_jsonl(path))
    write_jsonl(writes[0], [{"sum": total}])
    return {"sum": total}


def bytes_of(folder: Path) -> dict[str, bytes]:
    """What a plan left: its file, its notes, its outputs; drafts would show."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.parent.name != "in"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def journal(folder: Path) -> list[str]:
    return sorted((folder / "in" / "journal").read_text().split())


def held(folder: Path, shard: int, seconds: float = 60) -> int:
    """The process that holds a shard, when it does."""
    path = folder / "in" / f"pid-{shard}"
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"no worker held shard {shard}"
        time.sleep(0.02)
    return int(path.read_text())
