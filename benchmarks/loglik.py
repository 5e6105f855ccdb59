"""Log-likelihood requests of MMLU 5-shot and ARC-Challenge 1-shot on SmolLM2-135M, fp32: ours against lm-eval `hf`.

Both build the requests from the same rows with the same shots, and the strings are checked to be equal before anything
is timed. Timed on both sides: encoding the strings and scoring them. The peer has its best batch size of 1, 4 and 16,
and its own reuse of logits for one-token continuations (the four letters of a question cost it one row).

Bound: tokens of the peer's rows over tokens of the requests' trie, each computed once. The peer also multiplies every
position with the output head and takes the log-softmax of its whole row, where ours does so at the few positions that
a request asks for. That is why the ratio can pass the bound of tokens; `bound_head` counts it in, with the seconds of
both measured in this run and ours as the speed of the network for both sides.

Agreement: equal strings, and log-likelihoods that differ by at most 1e-4; where they differ by more, those requests are
computed once more in float64 (`_exact.py`), and ours must not be further from it than the peer's."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import torch
from _exact import Exact
from _lm_eval import VERSION, Peer, Rows, prepared, row_options
from _transformers import alternate, interval, now, timing_options, use_timing

from phikit.engine.base import ScoreRequest
from phikit.engine.torch_engine import TorchEngine
from phikit.evals.asking import continuations
from phikit.evals.prompts import Prompt
from phikit.evals.run import Settings, plan
from phikit.evals.select import choose

GOAL_BOUND, GOAL_RATIO, CLOSE = 0.9, 5.0, 1e-4
CHECKED = 12  # requests computed in float64 at most, those that differ most first
TASKS = {"mmlu": "local_mmlu", "arc_challenge": "local_arc"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    row_options(parser, questions=0, arc=40)
    timing_options(parser, threads=1)
    parser.add_argument("--batch", type=int, default=0, help="of the peer; 0: the fastest of 1, 4 and 16")
    a = parser.parse_args()
    use_timing(a)
    with prepared(a.work, Rows(a.subjects, a.questions, a.arc, 1)) as work:
        engine = TorchEngine.from_folder(work / "hf")
        planned, _ = plan(choose(",".join(TASKS), ["mmlu.split=val"]), Settings(data=(work / "data",)), None)
        cases: dict[str, dict[str, Any]] = {}
        with Peer(work, a.threads, a.batch or 4) as peer:
            for p in planned:
                names = sorted(x.stem for x in (work / "tasks").glob(f"{TASKS[p.task.name]}*.yaml"))
                asked = peer.ask(do="requests", tasks=names)["requests"]
                cases[p.task.name] = case(p.task.name, engine, p.prompts, asked, peer, a)
    first = cases["mmlu"]
    agree = all(c["agree"] for c in cases.values())
    goal = first["ratio"] >= GOAL_RATIO and all(c["reached"] >= GOAL_BOUND for c in cases.values())
    row = {
        "name": "loglik", **{k: first[k] for k in ("ours", "peer")}, "peer_name": "lm-eval hf", "peer_version": VERSION,
        "unit": "requests/s", **{k: first[k] for k in ("ratio", "low", "high", "bound", "bound_head", "reached")},
        "agree": agree,
        "n": a.pairs, "cases": cases, "threads": a.threads, "clock": "cpu" if a.cpu else "wall", "goal": goal,
    }  # fmt: skip
    print(json.dumps(row))
    return 0 if agree else 1


def case(
    name: str,
    engine: TorchEngine,
    prompts: Sequence[Prompt],
    theirs: Sequence[Sequence[str]],
    peer: Peer,
    a: Any,
) -> dict[str, Any]:
    texts = [(p.text, [f" {c}" for c in p.item.choices]) for p in prompts]
    strings = [(text, c) for text, choices in texts for c in choices]
    equal = sorted(strings) == sorted((c, x) for c, x in theirs)
    place = {pair: i for i, pair in enumerate(strings)}

    def ours(_: int) -> tuple[float, list[float]]:
        begin = now()
        requests = [r for text, choices in texts for r in continuations(engine, text, choices)]
        sums = [s.logprob for s in engine.score(requests)]
        return now() - begin, sums

    def other(_: int) -> tuple[float, list[float]]:
        found = peer.ask(do="score")
        return found["cpu" if a.cpu else "seconds"], [x for x, _ in found["sums"]]

    batch = a.batch or _best_batch(peer, 4 * 4, a.cpu)
    peer.ask(do="batch", size=batch)
    requests = [r for text, choices in texts for r in continuations(engine, text, choices)]
    peer_tokens, trie_tokens = tokens(engine, requests)
    bound = peer_tokens / trie_tokens
    pairs = alternate(ours, other, a.pairs)
    low, ratio, high = interval([p[0] / o[0] for o, p in pairs])
    mine, sums = pairs[0][0][1], pairs[0][1][1]
    far = max(abs(mine[place[c, x]] - s) for (c, x), s in zip(theirs, sums)) if equal else float("inf")
    apart = exactly(engine, requests, theirs, sums, mine, place) if equal and far > CLOSE else {}
    agree = equal and (far <= CLOSE or apart["ours_off"] <= apart["peer_off"])
    seconds = statistics.median(o[0] for o, _ in pairs)
    with_head = (peer_tokens * (seconds / trie_tokens + head_seconds(engine))) / seconds
    same = "the same strings" if equal else "DIFFERENT STRINGS"
    print(
        f"{name}: {len(requests)} requests, {same}; the peer's rows have {peer_tokens:,} tokens, the trie "
        f"{trie_tokens:,}: bound {bound:.2f}x. Ours {len(requests) / seconds:.2f} "
        f"requests/s ({trie_tokens / seconds:,.0f} tokens/s), {ratio:.2f}x lm-eval in batches of {batch} "
        f"[{low:.2f}, {high:.2f}]: {ratio / bound:.0%} of the bound, {ratio / with_head:.0%} of the {with_head:.2f}x "
        f"that the head at every position makes it; largest difference {far:.1e}"
        + (
            f", from float64 {apart['ours_off']:.1e} ours and {apart['peer_off']:.1e} the peer's"
            if apart
            else ""
        ),
        flush=True,
    )
    return {
        "ours": round(len(requests) / seconds, 3), "batch": batch,
        "peer": round(len(requests) / statistics.median(p[0] for _, p in pairs), 3), "ratio": round(ratio, 3),
        "low": round(low, 3), "high": round(high, 3), "bound": round(bound, 3), "reached": round(ratio / bound, 3),
        "bound_head": round(with_head, 3), "requests": len(requests), "difference": far, **apart, "agree": agree,
    }  # fmt: skip


def tokens(engine: TorchEngine, requests: Sequence[ScoreRequest]) -> tuple[int, int]:
    """Tokens of the peer's rows (one for all one-token continuations of a context, else one a request) and of our
    trie."""
    rows = {(r.context + r.continuation)[:-1] for r in requests}
    before = engine.usage.prefilled
    engine.score(requests)
    return sum(map(len, rows)), engine.usage.prefilled - before


def exactly(
    engine: TorchEngine,
    requests: Sequence[ScoreRequest],
    theirs: Sequence[Sequence[str]],
    sums: Sequence[float],
    mine: Sequence[float],
    place: dict[tuple[str, str], int],
) -> dict[str, Any]:
    """The largest distances of both sides from float64, over the requests on which they differ by more than CLOSE."""
    both = [(place[c, x], s) for (c, x), s in zip(theirs, sums)]
    apart = sorted(((abs(mine[i] - s), i, s) for i, s in both), reverse=True)
    apart = [row for row in apart if row[0] > CLOSE][:CHECKED]
    exact = Exact(engine.model)
    true = {i: exact.score(requests[i].context, requests[i].continuation) for _, i, _ in apart}
    return {
        "ours_off": max(abs(mine[i] - true[i]) for _, i, _ in apart),
        "peer_off": max(abs(s - true[i]) for _, i, s in apart),
        "checked": len(apart),
    }


@torch.inference_mode()
def head_seconds(engine: TorchEngine, rows: int = 512) -> float:
    """Of the output head and its log-softmax, at one position."""
    hidden = torch.randn(rows, engine.network.config.width)
    times = []
    for _ in range(5):
        begin = now()
        torch.log_softmax(engine.network.logits(hidden), -1)
        times.append((now() - begin) / rows)
    return statistics.median(times)


def _best_batch(peer: Peer, first: int, cpu: bool) -> int:
    tried = {}
    for size in (1, 4, 16):
        peer.ask(do="batch", size=size)
        tried[size] = peer.ask(do="score", first=first)["cpu" if cpu else "seconds"]
    return min(tried, key=lambda b: tried[b])


if __name__ == "__main__":
    sys.exit(main())
