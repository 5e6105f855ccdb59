"""Tasks on Ray: one Ray task for each of ours, never Ray's blocks, so that bytes are those of the local pool.

Nothing but the task and its outcome passes through Ray; files are in the plan's folder, which every machine of the
cluster must see under the same path, and phikit must be installed on each.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import warnings
from pathlib import Path
from typing import Any

from phikit.jobs.plan import Task
from phikit.jobs.task import FINAL, RETRYABLE, Outcome, attempt, finished, one_core

ANSWER = 5.0  # seconds in which an address must answer
LAG = 10.0  # seconds in which a file of another machine must show up in the shared folder
STORE = (
    100_000_000  # bytes of the object store of a cluster of our own: only tasks and outcomes pass through it
)
AHEAD = 64  # tasks queued at least, so that a cluster that grows on demand sees the demand


class Cluster:
    """A connection to Ray. `on`: `ray`, `ray://host:port` (a client's), or `host:port` (of the head node). Raises
    ValueError where Ray is not installed, or nothing answers there. `cpus`: of a cluster of our own; all, without."""

    connected = ""  # the `on` of this process's connection, where we made it

    def __init__(self, on: str, cpus: int | None = None) -> None:
        self.ray = _import_ray()
        self.ours = not self.ray.is_initialized()
        if not self.ours:
            if Cluster.connected not in ("", on):
                raise ValueError(
                    f"--on {on}: this process is connected to {Cluster.connected}, and Ray allows one"
                )
            return
        address = os.environ.get("RAY_ADDRESS", "") if on == "ray" else on
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if not address:
            # Ray's own choice is 15: on a busy machine such workers starve.
            os.environ.setdefault("RAY_worker_niceness", "0")
            # On loopback: whoever reaches a Ray cluster may run code on it.
            quiet |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": STORE,
                      "_node_ip_address": "127.0.0.1"}  # fmt: skip
        else:
            _check_answers(address)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's notes on its own coming defaults
            try:
                self.ray.init(address=address or "local", **quiet)
            except (ConnectionError, RuntimeError, TimeoutError, ValueError) as e:
                raise ValueError(f"--on {on}: Ray at {address or 'this machine'} cannot be used: {e}") from e
        Cluster.connected = on

    def cpus(self) -> int:
        return int(self.ray.cluster_resources().get("CPU", 1))

    def close(self) -> None:
        if self.ours and self.ray.is_initialized():
            self.ray.shutdown()
            Cluster.connected = ""


class OnRay:
    """`run.Workers` on Ray. Ray's own retries are off: a try is counted the same everywhere."""

    def __init__(self, folder: Path, on: str, cpus: int) -> None:
        self.folder = folder.resolve()
        self.cluster = Cluster(on, cpus)
        self.ray = self.cluster.ray
        self.limit = max(AHEAD, 4 * self.cluster.cpus())
        self.run = self.ray.remote(num_cpus=1, max_retries=0)(run_far)
        self.running: dict[Any, Task] = {}

    def free(self) -> bool:
        return len(self.running) < self.limit

    def give(self, task: Task) -> None:
        self.running[self.run.remote(str(self.folder), os.getcwd(), task)] = task

    def take(self, timeout: float | None) -> list[tuple[Task, Outcome]]:
        refs, _ = self.ray.wait(list(self.running), num_returns=1, timeout=timeout)
        return [(task, self._outcome(ref, task)) for ref in refs if (task := self.running.pop(ref))]

    def close(self) -> None:
        for ref in self.running:
            self.ray.cancel(ref, force=True)
        self.running.clear()
        self.cluster.close()

    def _outcome(self, ref: Any, task: Task) -> Outcome:
        errors = self.ray.exceptions
        try:
            outcome = self.ray.get(ref)
        except errors.RayTaskError as e:  # `attempt` raises nothing: Ray could not call it
            reason = f"a worker cannot run it: {_line(e)}; install the same phikit on all machines"
            return Outcome(task.key, FINAL, reason=reason)
        except errors.RayError as e:
            return Outcome(task.key, RETRYABLE, reason=f"its worker died: {_line(e)}")
        if outcome.ok and not self._visible(task):
            reason = (
                f"its files do not show up in {self.folder}: keep the run in a folder that all machines share"
            )
            return Outcome(task.key, FINAL, reason=reason)
        return outcome

    def _visible(self, task: Task) -> bool:
        end = time.monotonic() + LAG
        while not finished(self.folder, task):
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True


def run_far(folder: str, here: str, task: Task) -> Outcome:
    """On a machine of the cluster. `here`: the driver's working folder, for relative paths in a task's options."""
    one_core()
    with contextlib.suppress(OSError):
        os.chdir(here)
    return attempt(Path(folder), task, far=True)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if _has_token():  # Ray asks for it by default only where it starts the cluster itself
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # leave CUDA_VISIBLE_DEVICES as it is
    try:
        import ray
    except ImportError as e:
        raise ValueError("--on ray needs Ray: pip install 'phikit[ray]'") from e
    return ray


def _has_token() -> bool:
    """Whether Ray finds a token for clusters with authentication: the usual places, see `ray get-auth-token`."""
    named = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return named or (Path.home() / ".ray" / "auth_token").is_file()


def _check_answers(address: str) -> None:
    """A connection within ANSWER seconds; Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
    except (OSError, ValueError, OverflowError) as e:
        raise ValueError(
            f"--on {address}: nothing answers there ({e}); `ray start --head` starts a cluster, `ray status` shows one"
        ) from e


def _line(e: Exception) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return (lines[-1] if lines else type(e).__name__)[:300]
