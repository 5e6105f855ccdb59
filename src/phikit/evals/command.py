"""What `phikit eval` does: opens the model, runs the tasks, prints the table, writes the page."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from phikit.evals import packs, records
from phikit.evals.tasks import all_tasks

Say = Callable[[str], None]


def run(
    model: str,
    tasks: str,
    out: Path,
    *,
    data: Sequence[Path] = (),
    limit: int = 0,
    settings: Sequence[str] = (),
    judge: str = "",
    self_judge: bool = False,
    train: Sequence[Path] = (),
    seed: int = 0,
    context: int = 0,
    parallel: int = 4,
    threads: int = 0,
    say: Say,
) -> None:
    """Evaluates and prints. Raises ValueError or FileNotFoundError with the fix before anything is asked, where the
    tasks, files or judge are at fault."""
    from phikit.ask.teacher import open_teacher
    from phikit.engine.open import open_engine
    from phikit.evals.contamination import contaminated, texts
    from phikit.evals.identity import identity
    from phikit.evals.run import Settings, evaluate
    from phikit.evals.select import choose

    chosen = choose(tasks, settings)
    packs.roots(data)
    itself = f"--judge {judge} is the model under test: name another one, or say --self-judge"
    if judge == model and not self_judge:
        raise ValueError(itself)
    for path in train:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such training text")
    engine = open_engine(model, context=context or None, parallel=parallel, threads=threads or None)
    grader = None
    try:
        if judge:
            grader = open_teacher(judge, log=out / records.JUDGE, role="judge", parallel=parallel)
            if not self_judge and same_model(grader.model, engine.info.name):
                raise ValueError(itself)
        found = evaluate(
            engine, model, chosen, out, Settings(limit or None, seed, tuple(data), threads), identity=identity(engine),
            judge=grader, clean=(lambda planned: contaminated(planned, texts(train))) if train else None,
            training=", ".join(map(str, train)),
        )  # fmt: skip
    finally:
        engine.close()
        if grader is not None:
            grader.close()
    for line in table(found.run, found.scores):
        say(line)


def same_model(a: str, b: str) -> bool:
    """Whether two engines' names are those of one model, in whatever way it was named to them."""
    return a == b or (Path(a).exists() and Path(b).exists() and Path(a).samefile(b))


def compare(a: Path, b: Path, *, json: bool, say: Say) -> list[dict[str, Any]]:
    """Prints the paired differences of two evaluations and returns them."""
    from phikit.evals.compare import compare_runs

    rows = compare_runs(a, b)
    for line in [json_module.dumps(rows)] if json else _differences(rows):
        say(line)
    return rows


def list_tasks(data: Sequence[Path], *, say: Say) -> None:
    folders = packs.roots(data)
    for task in all_tasks().values():
        pack = packs.PACKS.get(task.pack)
        have = [s for s in pack.files if packs.find(pack, s, folders)] if pack else []
        where = f"data: {', '.join(have)}" if have else "no data" if pack else "makes its own data"
        say(f"{task.suite:<8} {task.name:<22} {task.title:<44} {where}")
    if not folders:
        say(f"\nNo folder of data was given: --data DIR or ${packs.VARIABLE}. A pack lies in DIR/NAME/:")
        for pack in packs.PACKS.values():
            say(f"  {pack.name:<15} {pack.licence:<12.40} {pack.origin}")


def attack(*, say: Say) -> int:
    """Runs the sandbox's self-test; 1 where an attack gets out, 2 where there is no sandbox."""
    from phikit.verify import attacks, sandbox

    if reason := sandbox.available():
        say(f"no sandbox: {reason}")
        return 2
    found = attacks.selftest()
    for a in found:
        say(f"{'contained' if a.contained else 'ESCAPED  '}  {a.name:<28} {a.detail[:80]}")
    return 0 if all(a.contained for a in found) else 1


def table(run: Mapping[str, Any], scores: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """The scores as lines: value, 95 % interval, n, and what was not simply wrong."""
    yield f"{run['model']} ({run['numerics']}), seed {run['seed']}" + (
        f", limit {run['limit']}" if run["limit"] else ""
    )
    for s in scores:
        if s["group"] or s["subset"] != "all":
            continue
        ends = "no interval" if s["low"] is None else f"{s['low']:.3f} to {s['high']:.3f}"
        clean = [
            c
            for c in scores
            if c["subset"] == "clean" and (c["task"], c["metric"]) == (s["task"], s["metric"])
        ]
        beside = f"  clean {clean[0]['value']:.3f} (n {clean[0]['n']})" if clean else ""
        apart = ", ".join(f"{n} {o}" for o, n in s["counts"].items() if o not in ("right", "wrong", "scored"))
        told = f"  [{apart}]" if apart and s["primary"] else ""
        if s["primary"] and any(t["name"] == s["task"] and t.get("judged") for t in run["tasks"]):
            told += f"  (judge {run['judge_agreement']['short']})"
        yield f"  {s['task']:<22} {s['metric']:<16} {s['value']:.3f}  {ends}  n {s['n']}{beside}{told}"
    if found := run.get("judge_agreement"):
        yield f"  judge {run['judge']}: {found['told']}"
    for n in run["not_run"]:
        yield f"  {n['task']:<22} not run: {n['reason']}"


def _differences(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for r in rows:
        p = f"  McNemar p {r['p']:.3g}" if r["p"] is not None else ""
        seen = f"could see {r['detectable']:.3f}" if r["detectable"] is not None else "no spread"
        yield (
            f"  {r['task']:<18} {r['metric']:<16} {r['value_a']:.3f} - {r['value_b']:.3f} = {r['value']:+.3f}  "
            f"{r['low']:+.3f} to {r['high']:+.3f}  {r['verdict']}{p}  (n {r['n']}; {seen})"
        )
