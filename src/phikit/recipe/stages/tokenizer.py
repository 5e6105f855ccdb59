"""Stage `tokenizer`: trains the vocabulary at nano; the cl100k layout of Phi-4 is not trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ("corpus", "synth")


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes tokenizer.json. The sample takes every source in turn until `tokenizer.sample` bytes are reached,
    so that no source is crowded out by a larger one."""
    from phikit.text.chat import TEMPLATE
    from phikit.text.tokenizer import Tokenizer

    config: Any = ctx.config
    if config.kind != "trained":
        raise ValueError(
            "tokenizer.kind cl100k needs the cl100k ranks, which this version does not ship; "
            "set tokenizer.kind=trained (and model.vocab) or use --scale nano"
        )
    counts: dict[str, int] = {}
    tokenizer = Tokenizer.train(_sample(ctx, config.sample, counts), ctx.recipe.model.vocab)
    tokenizer.save(ctx.out / "tokenizer.json")
    (ctx.out / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return {"vocab": tokenizer.vocab_size, "sample_bytes": counts}


def _sample(ctx: StageContext, budget: int, counts: dict[str, int]) -> Iterator[str]:
    from phikit.records.io import read_jsonl

    by_source: dict[str, list[str]] = {}
    for stage, name in (("corpus", "documents"), ("synth", "documents"), ("synth", "long")):
        for row in read_jsonl(ctx.file(stage, f"{name}.jsonl.zst")):
            by_source.setdefault(row["source"], []).append(row["text"])
    for row in read_jsonl(ctx.file("synth", "dialogs.jsonl.zst")):
        text = " ".join(f"{t['role']} {t['content']}" for t in row["turns"])
        by_source.setdefault("dialogs", []).append(text)
    share = budget // len(by_source)
    for source in sorted(by_source):
        left = share
        for text in by_source[source]:
            if left <= 0:
                break
            piece = text[:left]
            left -= len(piece.encode())
            yield piece
        counts[source] = share - max(left, 0)
