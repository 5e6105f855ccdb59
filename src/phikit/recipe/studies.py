"""Studies: several runs of one recipe, compared. `phikit study NAME` prints a table and writes `study.json`.

nano-seeds   the nano run over five seeds named in advance: does each stage do its work, or was one seed lucky?
pivotal      DPO on pivotal tokens against whole answers, random tokens, and two rounds against one
unknowns     pairs of refusals, of kept forms and of safety in a closed world: does each move its own score?
revision     a small teacher's answers as they come, validated, self-revised (section 2.2)
repetition   synthetic text seen 4 or 12 times, the rest fresh web (figure 2)
synthetic-only   synthetic text alone, with web rewrites, mixed with web (table 3)
decontamination  what the hybrid rule finds of planted items that 13-grams miss (appendix B.1)
long-context  midtraining on long documents against short samples joined into long rows (section 3.3)
horizon      the learning rate of a run, extended from the best rates of shorter ones (section 3)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phikit.recipe import study_horizon, study_long_context
from phikit.recipe.run import run
from phikit.recipe.study_data import repetition, revision, synthetic_only
from phikit.recipe.study_decontamination import decontamination
from phikit.recipe.study_pivotal import pivotal
from phikit.recipe.study_runs import nano
from phikit.recipe.study_unknowns import unknowns
from phikit.records.io import read_json, write_json

SEEDS = (1, 2, 3, 4, 5)  # named before any of them was run
LEAST = 4  # of five seeds in which a claim must hold


def study(name: str, out: Path | None = None) -> int:
    """Runs a study by name; its exit code is 0 when every claim holds. A killed study goes on where it was."""
    if name not in STUDIES:
        raise ValueError(f"there is no study {name!r}; there are: {', '.join(STUDIES)}")
    return STUDIES[name](out or Path("runs") / "studies" / name)


def nano_seeds(out: Path) -> int:
    """The claims of the nano report over SEEDS. Every seed has its own world, network and data order."""
    reports = {}
    for seed in SEEDS:
        folder = out / f"seed-{seed}"
        recipe = nano(seed)
        if code := run(recipe, folder):
            return code
        reports[seed] = read_json(folder / "report.json")
    rows = [{"seed": seed, "claims": claims(r), "numbers": numbers(r)} for seed, r in reports.items()]
    held = {c: sum(r["claims"][c] for r in rows) for c in rows[0]["claims"]}
    write_json(out / "study.json", {"study": "nano-seeds", "seeds": rows, "held": held})
    _print(rows, held)
    return 0 if all(n >= LEAST for n in held.values()) else 1


def claims(report: Mapping[str, Any]) -> dict[str, bool]:
    """What a nano run must show, from its report.json."""
    score = {(s["checkpoint"], s["task"], s["metric"]): s for s in report["scores"]}
    pair = {(c["a"], c["b"], c["task"], c["metric"]): c for c in report["comparisons"]}
    before, after = score["pretrain", "recall_4x", "exact"], score["midtrain", "recall_4x", "exact"]
    return {
        "midtraining raises recall_4x (disjoint intervals)": after["low"] > before["high"],
        "SFT ends with >= 95 % well-formed answers": score["sft", "format", "well_formed"]["value"] >= 0.95,
        "dpo1 above sft on sampled arithmetic (paired)": pair["dpo1", "sft", "arithmetic", "sampled"]["low"]
        > 0,
        "dpo2 not below dpo1 on sampled arithmetic (paired)": pair["dpo2", "dpo1", "arithmetic", "sampled"][
            "high"
        ]
        >= 0,
        "dpo2 raises preference wins (paired)": pair["dpo2", "dpo1", "preference_wins", "share"]["low"] > 0,
    }


def numbers(report: Mapping[str, Any]) -> dict[str, str]:
    """The figures behind the claims, with their intervals."""
    out = {}
    for s in report["scores"]:
        key = (s["task"], s["metric"])
        if key in (
            ("recall_4x", "exact"),
            ("arithmetic", "sampled"),
            ("format", "well_formed"),
            ("preference_wins", "share"),
        ):
            out[f"{s['checkpoint']} {s['task']}"] = _interval(s)
    for c in report["comparisons"]:
        out[f"{c['a']} - {c['b']} {c['task']} {c['metric']}"] = _interval(c)
    return out


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _print(rows: list[dict[str, Any]], held: Mapping[str, int]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("claim", *(f"seed {r['seed']}" for r in rows), "holds")
    for claim, n in held.items():
        table.add_row(claim, *("yes" if r["claims"][claim] else "no" for r in rows), f"{n} of {len(rows)}")
    console.print(table)
    figures = Table("figure", *(f"seed {r['seed']}" for r in rows))
    for name in rows[0]["numbers"]:
        figures.add_row(name, *(r["numbers"].get(name, "-") for r in rows))
    console.print(figures)


STUDIES: Mapping[str, Callable[[Path], int]] = {
    "nano-seeds": nano_seeds,
    "pivotal": pivotal,
    "unknowns": unknowns,
    "revision": revision,
    "repetition": repetition,
    "synthetic-only": synthetic_only,
    "decontamination": decontamination,
    "long-context": study_long_context.study,
    "horizon": study_horizon.study,
}
