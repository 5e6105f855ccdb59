"""One sandboxed interpreter: started with nothing to do, handed its program later, and read until it ends.

The time between is what makes a sandbox cheap: the namespaces and the interpreter of the next program come up while
the last one runs (`sandbox.run`).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST = 9  # times the wall limit: what a program gets in addition where it waits for a CPU
IDLE = 30  # seconds that an interpreter waits for its program before it ends by itself

# Runs inside, before the program: uid, limits, then the program as __main__ of the same interpreter (a second
# interpreter start would cost as much as everything else). Built-in modules only, but for resource: to import os takes
# 1 ms, json 10. The task ends where its marshal does, not where the pipe does: a fork of the parent may hold the pipe.
LAUNCHER = r"""
def _main():
    import _signal, io, marshal, posix, resource, sys
    _signal.alarm(IDLE)
    task = marshal.load(sys.stdin.buffer)
    _signal.alarm(0)
    null = posix.open("/dev/null", posix.O_RDONLY)
    posix.dup2(null, 0)
    posix.close(null)
    if task["uid"]:
        posix.setgroups([])
        posix.setresgid(task["uid"], task["uid"], task["uid"])
        posix.setresuid(task["uid"], task["uid"], task["uid"])
    if 0 in posix.getresuid() and task["uid"] is not None:
        posix._exit(125)
    for name, soft, hard in task["limits"]:
        kind = getattr(resource, name)
        top = resource.getrlimit(kind)[1]
        cap = hard if top == resource.RLIM_INFINITY else min(hard, top)
        resource.setrlimit(kind, (min(soft, cap), cap))
    sys.stdin = io.StringIO(task["stdin"])
    sys.argv = ["program.py"]
    return compile(task["program"], "program.py", "exec")
_code = _main()
del _main
exec(_code, {"__name__": "__main__", "__builtins__": __builtins__})
""".replace("IDLE", str(IDLE))


@dataclass(frozen=True, slots=True)
class Ended:
    """`over`: the wall limit ended it. The outputs are cut to what was asked to be kept."""

    code: int
    over: bool
    out: bytes
    err: bytes
    seconds: float


class SandboxProcess:
    """`command` ends in an interpreter that runs LAUNCHER; `dropped` are Popen's arguments for another user. For one
    program, and for the thread that made it: bubblewrap ends with that thread (--die-with-parent). Raises OSError where
    it cannot be started."""

    def __init__(self, command: Sequence[str], dropped: dict[str, Any]) -> None:
        pipe = subprocess.PIPE
        self.owner, self.born = os.getpid(), time.monotonic()
        self.process = subprocess.Popen(
            command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, env={}, cwd="/", **dropped
        )

    @property
    def is_ready(self) -> bool:
        """Whether a program may still be handed over: ours, alive, and far from ending by itself."""
        fresh = self.owner == os.getpid() and time.monotonic() - self.born < IDLE / 2
        return fresh and self.process.poll() is None

    def hand_over(self, task: bytes) -> memoryview:
        """Writes the program as far as the pipe takes it; returns the rest, for `finish`."""
        assert self.process.stdin is not None
        os.set_blocking(self.process.stdin.fileno(), False)
        return self._write(memoryview(task))

    def finish(self, rest: memoryview, wall: float, keep: int) -> Ended:
        """Reads to the end, `wall` seconds at most, without those that it stood in the queue for a CPU. Of each output
        the first `keep` bytes stay: a flood must not fill our memory."""
        process, begin, over = self.process, time.monotonic(), False
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        kept = {process.stdout: bytearray(), process.stderr: bytearray()}
        with selectors.DefaultSelector() as selector:
            for stream in kept:
                selector.register(stream, selectors.EVENT_READ)
            if rest:
                selector.register(process.stdin, selectors.EVENT_WRITE)
            while selector.get_map():
                left = None if over else self._left(begin, wall)
                if left == 0:
                    over, left = True, None
                    process.kill()  # --die-with-parent takes the namespace down with it
                for key, _ in selector.select(left):
                    stream = key.fileobj
                    if stream is process.stdin:
                        rest = self._write(rest)
                        if not rest:
                            selector.unregister(stream)
                    elif chunk := os.read(key.fd, 1 << 16):
                        some = kept[stream]  # type: ignore[index]
                        some += chunk[: keep - len(some)]
                    else:
                        selector.unregister(stream)
        # A program may have closed its outputs and go on.
        while not over:
            try:
                process.wait(self._left(begin, wall))
                break
            except subprocess.TimeoutExpired:
                if over := self._left(begin, wall) == 0:
                    process.kill()
        code = process.wait()
        seconds = time.monotonic() - begin
        self.close()
        out, err = (bytes(x) for x in kept.values())
        return Ended(code, over, out, err, seconds)

    def _left(self, begin: float, wall: float) -> float:
        """Seconds until the wall limit."""
        left = begin + wall - time.monotonic()
        if left <= 0:  # worth asking only then
            left += min(_queued(self.process.pid), LONGEST * wall)
        return max(0.0, left)

    def close(self) -> None:
        """Ends it, whatever it does. In a fork of its owner only the pipes are closed."""
        if self.owner != os.getpid():
            self.process.returncode = 0  # not our child: nothing to wait for
        elif self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def __del__(self) -> None:
        if hasattr(self, "process"):  # else it did not start
            self.close()

    def _write(self, rest: memoryview) -> memoryview:
        assert self.process.stdin is not None
        with contextlib.suppress(BlockingIOError):
            try:
                return rest[os.write(self.process.stdin.fileno(), rest) :]
            except BrokenPipeError:  # it ended before it read: its exit code and stderr tell why
                return rest[len(rest) :]
        return rest


def _queued(pid: int) -> float:
    """Seconds that a process or one of its descendants, whichever had most, was ready to run and had no CPU; 0 where
    the kernel does not tell."""
    try:
        seconds = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0.0
    return max([seconds, *(_queued(int(c)) for c in children)])
