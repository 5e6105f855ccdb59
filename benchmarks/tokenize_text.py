"""Text to ids: phikit's Tokenizer against Hugging Face `tokenizers` (and tiktoken for information).

Phi-4's own vocabulary. Pairs alternate over fresh slices of the corpora (multilingual pages, translated sentences,
code, documentation, books), so that no cache has seen a text before. The headline is one thread against one
thread in CPU time; lines before it show offsets, a trained vocabulary and all cores in wall time.

Bound: whatever the encoder does, it reads the text as UTF-8 and hands out lists of Python integers. That floor is
timed on the same texts; the bound is the ratio that an encoder of zero cost would have.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

PAIRS = 12
LOW, HIGH = 2, 9  # order statistics (from 0) of 12: the median lies between them with 96.1 % confidence
SLICE = 120_000  # characters of each corpus in one slice
SHARED = Path(__file__).parents[2] / "shared" / "data" / "corpora"
ARCHIVES = {
    "multilingual": ("multilingual/udhr_html.tar.gz", ".html"),
    "sentences": ("multilingual/flores200_dev_62langs.tar.gz", ".dev"),
    "code": ("code/python_repos.tar.gz", ".py"),
    "documentation": ("html/debian-docs-en.tar.gz", ".html"),
}
Encode = Callable[[list[str]], list]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)  # a child: measures and prints JSON
    threads = parser.parse_args().threads
    if threads is not None:
        print(json.dumps(measure(threads)))
        return 0
    try:
        one, all_cores = (_child(n) for n in (1, os.cpu_count() or 1))
    except subprocess.CalledProcessError as e:
        print(e.stderr.strip().splitlines()[-1], file=sys.stderr)
        return 2
    for name, row in [*one["rows"].items(), *((f"{k}, all cores", r) for k, r in all_cores["rows"].items())]:
        print(
            f"{name:24} {row['ours']:7.2f} MB/s, tokenizers {row['peer']:6.2f}: {row['ratio']:6.1f}x "
            f"[{row['low']:.1f}, {row['high']:.1f}]" + ("" if row["agree"] else "  IDS DIFFER")
        )
    print(f"tiktoken {one['tiktoken']:.2f} MB/s; lists alone {one['floor']:.1f} MB/s; texts: {one['texts']}")
    rows = [*one["rows"].values(), *all_cores["rows"].values()]
    head = one["rows"]["ids"]
    bound = one["floor"] / head["peer"]
    result = {
        "name": "tokenize", "ours": head["ours"], "peer": head["peer"], "peer_name": "tokenizers",
        "peer_version": version("tokenizers"), "unit": "MB/s of CPU time, one thread", "ratio": head["ratio"],
        "low": head["low"], "high": head["high"], "agree": all(r["agree"] for r in rows), "n": PAIRS,
        "bound": round(bound, 1), "of_bound": round(head["ratio"] / bound, 3), "goal": 2,
        "offsets": one["rows"]["offsets"]["ratio"], "trained": one["rows"]["trained"]["ratio"],
        "all_cores": all_cores["rows"]["ids"]["ratio"], "tiktoken": round(one["tiktoken"] / head["peer"], 2),
        "fast": one["fast"],
    }  # fmt: skip
    print(json.dumps(result))
    return 0 if result["agree"] else 1


def _child(threads: int) -> dict:
    """Both libraries read the number of threads when they start: one process for each number."""
    env = {
        **os.environ, "RAYON_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
    }  # fmt: skip
    command = [sys.executable, __file__, "--threads", str(threads)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return json.loads(out.stdout.splitlines()[-1])


def measure(threads: int) -> dict:
    from tokenizers import Tokenizer as Backend

    from phikit.text import cl100k
    from phikit.text.tokenizer import Tokenizer

    clock = time.process_time if threads == 1 else time.perf_counter
    ranks = cl100k.find_ranks()
    source, slices = _slices()
    ours = cl100k.build(ranks)
    small = Tokenizer.train([t for s in slices[:2] for t in s], 4096)
    peers = [Backend.from_str(t.to_json()) for t in (ours, small)]
    for backend in peers:
        backend.encode_special_tokens = True
    pairs: dict[str, tuple[Encode, Encode]] = {"ids": (ours.encode_batch, _ids(peers[0]))}
    if threads == 1:
        pairs["offsets"] = (ours.encode_with_offsets, _offsets(peers[0]))
        pairs["trained"] = (small.encode_batch, _ids(peers[1]))
    rows = {}
    for name, (a, b) in pairs.items():
        for encode in (a, b):
            encode(["warm up"])
        rows[name] = _alternate(a, b, slices, clock)
    return {
        "rows": rows, "texts": source, "floor": _floor(ours, slices, clock),
        "tiktoken": _tiktoken(ranks, slices, clock), "fast": ours._fast is not None and small._fast is not None,
    }  # fmt: skip


def _ids(backend) -> Encode:
    return lambda texts: [e.ids for e in backend.encode_batch_fast(texts, add_special_tokens=False)]


def _offsets(backend) -> Encode:
    return lambda texts: [(e.ids, e.offsets) for e in backend.encode_batch(texts, add_special_tokens=False)]


def _alternate(ours: Encode, peer: Encode, slices: list[list[str]], clock) -> dict:
    """Medians of MB/s and of the ratio of each pair; the one that goes first changes from pair to pair."""
    rates: tuple[list[float], list[float]] = ([], [])
    agree = True
    for i, texts in enumerate(slices):
        size = _size(texts)
        results: list = [None, None]
        for side in (0, 1) if i % 2 else (1, 0):
            begin = clock()
            results[side] = (ours, peer)[side](texts)
            rates[side].append(size / (clock() - begin))
        agree = agree and results[0] == results[1]
    ratios = sorted(a / b for a, b in zip(*rates, strict=True))
    return {
        "ours": round(statistics.median(rates[0]), 2), "peer": round(statistics.median(rates[1]), 2),
        "ratio": round(statistics.median(ratios), 2), "low": round(ratios[LOW], 2),
        "high": round(ratios[HIGH], 2), "agree": agree,
    }  # fmt: skip


def _floor(tokenizer, slices: list[list[str]], clock) -> float:
    """MB/s of reading the texts as UTF-8 and making the lists of ids, nothing else."""
    import numpy as np

    rates = []
    for texts in slices:
        arrays = [np.array(ids, dtype=np.uint32) for ids in tokenizer.encode_batch(texts)]
        begin = clock()
        for text, ids in zip(texts, arrays, strict=True):
            text.encode()
            ids.tolist()
        rates.append(_size(texts) / (clock() - begin))
    return round(statistics.median(rates), 2)


def _tiktoken(ranks: bytes, slices: list[list[str]], clock) -> float:
    """MB/s of tiktoken's `encode_ordinary` with its own regex; 0 where it is not installed."""
    from phikit.text import cl100k

    try:
        import tiktoken
    except ImportError:
        return 0.0
    encoding = tiktoken.Encoding(
        "cl100k", pat_str=TIKTOKEN_SPLIT, mergeable_ranks=cl100k.read_ranks(ranks), special_tokens={}
    )
    rates = []
    for texts in slices:
        begin = clock()
        for text in texts:
            encoding.encode_ordinary(text)
        rates.append(_size(texts) / (clock() - begin))
    return round(statistics.median(rates), 2)


def _size(texts: list[str]) -> float:
    return sum(len(t.encode()) for t in texts) / 1e6


def _slices() -> tuple[str, list[list[str]]]:
    """PAIRS lists of texts, no text twice. From the shared corpora, else from Python's standard library."""
    corpora = list(_corpora()) if SHARED.is_dir() else [list(_standard_library())]
    slices: list[list[str]] = [[] for _ in range(PAIRS)]
    for corpus in corpora:
        whole = iter(corpus)
        share = SLICE if len(corpora) > 1 else 4 * SLICE
        for texts in slices:
            size = 0
            while size < share and (text := next(whole, None)) is not None:
                texts.append(text)
                size += len(text)
    if not all(slices):
        raise SystemExit("too little text for the slices")
    return ("shared corpora" if SHARED.is_dir() else "standard library"), slices


def _corpora() -> Iterator[list[str]]:
    from resiliparse.extract.html2text import extract_plain_text

    enough = PAIRS * SLICE * 2
    for name, suffix in ARCHIVES.values():
        texts: list[str] = []
        with tarfile.open(SHARED / name) as tar:
            for member in tar:
                if sum(map(len, texts)) > enough:
                    break
                if member.name.endswith(suffix) and (file := tar.extractfile(member)):
                    text = file.read().decode("utf-8", "replace")
                    if suffix == ".html":
                        text = extract_plain_text(text, main_content=True)
                    texts += [text[i : i + 40_000] for i in range(0, len(text), 40_000)]
        yield [t for t in texts if t]
    books = [gzip.decompress(p.read_bytes()).decode() for p in sorted((SHARED / "books").glob("*.gz"))]
    yield [b[i : i + 60_000] for b in books for i in range(0, len(b), 60_000)]


def _standard_library() -> Iterator[str]:
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        yield path.read_text(encoding="utf-8")


# tiktoken's own spelling of cl100k's pre-split.
TIKTOKEN_SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)

if __name__ == "__main__":
    sys.exit(main())
