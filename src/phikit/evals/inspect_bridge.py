"""An evaluation as Inspect logs, one file a task, which `inspect view` opens. Inspect is no dependency: its log is
JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phikit.evals.grading import values
from phikit.evals.records import RUN, read_records, read_run
from phikit.records.ids import content_id
from phikit.records.io import write_json


def write_logs(folder: Path, out: Path) -> list[Path]:
    """Writes OUT/TASK.json for every task of a finished evaluation. Raises ValueError where there is none."""
    run, scores = read_run(folder)
    created = datetime.fromtimestamp((folder / RUN).stat().st_mtime, UTC).isoformat()
    paths = []
    for task in run["tasks"]:
        mine = [s for s in scores if s["task"] == task["name"] and not s["group"] and s["subset"] == "all"]
        path = out / f"{task['name']}.json"
        write_json(path, log(run, task, mine, read_records(folder, task["name"]), created))
        paths.append(path)
    return paths


def log(
    run: Mapping[str, Any],
    task: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
    created: str,
) -> dict[str, Any]:
    """One task as an Inspect EvalLog (version 2). The intervals go into the metrics' metadata."""
    name = content_id(run["identity"], task["name"], created)[:22]
    settings = {k: task[k] for k in ("temperature", "max_tokens", "top_p") if k in task}
    spec = {
        "eval_id": name, "run_id": name, "created": created, "task": task["name"], "task_id": name,
        "task_version": task["version"], "task_display_name": task["title"], "model": f"phikit/{run['model']}",
        "dataset": {"name": task["name"], "samples": task["items"], "sample_ids": sorted({r["id"] for r in records})},
        "config": {"epochs": task["runs"], "limit": run["limit"]}, "model_generate_config": settings,
        "packages": run["versions"], "metadata": {"prompts_sha": task["prompts_sha"], "identity": run["identity"]},
    }  # fmt: skip
    results = {
        "total_samples": len(records),
        "completed_samples": len(records),
        "scores": [
            {
                "name": s["metric"],
                "scorer": "phikit",
                "metrics": {"mean": _metric(s)},
                "metadata": {"counts": s["counts"]},
            }
            for s in scores
        ],
    }
    return {
        "version": 2, "status": "success", "eval": spec, "plan": {"name": "phikit", "steps": [], "config": settings},
        "results": results, "stats": {"started_at": created, "completed_at": created},
        "samples": [_sample(run, r) for r in records],
    }  # fmt: skip


def _metric(s: Mapping[str, Any]) -> dict[str, Any]:
    ends = {k: s[k] for k in ("low", "high", "method", "n", "clusters")}
    return {"name": "mean", "value": s["value"], "metadata": ends}


def _sample(run: Mapping[str, Any], r: Mapping[str, Any]) -> dict[str, Any]:
    said = r["answer"] if not r["choices"] else (r["said"] or "")
    stop = {"length": "max_tokens", "refused": "content_filter"}.get(r["finish"], "stop")
    turns = [{"role": "system", "content": r["system"]}] if r["system"] else []
    turns.append({"role": "user", "content": r["prompt"]})
    answer = {"role": "assistant", "content": said, "source": "generate"}
    extra = {
        "outcome": r["outcome"],
        "detail": r["detail"],
        "prompt_sha": r["prompt_sha"],
        "group": r["group"],
    }
    if r["choices"]:
        extra["logprobs"] = r["logprobs"]
    choice, said_of = (
        {"message": answer, "stop_reason": stop},
        {"answer": r["said"], "explanation": r["detail"]},
    )
    target = r["choices"][r["gold"]] if r["choices"] else r["reference"]
    return {
        "id": r["id"], "epoch": r["run"] + 1, "input": turns, "target": target, "messages": [*turns, answer],
        **({"choices": list(r["choices"])} if r["choices"] else {}),
        "output": {"model": f"phikit/{run['model']}", "choices": [choice], "completion": said},
        "scores": {m: {"value": v, **said_of} for m, v in values(r).items()},
        "metadata": extra,
    }  # fmt: skip
