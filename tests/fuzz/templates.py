"""Hostile chat templates: `python tests/fuzz/templates.py --runs 20000`.

Templates are put together from pieces that attack the sandbox, its time and its memory, and changed; those that reach
new lines of jinja2 are changed further. Each runs in the child process with the limits of `engine/template_child.py`,
under a hook that ends it where a template reaches files, processes or sockets (`template_worker.py`). A finding is
that, a reply that is no text nor error, or more processor time or memory than the limits. Prints a line of JSON;
the exit status is 1 where there was a finding.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from template_worker import STATUS

from phikit.engine.template_child import MAX_TEXT, MEMORY, SECONDS

FINDINGS = Path(__file__).parents[2] / ".bench" / "template-findings"
# Templates that published models have are made of these.
ORDINARY = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m.content | trim + '<|im_end|>' }}{% endfor %}",
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{{ bos_token }}{{ raise_exception('no') }}",
    "{{ messages | tojson(indent=2) }}{{ strftime_now('%Y') }}",
    "{% macro f(x) %}{{ x }}{% if x %}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{% break %}{% endfor %}",
    "{%- set x = messages[0].content.split('a') -%}{{ x[-1] }}",
    "{% call(y) f() %}{{ y }}{% endcall %}{% filter upper %}a{% endfilter %}",
    "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}",
)
VALUES = (
    "messages", "messages[0]", "m", "loop", "''", "'a'", "[]", "{}", "1", "1.5", "10 ** 9", "range(9)",
    "range(99999)", "cycler", "joiner", "lipsum", "namespace()", "self", "dict", "strftime_now",
    "raise_exception", "caller", "varargs", "true", "none", "x", "f", "(messages|list)", "'{0.__class__}'",
    "'%s'", "b", "self._TemplateReference__context", "lipsum.__globals__", "cycler.__init__",
    "messages.__class__.__mro__", "loop.__init__", "''.format", "'a'.encode",
)  # fmt: skip
NAMES = (
    "__class__", "__mro__", "__subclasses__", "__globals__", "__init__", "__builtins__", "__import__", "os",
    "system", "popen", "format", "format_map", "append", "update", "mro", "__dict__", "__getattribute__",
    "gi_frame", "f_back", "f_globals", "tb_frame", "__code__", "func_globals", "__reduce_ex__", "items",
    "pop", "clear", "content", "join", "environment", "_load", "undefined", "cycle", "previtem", "eval",
    "__self__", "__wrapped__", "cr_frame", "ag_frame",
)  # fmt: skip
CALLS = (
    "()", "(1)", "('PWNED')", "('touch PWNED')", "('os')", "(10 ** 9)", "(self)", "(0, 1)", "(x='a')", "[0]",
    "['os']", "[::-1]", "[999]", "(messages)", "*9", "* 10 ** 10", "~ x", "+ 'a'", "** 9", "// 0", "% 3",
    "is mapping", "in messages",
)  # fmt: skip
FILTERS = (
    "attr('__class__')", "attr('__globals__')", "map('attr', '__init__')", "map(attribute='__class__')",
    "list", "join", "format(1)", "format(messages)", "center(10 ** 10)", "center(99)", "batch(3)",
    "batch(10 ** 9)", "slice(10 ** 8)", "tojson", "pprint", "xmlattr", "urlize", "sort", "groupby('role')",
    "first", "last", "length", "replace('a', 'a' * 999)", "indent(10 ** 9)", "wordwrap(1)", "truncate(3)",
    "selectattr('__class__')", "select('callable')", "sum(start='')", "unique", "dictsort", "string", "safe",
    "e", "reject", "round(10 ** 6)", "int(base=36)", "random", "filesizeformat", "items",
)  # fmt: skip
FRAMES = (
    "{{{{ {} }}}}", "{{% set x = {} %}}", "{{% set ns.x = {} %}}", "{{% if {} %}}a{{% endif %}}",
    "{{% for y in {} %}}{{{{ y }}}}{{% endfor %}}",
    "{{% for _ in range(999) %}}{{% set ns.x = ns.x ~ {} %}}{{% endfor %}}", "{{% include {} %}}",
    "{{% import {} as z %}}", "{{% extends {} %}}", "{{% with y = {} %}}{{{{ y }}}}{{% endwith %}}",
    "{{% macro f() %}}{{{{ {} }}}}{{{{ f() }}}}{{% endmacro %}}{{{{ f() }}}}",
    "{{% filter upper %}}{{{{ {} }}}}{{% endfilter %}}",
    "{{% block b %}}{{{{ {} }}}}{{{{ self.b() }}}}{{% endblock %}}", "{{% from {} import os %}}",
    "{{# {} #}}", "{{% for a in {} recursive %}}{{{{ loop([a]) }}}}{{% endfor %}}",
    "{{% raw %}}{}{{% endraw %}}", "{{% autoescape {} %}}",
)  # fmt: skip
SIGNS = (
    "{{", "}}", "{%", "%}", "-%}", "#}", "'", "|", ".", "\\", "\0", "\ud800", "\ue0f0", "(" * 50, "endfor", " if ",
)  # fmt: skip
# What the longest running one of each kind does is known (tests/unit/test_engine_template.py): few of them, for each
# takes all of its time.
SLOW = (
    "{{ 10 ** (10 ** 9) }}", "{% for _ in range(99999) %}" * 3 + "{% endfor %}" * 3, "{{ 'a' * 10 ** 11 }}",
    "{% set ns = namespace(x='ab') %}{% for _ in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
)  # fmt: skip


def expression(rng: random.Random) -> str:
    found = rng.choice(VALUES)
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
        pick = rng.random()
        if pick < 0.4:
            found += "." + rng.choice(NAMES)
        elif pick < 0.7:
            found += rng.choice(CALLS)
        else:
            found = f"({found} | {rng.choice(FILTERS)})"
    return found


def fresh(rng: random.Random, slow: float) -> str:
    if rng.random() < slow:
        return rng.choice(SLOW)
    parts = [rng.choice(ORDINARY)] if rng.random() < 0.4 else ["{% set ns = namespace(x='a') %}"]
    parts += [rng.choice(FRAMES).format(expression(rng)) for _ in range(rng.choice((1, 1, 2, 3)))]
    return "".join(parts)


def changed(source: str, rng: random.Random) -> str:
    for _ in range(rng.choice((1, 1, 2, 4))):
        a, b = sorted(rng.randrange(len(source) + 1) for _ in range(2))
        code = expression(rng)
        piece = rng.choice((code, rng.choice(FRAMES).format(code), rng.choice(SIGNS)))
        pick = rng.random()
        if pick < 0.4:
            source = source[:a] + piece + source[a:]
        elif pick < 0.7:
            source = source[:a] + piece + source[min(b, a + 12) :]
        else:
            source = source[:a] + source[a : a + 20] + source[a:]
    return source[:4000]


class Child:
    """The watched process; its processor time and peak memory of one request are measured from outside."""

    def __init__(self, before: str = "") -> None:
        """`before` is Python that runs first, for a test of the watch."""
        folder = str(Path(__file__).parent)
        program = f"import sys; sys.path.insert(0, {folder!r}); {before}import template_worker; template_worker.main()"
        command = [sys.executable, "-c", program]
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close())
        self.said = ""
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log
        )

    def ask(self, source: str) -> dict | None:
        """None where the process ended."""
        assert self.process.stdin
        assert self.process.stdout
        talk = [{"role": "user", "content": "the cat sat"}, {"role": "assistant", "content": ""}]
        request = {"source": source, "bos": "<s>", "eos": "</s>", "messages": talk}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak(self) -> int:
        """Bytes; of this process alone, which the sums over children are not."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10

    def close(self) -> tuple[int, float]:
        """Exit status, and the processor time of the whole life."""
        assert self.process.stdin
        assert self.process.stdout
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.process.stdin.close()
        status = self.process.wait()
        self.process.stdout.close()
        self.log.seek(0)
        self.said = self.log.read()[-500:].decode(errors="replace")
        self.log.close()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return status, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fuzz(runs: int, seed: int, slow: float = 0.002) -> dict:
    """Counts and findings. `slow` is the share of templates that are known to take all of their time."""
    rng, outcome, findings = random.Random(seed), Counter(), []
    corpus: list[str] = list(ORDINARY)
    child, used, slowest, begin = Child(), 0.0, 0.0, time.monotonic()
    lines = peak = 0
    for _ in range(runs):
        source = changed(rng.choice(corpus), rng) if rng.random() < 0.5 else fresh(rng, slow)
        reply = child.ask(source)
        if reply is None:
            status, whole = child.close()
            took = whole - used
            outcome["ended by a limit"] += 1
            if status == STATUS:
                findings.append((f"reached the system: {child.said}", source))
            elif status not in (-24, -9, 1):  # SIGXCPU; kernel; MemoryError outside of the template
                findings.append((f"status {status}", source))
            child, used = Child(), 0.0
        else:
            now = child.cpu()
            took, used = now - used, now
            peak = max(peak, child.peak())
            outcome["text" if "text" in reply else "refused"] += 1
            if (
                not isinstance(reply.get("text", reply.get("error")), str)
                or len(reply.get("text", "")) > MAX_TEXT
            ):
                findings.append(("no text nor error", source))
            lines = max(lines, reply["lines"])
            if reply["new"] and len(source) < 3000:
                corpus.append(source)
        slowest = max(slowest, took)
        if took > SECONDS + 2:  # the limit is one of whole seconds, and the process starts within it
            findings.append((f"{took:.1f} s of processor time", source))
    child.close()
    if peak > MEMORY:
        findings.append((f"{peak} bytes", "?"))
    FINDINGS.mkdir(parents=True, exist_ok=True)
    for i, (what, source) in enumerate(findings):
        (FINDINGS / f"{seed}-{i}.json").write_text(json.dumps({"what": what, "source": source}))
    return {
        "target": "template", "inputs": runs, "seconds": round(time.monotonic() - begin, 1), "outcomes": dict(outcome),
        "corpus": len(corpus), "lines_of_jinja2": lines,
        "slowest_cpu_seconds": round(slowest, 2), "peak_rss_mb": peak >> 20,
        "findings": [w for w, _ in findings],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    row = fuzz(args.runs, args.seed)
    print(json.dumps(row))
    sys.exit(1 if row["findings"] else 0)


if __name__ == "__main__":
    main()
