"""Counters and histograms in the text format of Prometheus: /metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HELP = {
    "phikit_requests_total": "Requests by route and status.",
    "phikit_prompt_tokens_total": "Tokens of prompts by model.",
    "phikit_generated_tokens_total": "Generated tokens by model.",
    "phikit_request_seconds": "Time of a request, by route.",
    "phikit_first_token_seconds": "Time from the start of a generation to its first token.",
    "phikit_under_way": "Requests that compute or wait for a model.",
    "phikit_models_loaded": "Models in memory.",
    "phikit_model_bytes": "Memory counted for a loaded model.",
    "phikit_crashes_total": "Ends of a model's process that were not asked for.",
}

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Used from the event loop only. Routes and models bound the number of labels; nothing that a client makes up
    becomes one."""

    def __init__(self) -> None:
        self.counters: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self.histograms: dict[tuple[str, Labels], list[float]] = {}

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        self.counters[name, tuple(sorted(labels.items()))] += value

    def observe(self, name: str, value: float, **labels: str) -> None:
        row = self.histograms.setdefault((name, tuple(sorted(labels.items()))), [0.0] * (len(BUCKETS) + 2))
        row[bisect_left(BUCKETS, value)] += 1
        row[-1] += value

    def text(self, gauges: Mapping[tuple[str, Labels], float]) -> str:
        lines: list[str] = []
        kinds = [("counter", dict(self.counters)), ("gauge", dict(gauges))]
        for kind, values in kinds:
            for name in sorted({n for n, _ in values}):
                lines += [f"# HELP {name} {_HELP.get(name, name)}", f"# TYPE {name} {kind}"]
                lines += [f"{name}{_show(k)} {v:g}" for (n, k), v in sorted(values.items()) if n == name]
        for name in sorted({n for n, _ in self.histograms}):
            lines += [f"# HELP {name} {_HELP.get(name, name)}", f"# TYPE {name} histogram"]
            for (n, labels), row in sorted(self.histograms.items()):
                if n != name:
                    continue
                total = 0.0
                for edge, count in zip((*(f"{b:g}" for b in BUCKETS), "+Inf"), row):
                    total += count
                    lines.append(f"{name}_bucket{_show((*labels, ('le', edge)))} {total:g}")
                lines += [
                    f"{name}_sum{_show(labels)} {row[-1]:.6f}",
                    f"{name}_count{_show(labels)} {total:g}",
                ]
        return "\n".join(lines) + "\n"


def _show(labels: Labels) -> str:
    if not labels:
        return ""
    escaped = (f'{k}="{_escape(v)}"' for k, v in labels)
    return "{" + ",".join(escaped) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
