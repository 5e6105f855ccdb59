"""Tokens per true pivotal token: our search against the report's plain search, on one model and the same answers.

Plain search (report section 4.3): N rollouts for every prefix, an answer is cut at the midpoint of its cumulative
log-probability until a part moves p by less than the gap, known prefixes are not sampled again. Peer: the cheapest of
N = 32, 64, 128 whose precision is at least ours (128 where none is). Both search the same two answers of a question.
Truth comes from a reference run of its own: every candidate token is sampled on both sides until its change is clear
of the band gap +- 0.05, or --reference rollouts a side; tokens in the band count for nobody.

Processed tokens = generated + prefilled, where an engine call computes each distinct prefix once, for both. `cached`:
the same with prefixes kept over all calls. The same work: finding the tokens. Plain search takes the other token of a
pair from its rollouts as it is; ours verifies it, and `ratio_with_pairs` counts that too. `agree`: our precision
reaches 1 - error, and our recall is not lower than the peer's beyond chance (McNemar, p < 0.05). The bound is that of
a search that knew where to look, but treats every token alike: the two sides of each pivotal token, sampled until an
e-value of candidates / (error x pivotal) is reached at the probabilities found. Ours learns what a token did in other
questions, and can come below it.

Wall clock: one prompt at a time with transformers.generate, measured on a slice and taken per token for all that plain
search generates (sampling one answer a call; `wall_batched`: N answers a call).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from phikit.engine.open import open_engine
from phikit.jobs.progress import bar
from phikit.preference.answer import Answer, choose
from phikit.preference.bound import sampling_range
from phikit.preference.pivotal import SearchConfig, SearchResult, search
from phikit.preference.pts import identity
from phikit.preference.questions import STOP, is_right, read_questions
from phikit.preference.rollouts import Prefix, Question, Rollout, Rollouts
from phikit.stats import mcnemar

BAND = 0.05
ROOT = Path(__file__).resolve().parents[1]


class Counted:
    """An engine that counts what a call processes: each distinct prefix of its prompts once."""

    def __init__(self, engine) -> None:
        self.engine, self.prefilled, self.generated, self.seconds = engine, 0, 0, 0.0

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def generate(self, requests):
        self.prefilled += distinct([r.prompt for r in requests])
        begin = time.perf_counter()
        for i, done in self.engine.generate(requests):
            self.generated += sum(len(c.tokens) for c in done)
            yield i, done
        self.seconds += time.perf_counter() - begin


def distinct(prompts: Sequence[Prefix]) -> int:
    """Tokens of a trie of the prompts."""
    total, last = 0, ()
    for p in sorted(set(prompts)):
        shared = next((i for i, (x, y) in enumerate(zip(last, p)) if x != y), min(len(last), len(p)))
        total, last = total + len(p) - shared, p
    return total


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="checkpoint folder; without it the newest runs/*/sft")
    parser.add_argument("--questions", type=Path, help="without it the questions of the same run")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--reference", type=int, default=600)
    parser.add_argument("--gap", type=float, default=0.2)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--keep", type=Path, help="keep the rollouts of plain search and of the reference here"
    )
    parser.add_argument("--no-wall", action="store_true")
    a = parser.parse_args()
    found = find(a.model, a.questions)
    if found is None:
        print(
            "skipped: no checkpoint under runs/*/sft with questions; run `make nano` or give --model and --questions"
        )
        return 0
    model, file = found
    questions = list(islice(read_questions(file), a.count))
    with tempfile.TemporaryDirectory() as tmp:
        row = measure(a, model, questions, a.keep or Path(tmp), Path(tmp))
    print(json.dumps(row))
    return 0


def find(model: str | None, questions: Path | None) -> tuple[str, Path] | None:
    if model and questions:
        return model, questions
    runs = (
        [Path(model).parent]
        if model
        else sorted(ROOT.glob("runs/*"), key=lambda p: p.stat().st_mtime, reverse=True)
    )
    for run in runs:
        file = questions or run / "synth" / "questions.jsonl.zst"
        if (run / "sft" / "hf" / "config.json").is_file() and file.is_file():
            return model or str(run / "sft"), file
    return None


def measure(a, model: str, questions: list[Question], keep: Path, tmp: Path) -> dict:
    config = SearchConfig(gap=a.gap)

    def store(name: str, seed: int, folder: Path) -> tuple[Any, Rollouts]:
        engine: Any = Counted(open_engine(model))
        return engine, Rollouts(
            engine, is_right, folder / name, temperature=1.0, max_tokens=a.max_tokens, budget=0, seed=seed, stop=STOP,
            identity=identity(model),
        )  # fmt: skip

    def run(name: str, config: SearchConfig) -> tuple[SearchResult, dict, float]:
        engine, rollouts = store(name, a.seed, tmp)
        begin = time.perf_counter()
        result = search(questions, rollouts, config)
        seconds = time.perf_counter() - begin
        prompts = sum(len(rollouts.prompt(q)) for q in questions)
        cost = {"generated": engine.generated, "processed": engine.generated + engine.prefilled,
                "cached": engine.generated + prompts}  # fmt: skip
        print(
            f"{name}: {len(result.pivots)} tokens, {len(result.pairs)} pairs, {seconds:.1f} s, {rollouts.waves} waves"
        )
        return result, cost, seconds

    result, cost, seconds = run("ours", replace(config, pairs=False))
    paired, paired_cost, _ = run("ours and pairs", config)

    _, plain = store("plain", a.seed, keep)
    searched = {n: plain_search(questions, plain, config, n) for n in (128, 64, 32)}

    # The answers that anybody searched; both chose them from the same first rollouts.
    answers: dict[tuple[str, Prefix], tuple[Question, Answer]] = {}
    for f in (*result.found, *paired.found):
        for x in f.answers:
            answers[f.question.id, x.tokens] = (f.question, x)
    for s in searched.values():
        for q, x in s["answers"]:
            answers.setdefault((q.id, x.tokens), (q, x))
    _, reference = store("reference", a.seed + 1, keep)
    change = truth(list(answers.values()), reference, config, a.reference)
    report = {
        "ours": judged(keys(result), change, config, cost),
        "ours and pairs": judged(keys(paired), change, config, paired_cost),
    }
    for n, s in sorted(searched.items()):
        report[f"plain {n}"] = judged(s["pivots"], change, config, s["cost"])
    for name, r in report.items():
        print(f"{name:>10}: " + ", ".join(f"{k} {v}" for k, v in r.items()), flush=True)
    mine = report["ours"]
    match = next((n for n in (32, 64, 128) if report[f"plain {n}"]["precision"] >= mine["precision"]), 128)
    peer = report[f"plain {match}"]
    ratio = {k: round(peer[k] / mine[k], 2) for k in ("processed_per", "generated_per", "cached_per")}
    with_pairs = round(peer["processed_per"] / report["ours and pairs"]["processed_per"], 2)
    chance = recall_p(keys(result), searched[match]["pivots"], change, config)
    row = {
        "name": "pts", "ours": mine["processed_per"], "peer": peer["processed_per"],
        "peer_name": f"plain search, N = {match}", "peer_version": "report section 4.3",
        "unit": "processed tokens per true pivotal token", "ratio": ratio["processed_per"],
        "ratio_generated": ratio["generated_per"], "ratio_cached": ratio["cached_per"],
        "ratio_with_pairs": with_pairs,
        "precision": mine["precision"], "recall": mine["recall"], "peer_precision": peer["precision"],
        "peer_recall": peer["recall"],
        "recall_p": round(chance, 3),
        "agree": mine["precision"] >= 1 - config.error and (mine["recall"] >= peer["recall"] or chance >= 0.05),
        "n": mine["true"], "questions": len(questions), **bound(result, mine, config),
    }  # fmt: skip
    if not a.no_wall:
        row |= wall(model, questions, plain, searched[match]["cost"]["generated"], seconds, match, a)
    return row


def plain_search(questions: list[Question], rollouts: Rollouts, c: SearchConfig, n: int) -> dict:
    """The report's search; all questions side by side, one wave for each level of cutting."""
    used: dict[tuple[str, Prefix], int] = {}
    prefilled, pivots, answers = 0, set(), []

    def estimate(wanted: list[tuple[Question, Prefix]]) -> None:
        nonlocal prefilled
        new = {(q.id, p): (q, p) for q, p in wanted if (q.id, p) not in used}
        with bar(f"plain {n}", unit="rollouts") as b:
            rollouts.ensure([(q, p, n) for q, p in new.values()], b)
        prefilled += distinct([rollouts.prompt(q) + p for q, p in new.values()])
        for (i, p), (q, _) in new.items():
            used[i, p] = sum(len(r.tokens) for r in rollouts.of(q, p)[:n])

    def p(q: Question, x: Answer, i: int) -> float:
        if i == len(x):
            return float(x.right)
        some = rollouts.of(q, x.tokens[:i])[:n]
        return sum(r.right for r in some) / n

    estimate([(q, ()) for q in questions])
    parts = []
    for q in questions:
        given = rollouts.of(q, ())
        if not c.low <= sum(r.right for r in given[:n]) / n <= c.high:
            continue
        for r in choose(given[: c.first], c.trajectories)[0]:
            x = Answer(r, [sampling_range(lp, 1.0, 1.0, 0) for lp in r.logprobs], c.gap)
            answers.append((q, x))
            parts.append((q, x, 0, len(x)))
    while parts:
        cuts = []
        for q, x, i, j in parts:
            if abs(p(q, x, j) - p(q, x, i)) < c.gap:
                continue
            if j - i == 1:
                if j < len(x):
                    pivots.add((q.id, x.tokens[:i], x.tokens[i]))
                continue
            half = (x.surprise[i] + x.surprise[j]) / 2
            cuts.append((q, x, i, next((m for m in range(i + 1, j) if x.surprise[m] >= half), j - 1), j))
        estimate([(q, x.tokens[:m]) for q, x, _, m, _ in cuts])
        parts = [(q, x, *part) for q, x, i, m, j in cuts for part in ((i, m), (m, j))]
    generated = sum(used.values())
    prompts = sum(len(rollouts.prompt(q)) for q in questions)
    cost = {"generated": generated, "processed": generated + prefilled, "cached": generated + prompts}
    return {"pivots": pivots, "answers": answers, "cost": cost}


def truth(answers: list[tuple[Question, Answer]], r: Rollouts, c: SearchConfig, most: int) -> dict:
    """(question, prefix, token) -> change of p, for every token whose bound reaches the band."""
    by_question: dict[str, tuple[Question, list[Answer]]] = {}
    for q, x in answers:
        fresh = Answer(Rollout(x.tokens, (), "right" if x.right else "wrong"), x.ranges, c.gap)
        by_question.setdefault(q.id, (q, []))[1].append(fresh)
    fed: dict[tuple[str, Prefix], int] = {}
    size, change = 60, {}
    while size:
        wanted = []
        for q, some in by_question.values():
            for x in some:
                for i in range(len(x) - 1):
                    if x.bound(i, i + 1) < c.gap - BAND or clear(x, i, c, most):
                        continue
                    for side, n in ((i, x.at(i).n), (i + 1, x.at(i + 1).n)):
                        if n < most:
                            wanted.append(
                                (q, x.tokens[:side], r.count(q, x.tokens[:side]) + min(size, most - n))
                            )
        with bar("reference", unit="rollouts") as b:
            r.ensure(wanted, b)
        for (id, p), rollouts in r.known.items():
            for rollout in rollouts[fed.get((id, p), 0) :]:
                for x in by_question[id][1]:
                    x.add(p, rollout)
            fed[id, p] = len(rollouts)
        size = min(200, size * 2) if wanted else 0
    for q, some in by_question.values():
        for x in some:
            for i in range(len(x) - 1):
                known = x.bound(i, i + 1) >= c.gap - BAND
                change[q.id, x.tokens[:i], x.tokens[i]] = x.at(i + 1).mean - x.at(i).mean if known else 0.0
    return change


def clear(x: Answer, i: int, c: SearchConfig, most: int) -> bool:
    a, b = x.at(i), x.at(i + 1)
    if min(a.n, b.n) < 60:
        return False
    if min(a.n, b.n) >= most:
        return True
    error = 3.3 * math.sqrt(a.mean * (1 - a.mean) / a.n + b.mean * (1 - b.mean) / b.n)
    d = abs(b.mean - a.mean)
    return d - error > c.gap + BAND or d + error < c.gap - BAND


def keys(result: SearchResult) -> set:
    return {(v.question.id, v.prefix, v.token) for v in result.pivots}


def recall_p(ours: set, theirs: set, change: dict, c: SearchConfig) -> float:
    """Exact two-sided p-value that both find true pivotal tokens equally often."""
    true = [k for k, x in change.items() if abs(x) >= c.gap + BAND]
    return mcnemar([float(k in ours) for k in true], [float(k in theirs) for k in true])


def judged(found: set, change: dict, c: SearchConfig, cost: dict) -> dict:
    true = {k for k, x in change.items() if abs(x) >= c.gap + BAND}
    band = {k for k, x in change.items() if c.gap - BAND < abs(x) < c.gap + BAND}
    kept = found - band
    right = len(kept & true)
    out = {
        "found": len(found), "right": right, "true": len(true), "precision": round(right / max(1, len(kept)), 4),
        "recall": round(right / max(1, len(true)), 4),
    }  # fmt: skip
    return out | cost | {f"{k}_per": round(v / max(1, right), 1) for k, v in cost.items()}


def bound(result: SearchResult, mine: dict, c: SearchConfig) -> dict:
    """Generated tokens per pivotal token of a search that samples nothing but the two sides of pivotal tokens."""
    needed = math.log(max(1, result.hypotheses) / max(1, len(result.pivots)) / c.error)
    sides = []
    for v in result.pivots:
        a, b = v.taken.mean, v.apart.mean
        same = (a + b) / 2
        left = sum(
            len(x.tokens) - len(v.prefix) for f in result.found for x in f.answers if f.question == v.question
        )
        sides.append(2 * needed / (_kl(a, same) + _kl(b, same)) * left / c.trajectories)
    least = sum(sides) / max(1, len(sides))
    return {"bound": round(least, 1), "of_bound": round(least / max(1e-9, mine["generated_per"]), 3)}


def _kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def wall(model: str, questions, plain: Rollouts, generated: int, seconds: float, n: int, a) -> dict:
    import torch
    import transformers

    folder = Path(model) / "hf" if (Path(model) / "hf").is_dir() else Path(model)
    hf: Any = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.manual_seed(0)
    rates = []
    for batch, prompts in ((1, 24), (n, 2)):
        begin, tokens = time.perf_counter(), 0
        for q in questions[:prompts]:
            ids = torch.tensor([plain.prompt(q)])
            out = hf.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_p=1.0, top_k=0,
                max_new_tokens=a.max_tokens, num_return_sequences=batch, eos_token_id=list(plain.engine.stop_ids),
                pad_token_id=plain.engine.stop_ids[-1],
            )  # fmt: skip
            new = out[:, ids.shape[1] :]
            ends = torch.isin(new, torch.tensor(plain.engine.stop_ids))
            tokens += sum(int(row.nonzero()[0]) + 1 if row.any() else len(row) for row in ends)
        rates.append(tokens / (time.perf_counter() - begin))
    return {
        "wall_ours_s": round(seconds, 1), "wall_peer_s": round(generated / rates[0], 1),
        "wall_ratio": round(generated / rates[0] / seconds, 1),
        "wall_batched_ratio": round(generated / rates[1] / seconds, 1),
        "wall_peer": f"transformers {transformers.__version__} generate, {rates[0]:.0f} and {rates[1]:.0f} tokens/s",
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
