"""Stage `mixture`: documents and dialogs become token shards, one folder a source."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ("corpus", "synth", "tokenizer")
WATCHES = ("shards",)


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes <source>/{tokens,weights,offsets}.npy and ids.txt, and lengths.json: by source the share of its tokens
    in documents of each length. A document is stored once: what midtraining takes as long (`<source>_long`) is a view.
    Of a source in `mixture.shards` there is only where it lies."""
    from phikit.mixture import lengths
    from phikit.mixture.encode import encode_files
    from phikit.mixture.shards import TokenShard, placed
    from phikit.records.io import write_json
    from phikit.text.tokenizer import Tokenizer

    m: Any = ctx.recipe.mixture
    documents = (("corpus", "documents"), ("synth", "documents"), ("synth", "long"))
    counts = encode_files(
        ctx.file("tokenizer", "tokenizer.json"),
        [ctx.file(stage, f"{name}.jsonl.zst") for stage, name in documents],
        [ctx.file("synth", "dialogs.jsonl.zst")],
        ctx.out,
        ctx.work,
        answer=m.answer_weight,
        other=m.other_weight,
        workers=os.cpu_count() or 1,
        on=ctx.on,
    )
    vocab = Tokenizer.load(ctx.file("tokenizer", "tokenizer.json")).vocab_size if m.shards else 0
    for given in m.shards:
        if given.source in counts["tokens"]:
            raise ValueError(
                f"mixture.shards: {given.source!r} is there already: give its shards another name"
            )
        try:
            shard = placed(ctx.out / given.source, given.path, vocab)
        except ValueError as e:
            raise ValueError(f"mixture.shards: {e}") from e
        counts["documents"][given.source], counts["tokens"][given.source] = shard.documents, len(shard.tokens)
    found = {s: lengths.of_shard(TokenShard.load(ctx.out / s).lengths) for s in counts["tokens"]}
    write_json(ctx.out / lengths.FILE, found)
    return counts
