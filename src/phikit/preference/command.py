"""`phikit pts`: from the options of the command line to a search, and what it says when it is done."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from phikit.engine.open import open_engine
from phikit.preference import pts as whole
from phikit.preference.pivotal import SearchConfig
from phikit.preference.questions import KINDS, STOP, read_questions

_THOUSANDS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def pts(
    model: str,
    questions: Path,
    out: Path,
    *,
    kind: str = "",
    gap: float = 0.2,
    error: float = 0.05,
    budget: str = "5M",
    limit: int = 0,
    low: float = 0.2,
    high: float = 0.8,
    trajectories: int = 2,
    rollouts: int = 96,
    certified: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_tokens: int = 512,
    stop: Sequence[str] = (),
    seed: int = 0,
    parallel: int = 4,
    device: str = "",
    say: Callable[[str], None] = print,
) -> None:
    """Searches and says where the pairs are. Raises ValueError and OSError with messages for people."""
    config = SearchConfig(
        gap=gap,
        low=low,
        high=high,
        error=error,
        trajectories=trajectories,
        rollouts=rollouts,
        certified=certified,
    )
    closing = dict.fromkeys(KINDS, tuple(stop)) if stop else STOP
    sampling = whole.Sampling(temperature, top_p, max_tokens, tokens(budget), seed, closing)
    given = read_questions(questions, kind=kind)
    wanted = list(islice(given, limit) if limit else given)
    if not wanted:
        raise ValueError(f"{questions}: no questions")
    engine = open_engine(model, parallel=parallel, device=device or None)
    try:
        result, card = whole.run(engine, wanted, out, config, sampling, identity=whole.identity(model))
    finally:
        engine.close()
    cost = card["cost"]
    say(
        f"{card['pivotal_tokens']:,} pivotal tokens and {card['pairs']:,} pairs from {len(result.found):,} questions; "
        f"{cost['rollouts']:,} rollouts, {cost['tokens_generated']:,} tokens generated, "
        f"{cost['tokens_prefilled']:,} prefilled"
    )
    if result.stopped:
        say(f"ended early: {result.stopped}; the same command with a larger --budget goes on")
    say(f"pairs: {out / 'preferences.parquet' if card['pairs'] else 'none'}; card: {out / 'card.md'}")


def tokens(text: str) -> int:
    """A number of tokens: 5000000, 5M, 1.5B."""
    match = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?)([KMBT]?)", str(text).strip())
    if match is None:
        raise ValueError(f"--budget {text!r}: write tokens as 5000000 or 5M (K, M, B, T)")
    return round(float(match[1].replace("_", "")) * _THOUSANDS[match[2]])
