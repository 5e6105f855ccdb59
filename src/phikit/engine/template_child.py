"""The child process that runs chat templates: JSON lines on stdin and stdout, jinja2's immutable sandbox inside.

The sandbox keeps a template from Python; the process keeps it from time and memory. A request may take `SECONDS` of
CPU (not of the clock: a busy machine is no hostile template), the process `MEMORY` in all. Beyond the first the
kernel ends the process, beyond the second an allocation fails.

    {"source": "...", "bos": "", "eos": "", "messages": [{"role": "user", "content": "..."}] or null}
    -> {"text": "..."} or {"error": "..."}             (messages null: only compile)
"""

from __future__ import annotations

import json
import resource
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any

SECONDS = 2
MEMORY = 1 << 30
MAX_TEXT = 1 << 24  # characters of one rendered conversation


def limit() -> None:
    """For the whole process, before any template."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def allow(seconds: int) -> None:
    """From now on this much CPU time; then SIGXCPU ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(
        resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
    )


@lru_cache(maxsize=8)
def compiled(source: str) -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    env.filters["tojson"] = tojson
    return env.from_string(source)


def refuse(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)


def tojson(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    """As transformers has it: jinja2's own escapes for HTML."""
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)


def answer(request: dict[str, Any]) -> dict[str, str]:
    from jinja2 import TemplateSyntaxError

    try:
        template = compiled(request["source"])
        if request["messages"] is None:
            return {"text": ""}
        parts, size = [], 0
        for part in template.generate(
            messages=request["messages"], add_generation_prompt=request.get("open", True),
            bos_token=request["bos"], eos_token=request["eos"], tools=request.get("tools") or None,
        ):  # fmt: skip
            size += len(part)
            if size > MAX_TEXT:
                return {"error": f"its text is longer than {MAX_TEXT:,} characters"}
            parts.append(part)
        return {"text": "".join(parts)}
    except TemplateSyntaxError as e:
        return {"error": f"line {e.lineno}: {e.message}"}
    except Exception as e:  # a template may raise anything that Python's operators raise
        return {"error": f"{e}"[:400] or type(e).__name__}


def main() -> None:
    """Answers until stdin closes: the parent ended."""
    limit()
    for line in sys.stdin:
        allow(SECONDS)
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
