"""Measured rows of several arms over seeds, compared: estimates over items, and differences paired by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from phikit import stats

Rows = Sequence[tuple[str, float, float]]  # item, value, weight


def estimate(metric: str, rows: Mapping[int, Rows]) -> dict[str, Any]:
    """A share, or bits per byte, clustered by item."""
    flat = [(v, w, (seed, item)) for seed, some in rows.items() for item, v, w in some]
    values, weights, items = zip(*flat)
    e = stats.ratio(values, weights, items) if metric.startswith("bits") else stats.share_of(values, items)
    return asdict(e)


def contrast(results: Mapping[int, Mapping[str, Any]], a: str, b: str) -> dict[str, Any]:
    """a - b on the same answers to the same items, by metric: `items`, interval over items with these seeds given;
    `seeds`, Student's interval over the seeds' own differences; `by_seed`. `results`: {"rows": {metric: Rows}} by seed
    and arm. Raises ValueError where the two have not answered the same items."""
    row: dict[str, Any] = {"a": a, "b": b}
    first = next(iter(results.values()))
    for metric in (m for m in first[a]["rows"] if m in first[b]["rows"] and not m.endswith(" set")):
        flat, by_seed = [], []
        for seed, arms in results.items():
            one, two = arms[a]["rows"][metric], arms[b]["rows"][metric]
            if [r[0] for r in one] != [r[0] for r in two]:
                raise ValueError(
                    f"seed {seed}: {a!r} and {b!r} have not answered the same items; one was measured by an older "
                    "program: remove its .json"
                )
            some = [(u - v, w, (seed, item)) for (item, u, w), (_, v, _) in zip(one, two)]
            by_seed.append(sum(d for d, _, _ in some) / sum(w for _, w, _ in some))
            flat += some
        differences, weights, items = zip(*flat)
        row[metric] = {
            "items": asdict(stats.ratio(differences, weights, items)),
            "seeds": asdict(stats.mean(by_seed)), "by_seed": by_seed,
        }  # fmt: skip
    return row
