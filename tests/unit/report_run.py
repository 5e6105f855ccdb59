"""A small finished run folder as the stages write it, for the tests of the page and for looking at it."""

from __future__ import annotations

import json
import math
import random
import struct
from pathlib import Path
from typing import Any

from phikit.records import artifact
from phikit.records.io import write_json, write_jsonl

STAGES = (
    "corpus", "synth", "tokenizer", "mixture", "pretrain", "midtrain", "sft", "pivotal", "dpo1", "judged",
    "dpo2", "eval", "export",
)  # fmt: skip
SECONDS = dict(zip(STAGES, (21.4, 48.2, 6.1, 9.7, 214.5, 61.3, 58.8, 77.0, 19.6, 31.2, 17.4, 84.9, 12.2)))
HOSTILE = "<script>alert(1)</script> <img src=https://example.org/x.png onerror=alert(2)> \x00 & \"q\" 'q'"
COUNTS: dict[str, dict[str, Any]] = {
    "corpus": {
        "in": 9412,
        "parts": 212,
        "out": 6120,
        "heldout": 212,
        "dropped": {
            "too short": 1204,
            "duplicate": 640,
            "near duplicate": 988,
            "language": 33,
            "quality: symbol ratio": 411,
            "contaminated (13-gram)": 16,
        },
        "out_by_source": {"code": 3911, "text": 2209},
    },
    "synth": {
        "documents": 61240,
        "long": 3020,
        "dialogs": 9810,
        "questions": 3000,
        "by_source": {"arithmetic": 9790, "recall_long": 3020, "problems": 61213, "synthetic": 27},
        "flows": {
            "self_revision": {"seeds": 70, "accepted": 20, "rejected": {"not JSON": 31}},
            "plurality": {"seeds": 40, "accepted": 7, "rejected": {"not JSON": 2, "all disagree": 21}},
        },
        "requests": {"asked": 312, "replayed": 0, "tokens": 41211},
        "not_run": {"no sandbox": 24},
    },
    "tokenizer": {"vocabulary": 2048, "bytes_per_token": 3.12},
    "mixture": {
        "rows": 41022,
        "tokens": 5_214_208,
        "fractions": {"code": 0.2, "text": 0.15, "arithmetic": 0.45},
    },
    "pretrain": {"steps": 640, "tokens": 4_194_304, "parameters": 1_310_720},
    "midtrain": {"steps": 130, "tokens": 602_112},
    "sft": {"steps": 190, "tokens": 911_360},
    "pivotal": {"questions": 800, "pairs": 413, "rollouts": 61204},
    "dpo1": {"steps": 78, "pairs": 413},
    "judged": {"prompts": 600, "pairs": 388},
    "dpo2": {"steps": 74, "pairs": 388},
    "eval": {"scores": 45, "comparisons": 4},
    "export": {"files": 3, "greedy_agree": 20},
}
LENGTHS = {
    "recall": {"before": {"64": 1.0}},
    "text": {"before": {"128": 0.1, "256": 0.2, "512": 0.3, "1024": 0.25, "2048": 0.1, "4096": 0.05}},
}
LONG = {
    "text_long": {
        "before": {"256": 0.22, "512": 0.34, "1024": 0.28, "2048": 0.11, "4096": 0.05},
        "after": {"256": 0.13, "512": 0.38, "1024": 0.31, "2048": 0.12, "4096": 0.06},
    }
}
VALUES = {  # (task, metric, n): value per checkpoint
    ("arithmetic", "sampled", 4000): (0.021, 0.024, 0.231, 0.312, 0.309),
    ("arithmetic", "greedy", 1000): (0.034, 0.031, 0.284, 0.341, 0.352),
    ("recall_1x", "accuracy", 500): (0.926, 0.998, 0.964, 0.962, 0.960),
    ("recall_2x", "accuracy", 500): (0.402, 0.710, 0.662, 0.658, 0.661),
    ("recall_4x", "accuracy", 500): (0.104, 0.412, 0.372, 0.366, 0.370),
    ("icl", "accuracy", 500): (0.612, 0.640, 0.598, 0.602, 0.594),
    ("choice", "accuracy", 500): (0.412, 0.420, 0.448, 0.456, 0.450),
    ("format", "stopped", 1000): (0.041, 0.038, 0.981, 0.978, 0.988),
    ("preference_wins", "share", 600): (0.0, 0.0, 0.500, 0.522, 0.604),
    ("bits_per_byte", "mean", 212): (2.312, 2.284, 2.401, 2.404, 2.409),
}
CHECKPOINTS = ("pretrain", "midtrain", "sft", "dpo1", "dpo2")


def make_run(folder: Path, *, fails: str | None = None) -> list[dict[str, Any]]:
    """Writes the folder; with `fails`, stops in that stage. Returns the stage rows that `build` takes."""
    rows: list[dict[str, Any]] = []
    stop = STAGES.index(fails) if fails else len(STAGES)
    for i, name in enumerate(STAGES):
        row: dict[str, Any] = {
            "name": name,
            "status": "done",
            "seconds": SECONDS[name],
            "cached": name == "corpus",
        }
        row |= {"counts": COUNTS[name], "error": None}
        if i >= stop:
            row |= {"status": "not run", "seconds": None, "counts": {}, "cached": False}
        if i == stop:
            row["status"] = "failed"
            row["error"] = (
                "Traceback (most recent call last):\n ...\nValueError: loss became nan at step 12 <b>"
            )
        rows.append(row)
        if i < stop:
            (folder / name).mkdir(parents=True)
            _stage(folder / name, name)
            artifact.seal(
                folder / name,
                stage=name,
                fingerprint=f"{i:064x}",
                config={"libraries": {"python": "3.11.9", "torch": "2.13.0"}},
                inputs={STAGES[i - 1]: f"{i - 1:064x}"} if i else {},
                counts=COUNTS[name],
            )
    return rows


def timings(folder: Path, rows: list[dict[str, Any]]) -> None:
    write_json(folder / "timings.json", {"recipe": "phi4", "scale": "nano", "stages": rows})


def _stage(out: Path, name: str) -> None:
    rng = random.Random(name)
    if name == "corpus":
        write_jsonl(out / "rejected.jsonl.zst", _rejected(rng))
    elif name == "synth":
        reasons = ("answer does not check", "plurality not reached", "not JSON")
        rows = [
            {
                "id": f"s{i}",
                "reason": rng.choice(reasons),
                "detail": "self-revision",
                "text": "Q: 3 + 4 = ? A: 8",
            }
            for i in range(90)
        ]
        write_jsonl(out / "rejected.jsonl.zst", rows)
    elif name == "mixture":
        write_json(out / "lengths.json", LENGTHS)
    elif name in CHECKPOINTS:
        if name == "midtrain":
            write_json(out / "lengths.json", LONG)
        write_jsonl(out / "metrics.jsonl", _metrics(rng, name))
        _weights(out / "hf" / "model.safetensors")
    elif name == "pivotal":
        write_jsonl(out / "answers.jsonl", [answer(1), answer(2)])
        write_json(out / "card.json", card())
        write_jsonl(out / "pairs.jsonl.zst", [{"id": "9f31c07ab2d455e0"}])
    elif name == "eval":
        _eval(out, rng)


def _rejected(rng: random.Random) -> list[dict[str, Any]]:
    rows = []
    for reason, n in COUNTS["corpus"]["dropped"].items():
        for i in range(n):
            text = HOSTILE if i == 0 else "def f(x):\n    return x  # " + "ab " * rng.randint(1, 60)
            rows.append(
                {
                    "id": f"{reason}{i}",
                    "source": "code",
                    "path": f"lib/mod_{i}.py",
                    "reason": reason,
                    "text": text,
                }
                | {"detail": f"{rng.randint(3, 40)} of 100"}
            )
    return rows


def _metrics(rng: random.Random, name: str) -> list[dict[str, Any]]:
    steps = COUNTS[name]["steps"]
    high, low = {"pretrain": (7.4, 2.1), "midtrain": (2.2, 1.9), "sft": (1.3, 0.4)}.get(name, (0.70, 0.42))
    return [
        {
            "step": s,
            "tokens": s * 6554,
            "loss": low + (high - low) * math.exp(-5 * s / steps) + rng.gauss(0, 0.04) * (high - low + 0.3),
            "lr": 1e-3 * min(1, s / 20) * (1 - s / (steps + 1)),
            "grad_norm": 0.8,
            "tokens_per_s": rng.uniform(18000, 21000),
        }
        for s in range(1, steps + 1, 2)
    ]


def _weights(path: Path) -> None:
    """A safetensors header of 1,310,720 parameters; the page reads no more."""
    header = json.dumps(
        {"__metadata__": {}, "w": {"dtype": "F32", "shape": [1280, 1024], "data_offsets": [0, 0]}}
    )
    path.parent.mkdir()
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())


def _eval(out: Path, rng: random.Random) -> None:
    scores = []
    for (task, metric, n), values in VALUES.items():
        for checkpoint, v in zip(CHECKPOINTS, values):
            if task == "preference_wins" and checkpoint in ("pretrain", "midtrain"):
                continue
            half = 0.03 if task == "bits_per_byte" else 1.96 * math.sqrt(max(v * (1 - v), 0.002) / n) * 1.4
            low, high = (
                (v - half, v + half) if task == "bits_per_byte" else (max(0.0, v - half), min(1.0, v + half))
            )
            row = {
                "checkpoint": checkpoint,
                "task": task,
                "metric": metric,
                "value": v,
                "low": low,
                "high": high,
            }
            scores.append(row | {"n": n, "method": "wilson"})
    write_json(out / "scores.json", scores)
    write_json(
        out / "comparisons.json",
        [
            paired("dpo1", "sft", "arithmetic", "sampled", 0.081, 0.052, 0.110),
            paired("dpo1", "dpo2", "arithmetic", "sampled", 0.003, -0.012, 0.018),
            paired("dpo2", "dpo1", "preference_wins", "share", 0.082, 0.031, 0.133),
        ],
    )
    write_jsonl(out / "samples.jsonl", _samples(rng))
    write_json(
        out / "contamination.json",
        {
            "rule": "13-gram, else 7-gram share",
            "tasks": {
                "arithmetic": {"items": 1000, "contaminated": 0, "partial": 2, "clean": 998},
                "choice": {"items": 500, "contaminated": 0, "partial": 0, "clean": 500},
            },
        },
    )


def paired(a: str, b: str, task: str, metric: str, value: float, low: float, high: float) -> dict[str, Any]:
    row = {"name": f"{a} - {b}", "a": a, "b": b, "task": task, "metric": metric, "value": value}
    return row | {"low": low, "high": high, "n": 4000, "verdict": "higher" if low > 0 else "same"}


def _samples(rng: random.Random) -> list[dict[str, Any]]:
    right = "3 bags of 4 are 12 more. 12 + 12 = 24. She gives 5 away. 24 - 5 = 19. The answer is 19."
    wrong = "12 + 3 = 15. 15 - 5 = 10. The answer is 10."
    base = "What is it? The shelf holds 14 books and 3 rows of 6. def __init__(self, *args): return self"
    rows = []
    for i in range(6):
        question = f"Mia has 12 apples. She buys 3 bags of 4 and gives {i + 3} away. How many are left?"
        turned = [(False, True, True), (True, True, True), (False, False, True), (True, True, False)][i % 4]
        for checkpoint, ok in zip(CHECKPOINTS, (False, False, *turned)):
            output = base if checkpoint in ("pretrain", "midtrain") else right if ok else wrong
            prompt = (
                [{"role": "user", "content": question}]
                if checkpoint not in ("pretrain", "midtrain")
                else question
            )
            rows.append({"checkpoint": checkpoint, "task": "arithmetic", "id": f"a{i}", "prompt": prompt})
            rows[-1] |= {"output": output, "verdict": "correct" if ok else "wrong"}
    for checkpoint in CHECKPOINTS:
        rows.append(
            {"checkpoint": checkpoint, "task": "recall_4x", "id": "r0", "prompt": HOSTILE, "output": HOSTILE}
        )
        rows[-1] |= {"verdict": "<i>odd</i>"}
    return [json.loads(json.dumps(r)) for r in rows]


def answer(seed: int, kind: str = "math") -> dict[str, Any]:
    """A row of answers.jsonl: a text of 30 tokens or so, three of them pivotal."""
    rng = random.Random(seed)
    lines = (
        "First find the new apples : 3 bags of 4 is 1 2 .",
        "Then 1 2 + 1 2 = 2 4 .",
        "The answer is 1 9 .",
    )
    words = "\n ".join(lines).split(" ")
    tokens = [w if i == 0 or w in (".", ":", "2", "4", "9") else " " + w for i, w in enumerate(words)]
    p, change, pivots = [0.42], [], []
    for i, text in enumerate(tokens):
        jump = {0: 0.24, 9: -0.31, 14: 0.36}.get(i, 0.0)
        p.append(min(0.98, max(0.05, p[-1] + jump + rng.uniform(-0.01, 0.01))))
        change.append(round(p[-1] - p[-2], 4) if i % 4 == 0 or jump else None)
        if jump:
            pivots.append(pivot(i, text, p[-2], p[-1]))
    p[-1] = 1.0
    known = [x if i % 5 != 3 else None for i, x in enumerate(p)]
    return {
        "id": f"q{seed}", "answer": "19", "kind": kind, "right": True,
        "tokens": tokens, "ids": list(range(len(tokens))),
        "question": "Mia has 12 apples. She buys 3 bags of 4 and gives 5 away. How many are left?",
        "probability": [0.4 if c else 0.99 for c in change], "p": known, "low": [max(0.0, x - 0.2) for x in p],
        "high": [min(1.0, x + 0.2) for x in p], "n": [48 if x else 2 for x in known],
        "change": change, "pivots": pivots,
    }  # fmt: skip


def pivot(at: int, text: str, before: float, after: float) -> dict[str, Any]:
    def branch(text: str, role: str, p: float, *said: tuple[str, str]) -> dict[str, Any]:
        examples = [{"outcome": o, "text": t, "left_out": 0} for o, t in said]
        row = {
            "text": text,
            "id": 5,
            "role": role,
            "p": p,
            "low": max(0.0, p - 0.2),
            "high": min(1.0, p + 0.2),
        }
        return row | {"n": 24, "right": round(24 * p), "rollouts": "0" * 32, "examples": examples}

    return {
        "at": at, "before": before, "after": after, "change": after - before, "likely": 0.99, "certified": at == 0,
        "rollouts": "0" * 32,
        "branches": [
            branch(text, "taken", after, ("right", " 12 and 7 is 19."), ("wrong", " 12 and 5 is 17.")),
            branch(" So", "pair", 0.21, ("wrong", HOSTILE)), branch("<b>", "other", 0.4),
        ],
    }  # fmt: skip


def card() -> dict[str, Any]:
    """A card.json of a pivotal search."""
    return {
        "model": "runs/nano/sft", "questions": {"searched": 2, "too easy": 0, "too hard": 1, "answers": 2},
        "pivotal_tokens": 6, "up": 4, "down": 2, "pairs": 5, "pairs_by_kind": {"math": 5}, "search": {"gap": 0.2},
        "stopped": "",
        "changes": {"width": 0.05, "up": [0] * 4 + [2, 0, 0, 2] + [0] * 12, "down": [0] * 6 + [2] + [0] * 13},
        "error": {"rate": 0.05, "expected": 0.011, "certified": 2, "says": "each token listed changes p(success)"},
        "cost": {
            "rollouts": 412, "outcomes": {"right": 200, "wrong": 212, "unparsed": 0, "truncated": 0},
            "tokens_generated": 9100, "tokens_prefilled": 800, "tokens_per_pair": 1980.0,
        },
    }  # fmt: skip
