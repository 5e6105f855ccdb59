"""nDCG@10 of evals/metrics/long.py against scikit-learn's ndcg_score, and SubEM against its definition.

    python benchmarks/ndcg_parity.py [--cases 10000]

Rankings are of 2 to 60 documents with labels 0 to 3. The last line is JSON; there is no speed goal."""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import subprocess

from _peers import peer_python

from phikit.evals.metrics import long
from phikit.evals.task import Answer, Item

VERSION = "1.9.1"


def rankings(n: int) -> float:
    """The largest difference to scikit-learn."""
    from sklearn.metrics import ndcg_score  # pyright: ignore[reportMissingImports]

    rng, worst = random.Random(0), 0.0
    for _ in range(n):
        size = rng.randint(2, 60)
        labels = {str(i): float(rng.choice((0, 0, 0, 1, 2, 3))) for i in range(size)}
        order = rng.sample(list(labels), size)
        given = [[float(size - order.index(x)) for x in labels]]
        theirs = float(ndcg_score([list(labels.values())], given, k=10)) if any(labels.values()) else 0.0
        worst = max(worst, abs(long.ndcg(order, labels, 10) - theirs))
    return worst


def parts(n: int) -> int:
    """How many SubEM verdicts differ from SQuAD's normalization followed by `in`."""
    rng, differ = random.Random(1), 0
    words = [
        "The",
        "a",
        "an",
        "the",
        "Beatles",
        "beatles",
        "U.S.",
        "us",
        "4",
        "four",
        "rock-band",
        "it's",
        "its",
        "",
    ]

    def plain(text: str) -> str:
        kept = "".join(c for c in text.lower() if c not in string.punctuation)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())

    for _ in range(n):
        said = " ".join(rng.choices(words, k=rng.randint(0, 8)))
        gold = [" ".join(rng.choices(words[4:13], k=rng.randint(1, 2))) for _ in range(rng.randint(1, 3))]
        found = long.sub_em(Item("a", "", reference={"answers": gold}), Answer(said))
        differ += found.scores["sub_em"] != float(
            any(plain(g) in plain(said) for g in gold) and bool(plain(said))
        )
    return differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--inside", action="store_true", help="in the peer's environment")
    told = parser.parse_args()
    if not told.inside:
        python = peer_python("lm_eval", "scikit-learn", VERSION)
        subprocess.run([python, __file__, "--inside", "--cases", str(told.cases)], check=True)
        return
    worst, differ = rankings(told.cases), parts(told.cases)
    print(json.dumps({
        "name": "ndcg_parity", "agree": worst < 1e-9 and not differ, "largest_difference": worst,
        "sub_em_differ": differ, "n": told.cases, "peer_name": "scikit-learn", "peer_version": VERSION,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
