"""Run by the python of .bench/lm_eval: `_lm_eval_peer.py WORK THREADS BATCH`. Reads JSON lines, answers each with one
line that begins with "== ".

{"do": "evaluate", "tasks": [...]}   lm-eval's own run: every request with its answer, and the scores; with "bridge"
                                     on our engine as an lm-eval LM
{"do": "requests", "tasks": [...]}   the log-likelihood requests of tasks, kept; their strings
{"do": "batch", "size": n}           sequences a forward pass takes from now on
{"do": "score", "first": n}                     seconds of lm.loglikelihood over the kept requests, and its sums"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    work, threads, batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    os.environ["HF_DATASETS_CACHE"] = str(work / "cache")
    import torch
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager, get_task_dict

    if threads:
        torch.set_num_threads(threads)
    lm = HFLM(pretrained=str(work / "hf"), dtype="float32", device="cpu", batch_size=batch)
    manager = TaskManager(include_path=str(work / "tasks"), include_defaults=False)
    kept: list[Any] = []
    for line in sys.stdin:
        what = json.loads(line)
        if what["do"] == "evaluate":
            tasks, model = what["tasks"], _bridge(work) if what.get("bridge") else lm
            out = simple_evaluate(
                model, tasks=tasks, task_manager=manager, log_samples=True, bootstrap_iters=0
            )
            assert out is not None
            samples = [_sample(name, s) for name, some in out["samples"].items() for s in some]
            answer: Any = {"results": _plain(out["results"]), "samples": samples}
        elif what["do"] == "requests":
            kept = []
            for task in get_task_dict(what["tasks"], manager).values():
                task.set_fewshot_seed(1234)
                task.build_all_requests(rank=0, world_size=1)
                kept += [r for r in task.instances if r.request_type == "loglikelihood"]
            answer = {"requests": [list(r.args) for r in kept]}
        elif what["do"] == "batch":
            lm.batch_size_per_gpu = answer = what["size"]
        else:
            begin, cpu = time.perf_counter(), time.process_time()
            sums = lm.loglikelihood(kept[: what.get("first")], disable_tqdm=True)
            answer = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu, "sums": sums}
        print("== " + json.dumps(answer), flush=True)


def _bridge(work: Path) -> Any:
    from phikit.engine.torch_engine import TorchEngine
    from phikit.evals.lm_eval_bridge import lm

    return lm(TorchEngine.from_folder(work / "hf"))


def _sample(task: str, s: dict[str, Any]) -> dict[str, Any]:
    kept = {k: s[k] for k in ("acc", "acc_norm", "exact_match") if k in s}
    calls = json.loads(json.dumps(s["arguments"], default=str))
    return {
        "task": task,
        "doc": s["doc_id"],
        "calls": calls,
        "resps": s["resps"],
        "filter": s.get("filter", ""),
        **kept,
    }


def _plain(results: Any) -> Any:
    return json.loads(json.dumps(results, default=str))


if __name__ == "__main__":
    main()
