"""The process behind LlamaEngine and the server's models, seen from the parent: started, asked, and ended for sure."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec

from phikit.engine import wire

Replies = SimpleQueue[wire.Reply]


class EngineCrashed(RuntimeError):
    """An engine's process ended; the message names the model and what the process last said."""


class Child:
    """Thread-safe. Raises ValueError when the model cannot be loaded."""

    def __init__(
        self, model: Path, context: int, parallel: int, threads: int, program: str = "llama_worker"
    ) -> None:
        """`program` is a module of this folder that speaks `wire`."""
        self.model, self.what = model, {"llama_worker": "llama.cpp"}.get(program, "torch")
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close())
        arguments = [str(model), str(context), str(parallel), str(threads)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"phikit.engine.{program}", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            # A failed assert must end the process, not start a debugger on it, which was seen to hang.
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GGML_NO_BACKTRACE": "1"},
        )  # fmt: skip
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.writing = threading.Lock()
        self.lock = threading.Lock()  # what follows
        self.waiting: dict[int, Replies] = {}
        self.next = 0
        self.dead: str | None = None
        self._decoder = msgspec.msgpack.Decoder(wire.Reply)
        body = wire.read_frame(self.stdout)
        hello = self._decoder.decode(body) if body else None
        if not isinstance(hello, wire.Ready):
            why = hello.message if isinstance(hello, wire.Fault) else self._last_words()
            self.close()
            raise ValueError(f"{model}: {self.what} cannot load this model: {why}")
        self.reader = threading.Thread(target=self._read, name="engine-reader", daemon=True)
        self.reader.start()

    def ask(self, make: Callable[[int], wire.Request]) -> wire.Value:
        """The value that answers the one request."""
        replies: Replies = SimpleQueue()
        self.send([make], replies)
        reply = replies.get()
        self.check(reply)
        assert isinstance(reply, wire.Value)
        return reply

    def send(self, makes: Sequence[Callable[[int], wire.Request]], replies: Replies) -> list[int]:
        """Sends the requests, each made from its id; their replies come on the queue. Raises EngineCrashed."""
        with self.lock:
            if self.dead:
                raise EngineCrashed(self.dead)
            ids = list(range(self.next + 1, self.next + 1 + len(makes)))
            self.next += len(makes)
            self.waiting.update((i, replies) for i in ids)
        self._write([make(i) for make, i in zip(makes, ids)])
        return ids

    def check(self, reply: wire.Reply) -> None:
        """Raises what a Fault says."""
        if not isinstance(reply, wire.Fault):
            return
        if reply.id < 0:
            raise EngineCrashed(reply.message)
        kind = ValueError if reply.bad else RuntimeError
        raise kind(f"{self.model.name}: {reply.message}")

    def forget(self, ids: Sequence[int]) -> None:
        with self.lock:
            for i in ids:
                self.waiting.pop(i, None)

    def cancel(self, ids: Sequence[int]) -> None:
        """Stops the work on requests whose replies nobody wants any more."""
        self.forget(ids)
        if ids and not self.dead:
            self._write([wire.Cancel(list(ids))])

    def close(self) -> None:
        with self.lock:
            self.dead = self.dead or f"{self.model}: the engine was closed"
        # Closing stdin ends the process. A thread that is writing is let finish: it will not block for long.
        with self.writing, suppress(BrokenPipeError):
            self.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if hasattr(self, "reader") and self.reader is not threading.current_thread():
            self.reader.join(5)
        self.stdout.close()
        if not self.log.closed:
            self.log.close()

    def _write(self, messages: Sequence[wire.Request]) -> None:
        # A broken pipe is noticed by the reader too, which fails whoever waits with the reason.
        with self.writing, suppress(BrokenPipeError, ValueError):
            self.stdin.write(wire.frames(messages))
            self.stdin.flush()

    def _read(self) -> None:
        while (body := wire.read_frame(self.stdout)) is not None:
            reply: Any = self._decoder.decode(body)
            with self.lock:
                replies = self.waiting.get(reply.id)
                if isinstance(reply, wire.Value | wire.Fault):
                    self.waiting.pop(reply.id, None)
            if replies is not None:  # else cancelled
                replies.put(reply)
        words = self._last_words()
        with self.lock:
            self.dead = self.dead or f"{self.model}: the {self.what} process ended: {words}"
            left = {id(q): q for q in self.waiting.values()}
            self.waiting.clear()
        for replies in left.values():
            replies.put(wire.Fault(-1, self.dead, False))

    def _last_words(self) -> str:
        code = self.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if code == -signal.SIGALRM:
            how = "no first token within the time a sound file needs"
        self.log.seek(0)
        lines = [x.strip() for x in self.log.read().decode("utf-8", "replace").splitlines() if x.strip()]
        # What failed stands before the frames of the stack.
        failed = [i for i, x in enumerate(lines) if re.search("GGML_ASSERT|GGML_ABORT|terminate called", x)]
        lines = lines[failed[-1] :][:2] if failed else lines[-3:]
        return f"{how}" + (f", last output: {' | '.join(lines)[:400]}" if lines else "")
