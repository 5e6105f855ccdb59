"""datatrove's language filter, decontamination, MinHash and tokenizer on JSONL files: the peer of `corpus.py`, in its
own environment, one process. The order of the steps is ours; its settings are its own, the language model is the one
file that both use, in place of a download."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter, NGramsDecontIndexer
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import LanguageFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils import lid
from datatrove.utils.logging import logger

given = json.loads(Path(sys.argv[1]).read_text())
logger.remove()
work = Path(given["work"])
lid.cached_asset_path_or_download = lambda *_, **__: given["language_model"]
kept: dict[str, list[str]] = {}


def note(name: str):
    """A step that notes which documents came so far."""

    def step(data, rank: int = 0, world_size: int = 1):
        for document in data:
            kept.setdefault(name, []).append(document.id)
            yield document

    return step


def execute(name: str, pipeline: list, tasks: int = 1) -> None:
    LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(work / "logs" / name)).run()


def index(folder: Path) -> None:
    """Its indexer downloads tasks through lighteval; the hashes of an item are computed by the same method here."""
    config = NGramsDecontConfig()
    NGramsDecontIndexer._requires_dependencies = []
    indexer = NGramsDecontIndexer(str(folder), config=config)
    # splitlines would cut at U+2028
    lines = Path(given["references"]).read_text(encoding="utf-8").split("\n")
    items = [json.loads(line)["text"] for line in lines if line]
    hashes = {h for item in items for h in indexer.compute_hashes(item)}
    folder.mkdir(parents=True, exist_ok=True)
    np.array(list(hashes), dtype=config.hash_config.np_descr).tofile(folder / "items.index.hashes")


contamination = Path(given["index"])
if given["make_index"]:
    index(contamination)
    raise SystemExit
config = MinhashConfig()
begin = time.process_time()
signatures, buckets, removed = (str(work / n) for n in ("signatures", "buckets", "removed"))
execute("clean", [
    JsonlReader(given["inputs"]), LanguageFilter(["en"], language_threshold=0.5), note("language"),
    NGramsDecontFilter(str(contamination)), note("decontaminate"), JsonlWriter(str(work / "clean"), compression=None),
])  # fmt: skip
execute("signatures", [JsonlReader(str(work / "clean")), MinhashDedupSignature(signatures, config)])
execute("buckets", [MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets)
execute("cluster", [MinhashDedupCluster(buckets, removed, config=config)])
execute("tokenize", [
    JsonlReader(str(work / "clean")), MinhashDedupFilter(removed), note("dedup"),
    DocumentTokenizer(str(work / "tokens"), given["tokenizer"], eos_token="<|endoftext|>", shuffle_documents=False),
])  # fmt: skip
(work / "kept.json").write_text(json.dumps(kept))
print(json.dumps({"cpu": time.process_time() - begin}))
