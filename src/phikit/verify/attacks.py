"""The sandbox's self-test: programs that try to get out or to take too much, each of which must be contained.

They are harmless where they succeed (the fork bomb makes at most 100 sleeping processes). The network attack
connects to a socket that this process listens on, so it says something on a machine without a network too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phikit.verify import sandbox
from phikit.verify.sandbox import Limits

_LIMITS = Limits(cpu_seconds=1, processes=12)
_FORKS = """
import os, time
n = 0
try:
    while n < 100:
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        n += 1
except OSError:
    pass
print("forks", n)
"""
_FILL = """
n = 0
try:
    for i in range(100):
        with open(f"/tmp/{i}", "wb") as f:
            f.write(bytes(1 << 20))
        n += 1
except OSError:
    print("stopped at", n)
else:
    print("ESCAPED")
"""


@dataclass(frozen=True, slots=True)
class Attack:
    name: str
    contained: bool
    detail: str


def selftest() -> list[Attack]:
    """Runs every attack; ValueError where no sandbox works (nothing is run then)."""
    if reason := sandbox.available():
        raise ValueError(f"no sandbox to test: {reason}")
    return list(_attacks())


def _attacks() -> Iterator[Attack]:
    with socket.create_server(("127.0.0.1", 0)) as server, _abstract() as name, _secret() as secret:
        port, pid = server.getsockname()[1], os.getpid()
        yield _raises("network", f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
        yield _raises("local socket", f"import socket; socket.socket(socket.AF_UNIX).connect({name!r})")
        yield _raises("read /etc/shadow", "open('/etc/shadow').read()")
        yield _raises("read the user's files", f"open({str(secret)!r}).read()")
        yield _raises("list a folder of the user's", f"import os; os.listdir({str(secret.parent)!r})")
        yield _raises("read our own source", f"open({__file__!r}).read()")
        yield _raises("write to /usr", "open('/usr/phikit-was-here', 'w')")
        yield _raises("write to the root", "open('/phikit-was-here', 'w')")
        yield _raises("signal a process outside", f"import os; os.kill({max(pid, 10_000)}, 0)")
        yield _raises("become root again", "import os; os.setuid(0); os.setresuid(0, 0, 0); open('/dev/mem')")
        yield _raises("memory", "x = bytearray(3 << 30)")
        yield _raises("big file", f"open('/tmp/big', 'wb').write(bytes({_LIMITS.file_mb + 1} << 20))", 2)
        filled = sandbox.run(_FILL, limits=_LIMITS)
        yield Attack("fill /tmp", filled.stdout.startswith("stopped"), filled.stdout.strip() or filled.status)
        busy = sandbox.run("while True: pass", limits=_LIMITS)
        yield Attack("busy loop", busy.status == "timeout", f"{busy.status} after {busy.seconds:.1f} s")
        bomb = sandbox.run(_FORKS, limits=_LIMITS)
        words = bomb.stdout.split()
        stopped = len(words) == 2 and int(words[1]) < _LIMITS.processes
        yield Attack("fork bomb", stopped, bomb.stdout.strip() or bomb.status)
        flood = sandbox.run("while True: print('x' * 100000)", limits=_LIMITS)
        short = len(flood.stdout) <= _LIMITS.output_bytes
        yield Attack(
            "flood of output", short and flood.status == "timeout", f"kept {len(flood.stdout)} bytes"
        )


def _raises(name: str, attempt: str, cpu_seconds: int = 1) -> Attack:
    """An attack that is contained when the program ends with an OSError or MemoryError."""
    program = f"try:\n    {attempt}\nexcept (OSError, MemoryError) as e:\n    print(type(e).__name__, e)\n"
    limits = Limits(cpu_seconds=cpu_seconds, processes=_LIMITS.processes)
    result = sandbox.run(program + "else:\n    print('ESCAPED')\n", limits=limits)
    contained = result.status == "ok" and "ESCAPED" not in result.stdout
    return Attack(name, contained, (result.stdout or result.stderr or result.status).strip()[-200:])


@contextlib.contextmanager
def _abstract() -> Iterator[str]:
    """The name of a listening local socket without a file: only a network namespace keeps a program from it."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("")  # the kernel chooses a free name
        server.listen()
        yield server.getsockname().decode("latin-1")


@contextlib.contextmanager
def _secret() -> Iterator[Path]:
    """A file of ours that everybody may read: only the sandbox keeps the program from it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "secret"
        path.write_text("secret")
        path.chmod(0o644)
        yield path
