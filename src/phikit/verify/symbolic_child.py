"""The child of `symbolic`: reads a JSON pair of expressions a line, answers equal or different. Not imported."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import sys

MEMORY = 2 << 30  # bytes of address space


class _OutOfTime(BaseException):
    """Not an Exception: libraries must not swallow it."""


def _stop(*_: object) -> None:
    raise _OutOfTime


def main() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # no such limit here: the time limit stays
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stdout = sys.stderr = io.StringIO()  # what libraries print is no answer
    logging.disable(logging.CRITICAL)
    try:
        from math_verify import LatexExtractionConfig, parse, verify
    except ImportError as e:
        print(f"{e}", file=out)
        return
    config = [LatexExtractionConfig(boxed_match_priority=0)]
    signal.signal(signal.SIGPROF, _stop)
    print("ready", file=out)
    for line in sys.stdin:
        answer, reference, seconds = json.loads(line)
        try:
            # CPU time: a busy machine is not the answer's fault. A computation that never comes back to Python
            # ends with the process (SIGVTALRM has no handler).
            signal.setitimer(signal.ITIMER_PROF, seconds)
            signal.setitimer(signal.ITIMER_VIRTUAL, 2 * seconds)
            read = [
                parse(f"\\boxed{{{text}}}", config, fallback_mode="no_fallback", parsing_timeout=None)  # type: ignore[arg-type]
                for text in (reference, answer)
            ]
            # Without a parsed expression math-verify compares strings, which is not its task here.
            found = all(read) and verify(read[0], read[1], timeout_seconds=None)
        except (Exception, _OutOfTime):  # whatever SymPy makes of a model's text, it is not an equal answer
            found = False
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        print("equal" if found else "different", file=out)


if __name__ == "__main__":
    main()
