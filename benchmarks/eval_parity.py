"""Parity with lm-eval 0.4.13 (`hf`, fp32) on SmolLM2-135M: the same requests byte for byte, log-probabilities, scores.

Both sides run their own tasks over the same rows with the same shots: ours from data packs, lm-eval's own task files
with the rows in place of the hub's. Prints one line a task and a JSON line; exit code 1 where a request differs, a
log-probability is further than 1e-4, or a score is not the same."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _lm_eval import VERSION, Peer, Rows, prepared, row_options

CLOSE = 1e-4
METRICS = {"mmlu": ("acc",), "arc": ("acc", "acc_norm"), "gsm8k": ("strict", "flexible")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    row_options(parser, questions=6, arc=12)
    parser.add_argument("--gsm8k", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=96, help="generated at most for GSM8K")
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    rows = Rows(a.subjects, a.questions, a.arc, a.gsm8k, a.tokens)
    with prepared(a.work, rows) as work:
        with Peer(work, a.threads, 4) as peer:
            theirs = peer.ask(do="evaluate", tasks=sorted(p.stem for p in (work / "tasks").glob("*.yaml")))
        return report(compare(work, rows, theirs, a.threads))


def compare(work: Path, rows: Rows, theirs: dict[str, Any], threads: int) -> dict[str, Any]:
    """{task: {requests, equal, difference, ours, peer}} of an lm-eval answer and our own run over `work`."""
    import torch

    from phikit.engine.torch_engine import TorchEngine
    from phikit.evals.run import Settings, evaluate
    from phikit.evals.select import choose

    torch.set_num_threads(threads)
    settings = ["mmlu.split=val", f"gsm8k.max_tokens={rows.gsm8k_tokens}"]
    with tempfile.TemporaryDirectory() as out:
        found = evaluate(
            TorchEngine.from_folder(work / "hf"), "smollm2", choose("mmlu,arc_challenge,gsm8k", settings), Path(out),
            Settings(data=(work / "data",)),
        )  # fmt: skip
    ours = {
        "mmlu": found.records["mmlu"],
        "arc": found.records["arc_challenge"],
        "gsm8k": found.records["gsm8k"],
    }
    table = {}
    for name, records in ours.items():
        mine = [s for s in theirs["samples"] if s["task"].startswith(f"local_{name}")]
        if name == "gsm8k":
            table[name] = _generated(records, mine)
        else:
            table[name] = _scored(name, records, mine)
    return table


def report(table: dict[str, Any]) -> int:
    good = True
    for name, t in table.items():
        same = t["equal"] == t["requests"] and t["difference"] <= CLOSE and t["ours"] == t["peer"]
        good &= same
        print(
            f"{name:<6} {t['equal']} of {t['requests']} requests equal byte for byte, largest difference of a sum of "
            f"log-probabilities {t['difference']:.1e}, scores {t['ours']} and {t['peer']}{'' if same else ' DIFFERENT'}"
        )
    row = {"name": "eval_parity", "peer_name": "lm-eval hf", "peer_version": VERSION, "agree": good, **table}
    print(json.dumps(row))
    return 0 if good else 1


def _scored(name: str, records: list[dict[str, Any]], samples: list[dict[str, Any]]) -> dict[str, Any]:
    from phikit.evals.grading import values

    by_text = {r["prompt"]: r for r in records}
    equal = requests = 0
    far = 0.0
    for s in samples:
        for i, (context, continuation) in enumerate(_pairs(s)):
            requests += 1
            r = by_text.get(context)
            if r is not None and continuation == f" {r['choices'][i]}":
                equal += 1
                far = max(far, abs(r["logprobs"][i] - float(_first(s["resps"][i]))))
    metrics = METRICS[name]
    ours = {m: sum(values(r)[m] for r in records) for m in metrics}
    peer = {m: sum(s[m] for s in samples) for m in metrics}
    return {"requests": requests, "equal": equal, "difference": far, "ours": ours, "peer": peer}


def _generated(records: list[dict[str, Any]], samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The same texts; the difference is the number of answers that are not the same text."""
    from phikit.evals.grading import values

    by_text = {r["prompt"]: r for r in records}
    strict = [s for s in samples if s["filter"] == "strict-match"]
    flexible = [s for s in samples if s["filter"] == "flexible-extract"]
    equal = sum(_pairs(s)[0][0] in by_text for s in strict)
    other = sum(
        by_text[_pairs(s)[0][0]]["answer"] != _first(s["resps"]) for s in strict if _pairs(s)[0][0] in by_text
    )
    ours = {m: sum(values(r)[m] for r in records) for m in METRICS["gsm8k"]}
    peer = {
        "strict": sum(s["exact_match"] for s in strict),
        "flexible": sum(s["exact_match"] for s in flexible),
    }
    return {"requests": len(strict), "equal": equal, "difference": float(other), "ours": ours, "peer": peer}


def _pairs(s: dict[str, Any]) -> list[tuple[str, Any]]:
    """(context, continuation or settings) of a logged sample, whose arguments are lists or {"arg_0": ...}."""
    calls = s["calls"].values() if isinstance(s["calls"], dict) else s["calls"]
    return [tuple(c.values() if isinstance(c, dict) else c)[:2] for c in calls]  # type: ignore[misc]


def _first(resp: Any) -> Any:
    """The first of what lists of lists hold."""
    while isinstance(resp, list):
        resp = resp[0]
    return resp


if __name__ == "__main__":
    sys.exit(main())
