"""nDCG@10 of evals/metrics/long.py against scikit-learn's ndcg_score, SubEM against its definition, and DROP's exact
match and F1 (evals/metrics/drop.py) against lm-eval's copy of the official script.

    python benchmarks/ndcg_parity.py [--cases 10000]

Rankings are of 2 to 60 documents with labels 0 to 3. The last line is JSON; there is no speed goal."""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import subprocess

import _lm_eval
from _peers import peer_python

from phikit.evals.metrics import drop, long
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


def spans(n: int) -> int:
    """How many answers DROP's two measures differ on; lm-eval rounds F1 to two places."""
    from lm_eval.tasks.drop.utils import get_metrics  # pyright: ignore[reportMissingImports]

    rng, differ = random.Random(2), 0
    words = ["The", "a", "(a)", "12", "12.0", "1,200", "1e3", "1/2", "-7", "0.50", "$5", "5%", "inf", "nan", "ten",
             "3-yard", "yard", "half-time", "Tom", "Brady's", "U.S."]  # fmt: skip
    for _ in range(n):
        said, gold = (" ".join(rng.choices(words, k=rng.randint(least, 5))) for least in (0, 1))
        (em, f1), ours = get_metrics(said, gold), drop.scores(said, gold)
        differ += bool(em != ours[0] or abs(f1 - ours[1]) > 0.00505)
    return differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--inside", action="store_true", help="in the peer's environment")
    told = parser.parse_args()
    if not told.inside:
        _lm_eval.python()
        python = peer_python("lm_eval", "scikit-learn", VERSION)
        subprocess.run([python, __file__, "--inside", "--cases", str(told.cases)], check=True)
        return
    worst, differ, drops = rankings(told.cases), parts(told.cases), spans(told.cases)
    print(json.dumps({
        "name": "ndcg_parity", "agree": worst < 1e-9 and not differ and not drops, "largest_difference": worst,
        "sub_em_differ": differ, "drop_differ": drops, "n": told.cases, "peer_name": "scikit-learn",
        "peer_version": VERSION,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
