"""The child that runs chat templates, watched: the same limits and the same `answer`, under an audit hook that ends
the process with status 66 where a template reaches a file, a process, a socket or an import of code, and with the
lines of jinja2 that each template reaches in its reply."""

from __future__ import annotations

import json
import os
import sys
from types import FrameType
from typing import Any

from phikit.engine import template_child as child

STATUS = 66
FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "signal.", "urllib.", "webbrowser.", "open",
             "pickle.", "tempfile.", "gc.")  # fmt: skip
WARM = "{% for m in messages %}{{ m.content | trim | upper | tojson | pprint | urlize }}{{ loop.index }}{% endfor %}"


def main() -> None:
    armed = False

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if not armed or not event.startswith(FORBIDDEN):
            return
        if (
            event == "open"
            and str(args[0]).startswith((sys.prefix, sys.base_prefix))
            and args[1] in ("r", "rb", None)
        ):
            return  # a module of Python or of jinja2 that is imported late
        if event == "os.listdir" and str(args[0]).startswith((sys.prefix, sys.base_prefix)):
            return
        os.write(2, f"{event} {args!r:.200}\n".encode())
        os._exit(STATUS)

    reached: set[int] = set()
    new: list[int] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if "jinja2" not in code.co_filename and code.co_filename != "<template>":
            return None
        if (
            code.co_filename != "<template>"
            and (key := hash((code.co_filename, frame.f_lineno))) not in reached
        ):
            reached.add(key)
            new.append(key)
        return trace

    child.limit()
    sys.addaudithook(hook)
    talk = [{"role": "user", "content": "the cat"}]
    child.answer({"source": WARM, "bos": "", "eos": "", "messages": talk})
    # What jinja2 imports late is looked for in Python's own folders alone.
    sys.path[:] = [p for p in sys.path if p.startswith((sys.prefix, sys.base_prefix))]
    armed = True
    for line in sys.stdin:
        request = json.loads(line)
        new.clear()
        child.allow(child.SECONDS)
        sys.settrace(trace)
        reply = child.answer(request)
        sys.settrace(None)
        sys.stdout.write(json.dumps({**reply, "new": len(new), "lines": len(reached)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
