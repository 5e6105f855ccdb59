"""Equality of mathematical expressions, sets, intervals, tuples and matrices by math-verify, in bounded time.

math-verify (SymPy) may think for ever about what a model wrote, and its own time limit works in the main thread
only. So it runs in one child process with limits on memory and on CPU time, asked over a pipe, and started again
when a comparison has ended it. An answer that cannot be decided is not equal.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import re
import select
import subprocess
import sys
import threading

SECONDS = 2.0  # of CPU time for one comparison; usual ones take 0.01 s
WALL_FACTOR = 10  # the child is killed after this times SECONDS
START_SECONDS = 120.0  # importing SymPy takes 1 s, on a busy machine far longer
MAX_LENGTH = 300  # characters of an expression; longer ones are compared as text only
_lock = threading.Lock()
_FUNCTIONS = (
    "sin|cos|tan|cot|sec|csc|log|exp|sqrt|arcsin|arccos|arctan|max|min|gcd|lcm|mod|cup|cap|inf|infty|and|or"
)
_WORDS = re.compile(rf"(?<![\\a-zA-Z])(?!(?:{_FUNCTIONS})\b)[a-zA-Z]{{3,}}")
_MATH = re.compile(r"[\d\\=+*/^<>()\[\]{}-]|^\s*[a-zA-Z]\s*$")


def comparable(text: str) -> bool:
    """Whether a text looks like mathematics. Words do not: as products of letters, "dog" would equal "god"."""
    bare = re.sub(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}", " ", text)
    return len(text) <= MAX_LENGTH and bool(_MATH.search(bare)) and not _WORDS.search(bare)


@functools.lru_cache(maxsize=65_536)
def equivalent(answer: str, reference: str) -> bool:
    """Whether two expressions are equal: unordered where they are sets or lists, ordered where they are tuples,
    with their ends where they are intervals; `x = 5` equals 5. Undecided is False.

    Raises ValueError where math-verify is not installed."""
    if not (comparable(answer) and comparable(reference)):
        return False
    with _lock:
        for _ in range(2):  # a child that ended while idle is started once more
            try:
                return _child().ask(answer, reference)
            except BrokenPipeError:
                close()
            except (TimeoutError, EOFError):
                close()
                return False
    return False


class _Child:
    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-m", "phikit.verify.symbolic_child"],
            stdin=pipe,
            stdout=pipe,
            text=True,
            bufsize=1,
        )
        started = self._read(START_SECONDS)
        if started != "ready":
            self.end()
            raise ValueError(
                f"math answers need math-verify: pip install math-verify ({started or 'it did not start'})"
            )

    def ask(self, answer: str, reference: str) -> bool:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([answer, reference, SECONDS]) + "\n")
        self.process.stdin.flush()
        said = self._read(WALL_FACTOR * SECONDS)
        if not said:
            raise EOFError("the comparison ended the child")
        return said == "equal"

    def _read(self, seconds: float) -> str:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise TimeoutError
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


_running: list[_Child] = []


def _child() -> _Child:
    if not _running:
        _running.append(_Child())
    return _running[0]


@atexit.register
def close() -> None:
    """Ends the child; the next comparison starts another."""
    while _running:
        _running.pop().end()
