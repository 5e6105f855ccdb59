"""What a search writes: pairs for our trainer and for others, its answers and rollouts for people.

pairs.jsonl.zst             `Preference` rows: what `dpo1` trains on
preferences.jsonl.zst       the same pairs as trl and Hugging Face datasets read them: prompt, chosen, rejected as
preferences.parquet         text and as ids
answers.jsonl               searched answers, p(success) along each, largest changes first (`shown`)
rollouts.jsonl.zst          a row per sampled prefix: outcomes, next tokens, examples
card.json, card.md          the data card (`card`)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phikit.preference.pivotal import SearchResult, to_pair
from phikit.preference.rollouts import Rollouts, rollout_id
from phikit.preference.shown import Texts, answer_rows
from phikit.records.io import write_jsonl, write_parquet
from phikit.records.types import Preference, to_row

EXAMPLES = 4


def write(result: SearchResult, rollouts: Rollouts, out: Path) -> list[Preference]:
    """Writes all but the card. Returns the pairs."""
    shown = Texts(rollouts.engine)
    pairs = pairs_of(result, shown)
    write_jsonl(out / "pairs.jsonl.zst", [to_row(p) for p in pairs])
    trl = [preference_row(p, rollouts, shown) for p in pairs]
    write_jsonl(out / "preferences.jsonl.zst", trl)
    if trl:
        write_parquet(out / "preferences.parquet", trl)
    write_jsonl(out / "answers.jsonl", answer_rows(result, rollouts, shown))
    write_jsonl(out / "rollouts.jsonl.zst", rollout_rows(rollouts, shown))
    return pairs


def pairs_of(result: SearchResult, texts: Texts) -> list[Preference]:
    """The verified pairs, each once."""
    return list({p.id: p for v in result.pairs for p in [to_pair(v, texts.token)]}.values())


def preference_row(pair: Preference, rollouts: Rollouts, texts: Texts) -> dict[str, Any]:
    """A row of the standard preference format (explicit prompt). The ids are exact; text may not tokenize back to one
    token, so trainers that take ids should."""
    prompt = rollouts.rendered(pair.meta["question"], pair.prompt) + pair.prefix_ids
    return {
        "prompt": texts.of(prompt), "chosen": pair.chosen, "rejected": pair.rejected,
        "prompt_ids": list(prompt), "chosen_ids": list(pair.chosen_ids), "rejected_ids": list(pair.rejected_ids),
        "id": pair.id, "kind": pair.meta["kind"], "question": pair.meta["question"],
        "p_chosen": pair.meta["p_chosen"], "p_rejected": pair.meta["p_rejected"],
    }  # fmt: skip


def rollout_rows(rollouts: Rollouts, texts: Texts) -> Iterator[dict[str, Any]]:
    """A row per sampled prefix."""
    for (question, prefix), samples in rollouts.known.items():
        first: dict[int, list[bool]] = {}
        for r in samples:
            first.setdefault(r.tokens[0], []).append(r.right)
        yield {
            "id": rollout_id(question, prefix), "question": question, "prefix": list(prefix),
            "prefix_text": texts.of(prefix), "n": len(samples), "right": sum(r.right for r in samples),
            "outcomes": [r.outcome for r in samples],
            "next": {texts.token(t): [sum(x), len(x)] for t, x in first.items()},
            "examples": [{"text": texts.engine.decode(r.tokens), "outcome": r.outcome} for r in samples[:EXAMPLES]],
        }  # fmt: skip
