"""datatrove's n-gram decontamination on the rows of a file: the peer of `decontaminate.py`, in its own environment.

Its indexer downloads tasks through lighteval; its hashes of an item are computed by the same method here instead.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter, NGramsDecontIndexer

given = json.loads(Path(sys.argv[1]).read_text())
config = NGramsDecontConfig()
NGramsDecontIndexer._requires_dependencies = []  # lighteval, for its list of tasks
with tempfile.TemporaryDirectory() as folder:
    indexer = NGramsDecontIndexer(folder, config=config)
    hashes = {h for item in given["items"] for h in indexer.compute_hashes(item)}
    np.array(list(hashes), dtype=config.hash_config.np_descr).tofile(Path(folder) / "items.index.hashes")
    step = NGramsDecontFilter(folder, config=config)
    step.filter(Document("warm up: the index is read, the word tokenizer is made", "0"))
    flags, seconds = [], []
    for _ in range(given["rounds"]):
        begin = time.process_time()
        flags = [step.filter(Document(text, str(i))) is not True for i, text in enumerate(given["texts"])]
        seconds.append(time.process_time() - begin)
print(json.dumps({"flags": flags, "seconds": seconds}))
