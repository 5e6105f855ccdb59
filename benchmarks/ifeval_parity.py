"""Agreement of verify/constraints.py with IFEval's own checkers (as lm-eval ships them) on random answers.

    python benchmarks/ifeval_parity.py [--cases 10000] [--seed 0]

Each of the 25 kinds gets an equal part of the cases: arguments of the benchmark's own rows, answers put together from
web text, lists, headings, JSON, quotations and the very phrases that the constraint asks for. Languages come from
FLORES. The last line is JSON: agreement of all and of every kind. There is no speed goal."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from _peers import peer_python

from phikit.records.io import read_jsonl
from phikit.verify.constraints import keeps, sentences

DATA = Path(__file__).parents[2] / "shared" / "data"
LM_EVAL, PUNKT = "0.4.13", "0.14.25"
FLORES = {
    "hi": "hin_Deva", "mr": "mar_Deva", "vi": "vie_Latn", "ta": "tam_Taml", "sw": "swh_Latn", "ru": "rus_Cyrl",
    "pt": "por_Latn", "pa": "pan_Guru", "ko": "kor_Hang", "kn": "kan_Knda", "bn": "ben_Beng", "en": "eng_Latn",
}  # fmt: skip
Case = tuple[str, Mapping[str, Any], str]


def cases(n: int, seed: int) -> list[Case]:
    rng = random.Random(seed)
    rows = list(read_jsonl(DATA / "benchmarks/ifeval/input_data-half.jsonl.gz"))
    arguments: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for kind, args in zip(row["instruction_id_list"], row["kwargs"]):
            arguments.setdefault(kind, []).append({k: v for k, v in args.items() if v})
    web = [str(r["text"]) for r in read_jsonl(DATA / "corpora/web/c4-300.jsonl.gz")]
    pool = [s for t in web for s in sentences(t) if 20 < len(s) < 200]
    languages = _flores()
    out: list[Case] = []
    for kind, some in sorted(arguments.items()):
        for _ in range(n // len(arguments)):
            args = rng.choice(some)
            if kind == "language:response_language":
                of = args["language"] if rng.random() < 0.5 else rng.choice(sorted(languages))
                text = " ".join(rng.sample(languages.get(of, pool), rng.randint(1, 4)))
            else:
                text = _answer(rng, pool, kind, args)
            out.append((kind, args, text))
    return out


def _answer(rng: random.Random, pool: Sequence[str], kind: str, args: Mapping[str, Any]) -> str:
    """Blocks of web text in random forms; half of them hold something that the constraint is about."""
    forms: list[Callable[[str], str]] = [
        lambda s: s, lambda s: s, lambda s: s, lambda s: f"* {s}", lambda s: f"- {s}", lambda s: f"**{s}**",
        lambda s: f"*{s}*", lambda s: f"# {s}", lambda s: f"1. {s}", lambda s: f'"{s}"', lambda s: f"[{s[:9]}] {s}",
        lambda s: f"<<{s[:20]}>>", lambda s: s.upper(), lambda s: s.lower(), lambda s: f"P.S. {s}",
        lambda s: f"P.P.S {s}", lambda s: f"Section 1 {s}", lambda s: f"SECTION 2\n{s}", lambda s: s.replace(",", ""),
        lambda s: f"Day {rng.randint(1, 9)}: {s}",
    ]  # fmt: skip
    blocks = [
        rng.choice(forms)(" ".join(rng.sample(pool, rng.randint(1, 3)))) for _ in range(rng.randint(1, 9))
    ]
    told = [str(v) for key, v in args.items() if isinstance(v, str) and "relation" not in key]
    told += [str(w) for key, v in args.items() if isinstance(v, list) for w in v]
    for phrase in told:
        for _ in range(rng.randint(0, 3)):
            at = rng.randrange(len(blocks) + 1)
            blocks.insert(
                at, rng.choice((phrase, f"{phrase} {rng.choice(pool)}", f"{rng.choice(pool)} {phrase}"))
            )
    if "first_word" in args and rng.random() < 0.7:
        blocks = blocks[: args["num_paragraphs"]]
        at = min(args["nth_paragraph"], len(blocks)) - 1
        blocks[at] = f"{args['first_word']}{rng.choice((' ', ', ', '. '))}{blocks[at]}"
    joiner = rng.choice(("\n", "\n\n", " ", "\n***\n", "\n\n***\n\n", "******", "\n******\n"))
    if kind == "combination:two_responses" and rng.random() < 0.5:
        joiner, blocks = "******", blocks[:2]
    if "num_paragraphs" in args and rng.random() < 0.5:
        blocks = blocks[: args["num_paragraphs"]]
    text = joiner.join(blocks)
    if "section_spliter" in args:
        for i in range(rng.randint(0, 2 * args["num_sections"])):
            text += f"\n{args['section_spliter']}{rng.choice((' ', ' ', ''))}{i + 1} {rng.choice(pool)}"
    if "num_bullets" in args and rng.random() < 0.5:
        text = "\n".join(f"{rng.choice('*-')} {s}" for s in rng.sample(pool, args["num_bullets"]))
    if kind.endswith("constrained_response") and rng.random() < 0.5:
        text += " My answer is " + rng.choice(("yes.", "no.", "maybe.", "yes", "perhaps."))
    if kind.endswith("json_format") and rng.random() < 0.6:
        text = json.dumps({"text": text})[: None if rng.random() < 0.7 else -1]
        text = rng.choice((text, f"```json\n{text}\n```", f"```\n{text}```", f"Here: {text}"))
    if "num_words" in args:
        text = " ".join(text.split(" ")[: args["num_words"] + rng.randint(-5, 5)])
    if kind.startswith("change_case:english"):
        text = rng.choice((text, text.upper(), text.lower()))
    return rng.choice((text, text, text, f'"{text}"', f" {text}\n", text.replace(",", "")))


def _flores() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with tarfile.open(DATA / "corpora/multilingual/flores200_dev_62langs.tar.gz") as tar:
        for member in tar.getmembers():
            for code, name in FLORES.items():
                if Path(member.name).name.startswith(name) and (file := tar.extractfile(member)):
                    found[code] = file.read().decode().splitlines()
    return found


def peer(found: Sequence[Case]) -> list[bool]:
    python = peer_python("ifeval", "langdetect", "1.0.9", "immutabledict", "nltk==3.10.4", "absl-py")
    peer_python("ifeval", "lm-eval", LM_EVAL, "--no-deps")
    peer_python("ifeval", "llama-index-core", PUNKT, "--no-deps")  # its wheel holds Punkt's English model
    site = next(python.parents[1].glob("lib/python*/site-packages"))
    done = subprocess.run(
        [python, Path(__file__).with_name("_ifeval_peer.py"), site / "lm_eval/tasks/ifeval"],
        input="".join(json.dumps(c) + "\n" for c in found), stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "NLTK_DATA": str(site / "llama_index/core/_static/nltk_cache")},
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", default="", help="print cases of this kind on which the two differ")
    told = parser.parse_args()
    if not (DATA / "benchmarks/ifeval").is_dir():
        sys.exit("no IFEval rows here")
    found = cases(told.cases, told.seed)
    begin = time.perf_counter()
    ours = [keeps(kind, text, **args) for kind, args, text in found]
    seconds = time.perf_counter() - begin
    theirs = peer(found)
    total, same, right = Counter(), Counter(), Counter()
    for (kind, args, text), a, b in zip(found, ours, theirs, strict=True):
        total[kind] += 1
        same[kind] += a == b
        right[kind] += b
        if a != b and kind == told.show:
            print(f"ours {a}, theirs {b}: {args}\n{text}\n{'=' * 60}")
    for kind in sorted(total):
        print(
            f"{kind:<48} {same[kind] / total[kind]:.4f}  (kept {right[kind] / total[kind]:.2f}, n {total[kind]})"
        )
    kinds = {k: round(same[k] / total[k], 4) for k in sorted(total) if same[k] < total[k]}
    print(json.dumps({
        "name": "ifeval_parity", "agree": round(sum(same.values()) / len(found), 5), "n": len(found),
        "kinds": len(total), "differ": kinds, "peer_name": "lm-eval's IFEval", "peer_version": LM_EVAL,
        "ours": round(len(found) / seconds), "unit": "answers/s",
    }))  # fmt: skip


if __name__ == "__main__":
    main()
