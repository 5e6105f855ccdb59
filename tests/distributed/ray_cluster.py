"""A Ray cluster of two CPUs on loopback, and drivers that use it: processes of their own, as a user's are."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
# prctl(PR_SET_PDEATHSIG, SIGTERM): a killed pytest leaves no cluster.
DIES_WITH_ITS_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"
)
TOKEN = secrets.token_hex(16)  # without it nobody may run code on the cluster


def environment() -> dict[str, str]:
    """RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 keeps Ray on loopback, on Linux too; its workers are at niceness 15 unless
    told otherwise."""
    folders = (TESTS.parent / "src", TESTS / "faults", TESTS / "unit", TESTS / "unit" / "stand_in")
    paths = os.pathsep.join(map(str, folders))
    return {
        **os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PHIKIT_QUIET": "1",
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": TOKEN, "RAY_AUTH_MODE": "token",
        "RAY_worker_niceness": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }  # fmt: skip


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def socket_closed(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) != 0


@contextlib.contextmanager
def cluster() -> Iterator[tuple[str, str]]:
    """(address of the head, address for clients) of a cluster of two CPUs; it ends with the block, and nobody else's
    does."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: its sockets' paths have a limit
    head, client = free_port(), free_port()
    command = [
        sys.executable, "-c", DIES_WITH_ITS_PARENT, sys.executable, "-m", "ray.scripts.scripts",
        "start", "--head", "--block", "--node-ip-address=127.0.0.1",
        f"--port={head}", f"--ray-client-server-port={client}", "--num-cpus=2", "--object-store-memory=100000000",
        "--include-dashboard=false", f"--temp-dir={folder}", "--min-worker-port=0", "--max-worker-port=0",
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env=environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            end = time.monotonic() + 120
            while socket_closed(head):
                log.seek(0)
                assert process.poll() is None, log.read()
                assert time.monotonic() < end, log.read()
                time.sleep(0.2)
            yield f"127.0.0.1:{head}", f"ray://127.0.0.1:{client}"
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


class Unreachable(Exception):
    """Ray did not let a driver in: nothing has run yet."""


@contextlib.contextmanager
def driver(script: str, *args: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", script, *args]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen) -> str:
    """The last line it printed. Raises Unreachable where a machine under load took too long to let it in."""
    out, err = process.communicate(timeout=240)
    if process.returncode and "cannot be used" in err:
        raise Unreachable(err)
    assert process.returncode == 0, out + err
    return out.strip().splitlines()[-1]
