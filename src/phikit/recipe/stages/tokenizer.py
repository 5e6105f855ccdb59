"""Stage `tokenizer`: trains the vocabulary at nano; at the other scales builds Phi-4's cl100k layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ("corpus", "synth")


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes tokenizer.json and the chat template. `cl100k` reads no text. `trained` takes every source in turn
    until `tokenizer.sample` bytes are reached, so that no source is crowded out by a larger one."""
    from phikit.text import cl100k
    from phikit.text.chat import TEMPLATE
    from phikit.text.tokenizer import Tokenizer

    model: Any = ctx.recipe.model  # a recipe without `init` has one
    vocab = model.vocab
    counts: dict[str, Any] = {}
    if ctx.config.kind == "cl100k":
        if vocab != cl100k.VOCAB:
            raise ValueError(
                f"model.vocab = {vocab}, but tokenizer.kind cl100k has {cl100k.VOCAB} ids; "
                f"set model.vocab={cl100k.VOCAB} or tokenizer.kind=trained"
            )
        tokenizer = cl100k.build()
    else:
        sampled: dict[str, int] = {}
        tokenizer = Tokenizer.train(_sample(ctx, ctx.config.sample, sampled), vocab)
        counts["sample_bytes"] = sampled
    tokenizer.save(ctx.out / "tokenizer.json")
    (ctx.out / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return {"vocab": tokenizer.vocab_size, **counts}


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
