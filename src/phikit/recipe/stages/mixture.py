"""Stage `mixture`: documents and dialogs become token shards, one folder a source."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ("corpus", "synth", "tokenizer")
BATCH = 1024  # documents encoded in one call, on all cores


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes <source>/{tokens,weights,offsets}.npy and ids.txt. Documents longer than the base context are also
    a source of their own, `<source>_long`, in which those that fill the long context are repeated `upweight`
    times (report section 3.3: isolate > 8K, upweight >= 16K)."""
    from phikit.jobs.progress import track
    from phikit.mixture.shards import ShardWriter, encode_dialog, encode_documents
    from phikit.records import Dialog, Document, from_row
    from phikit.records.io import read_jsonl
    from phikit.text.tokenizer import Tokenizer

    m: Any = ctx.recipe.mixture
    tokenizer = Tokenizer.load(ctx.file("tokenizer", "tokenizer.json"))
    by_source: dict[str, ShardWriter] = {}

    def add(source: str, id: str, encoded: tuple[list[int], list[int]]) -> None:
        if source not in by_source:
            by_source[source] = ShardWriter(ctx.out / source)
        by_source[source].add(id, *encoded)

    files = [
        ctx.file(s, f"{n}.jsonl.zst")
        for s, n in (("corpus", "documents"), ("synth", "documents"), ("synth", "long"))
    ]
    pretrain: Any = ctx.recipe.pretrain
    midtrain: Any = ctx.recipe.midtrain
    base, long = pretrain.context, midtrain.context
    for rows in _batches(track(_rows(files), "tokenize", unit="documents")):
        documents = [from_row(Document, row) for row in rows]
        weights = [(m.answer_weight, m.other_weight.get(d.source, 1.0)) for d in documents]
        for document, encoded in zip(documents, encode_documents(tokenizer, documents, weights)):
            if document.source != "recall_long":
                add(document.source, document.id, encoded)
            if len(encoded[0]) > base:
                repeats = round(midtrain.upweight) if len(encoded[0]) >= long else 1
                for _ in range(repeats):
                    add(_long_name(document.source), document.id, encoded)
    for row in read_jsonl(ctx.file("synth", "dialogs.jsonl.zst")):
        dialog = from_row(Dialog, row)
        add("dialogs", dialog.id, encode_dialog(tokenizer, dialog))

    counts: dict[str, Any] = {"documents": {}, "tokens": {}}
    for source, shard in sorted(by_source.items()):
        shard.close()
        counts["documents"][source] = len(shard.offsets) - 1
        counts["tokens"][source] = shard.offsets[-1]
    return counts


def _long_name(source: str) -> str:
    return source if source.endswith("_long") else f"{source}_long"


def _batches(rows: Iterable[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        yield batch


def _rows(files: Iterable) -> Iterable[dict[str, Any]]:
    from phikit.records.io import read_jsonl

    for file in files:
        yield from read_jsonl(file)
