"""Pivotal DPO: pairs per second and peak memory against TRL's DPOTrainer, on one fixed file of pairs as a search
found them.

Both sides run in processes of their own and take optimizer steps by turns, on the same batches in the same order,
from the same weights (drawn from a seed), with reference log-probabilities computed before. Shapes: nano, and
SmolLM2-135M's with the same pairs. TRL's best setting: no reference model in memory, no gradient checkpointing,
and the quickest of three sizes of its forward pass (its padding-free mode is switched off in this version).

Bound: TRL computes prompt, prefix and token twice for each pair. The bound is its tokens, padding left out, over
the distinct tokens of the prompts in a batch; what is above it comes from padding, from the head (TRL on a CPU
scores every position) and from the cost of a step beside the matrices.

Memory is growth of the peak once modules are imported, the kernels of a training step have run once on a few numbers
(their code is mapped into memory when it is first used) and the pairs are there as ids: weights, reference pass,
moments, gradients, activations. All of it on both sides.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import venv
from pathlib import Path

from _dpo_sides import BATCH, MARK, ours, rows_of, trl

ROOT = Path(__file__).parents[1]
BENCH = ROOT / ".bench"
WORK = BENCH / "pivotal_dpo"
TRL = "1.16.0"
ROUNDS = 10
LOW, HIGH = 1, 8  # order statistics (from 0) of 10: the median lies between them with 97.9 % confidence
ROW = {"nano": 1024, "smollm2": 256}  # tokens in a forward pass of ours
SHAPES = {
    "nano": {"width": 128, "layers": 4, "heads": 4, "kv_heads": 2, "ffn": 384},
    "smollm2": {"width": 576, "layers": 30, "heads": 9, "kv_heads": 3, "ffn": 1536, "vocab": 49_152},
}


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--pairs", type=Path, help="pairs.jsonl.zst of a run; kept as the fixed file from then on")
    p.add_argument("--shape", choices=[*SHAPES, "both"], default="both")
    p.add_argument("--precision", choices=["fp32", "bf16", "both"], default="both")
    p.add_argument("--rounds", type=int, default=ROUNDS)
    p.add_argument(
        "--peer-micro", type=int, help="TRL's pairs in a forward pass; without it the best of three"
    )
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    p.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.worker:
        {"ours": ours, "trl": trl}[a.worker[0]](Path(a.worker[1]), a.worker[2], int(a.worker[3]))
        return 0
    os.environ["OMP_NUM_THREADS"] = str(a.threads)  # the workers'
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        run = _fixed_pairs(a.pairs)
        python = _peer()
    except (OSError, ValueError, subprocess.CalledProcessError) as e:
        print(e, file=sys.stderr)
        return 2
    shapes = list(SHAPES) if a.shape == "both" else [a.shape]
    precisions = ["fp32", "bf16"] if a.precision == "both" else [a.precision]
    rows = {}
    for shape in shapes:
        folder, facts = _prepare(shape, run, a.rounds + 1)
        print(
            f"{shape}: {facts['pairs']} pairs, {facts['trajectories']} trajectories ({facts['each']:.2f} pivots "
            f"each), {facts['prompts']} prompts; batches of {BATCH}: {facts['dense']} tokens of TRL, "
            f"{facts['distinct']} distinct, {facts['ours']} computed here; bound {facts['bound']:.2f}x"
        )
        for precision in precisions:
            rows[shape, precision] = _compare(folder, precision, python, a.rounds, facts, shape, a.peer_micro)
    head = rows.get(("nano", "fp32")) or next(iter(rows.values()))
    rest = {f"{s}_{p}": {k: r[k] for k in KEPT} for (s, p), r in rows.items() if r is not head}
    result = {
        "name": "pivotal_dpo", "peer_name": "trl DPOTrainer", "peer_version": TRL, "unit": "pairs/s", **head,
        "agree": all(r["agree"] for r in rows.values()), "others": rest,
    }  # fmt: skip
    print(json.dumps(result))
    return 0


KEPT = ("ours", "peer", "ratio", "low", "high", "bound", "memory_ratio", "agree")


def _fixed_pairs(given: Path | None) -> Path:
    """Folder with the fixed pairs and their tokenizer; `given` replaces them."""
    pairs, tokenizer = WORK / "pairs.jsonl.zst", WORK / "tokenizer.json"
    if given is None and not pairs.is_file():
        found = sorted(ROOT.glob("runs/*/pivotal/pairs.jsonl.zst"), key=lambda f: f.parts[-3] != "nano")
        if not found:
            raise ValueError("no pairs: run `phikit run phi4 --scale nano`, or give --pairs FILE")
        given = found[0]
    if given is not None:
        beside = given.parents[1] / "tokenizer" / "tokenizer.json"
        if not given.is_file() or not beside.is_file():
            raise ValueError(f"{given}: give pairs.jsonl.zst of a run folder, beside its tokenizer/")
        WORK.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(given, pairs)
        shutil.copyfile(beside, tokenizer)
    print(f"pairs: {pairs.relative_to(ROOT)} sha256 {hashlib.sha256(pairs.read_bytes()).hexdigest()[:16]}")
    return WORK


def _peer() -> Path:
    """The python of a venv with TRL that sees this project's torch and transformers."""
    home = BENCH / "trl"
    python = home / "bin" / "python"
    site = next(Path(x) for x in sys.path if x.endswith("site-packages"))
    if not python.exists():
        venv.create(home, with_pip=True)
    inner = next(home.glob("lib/python*/site-packages"))
    (inner / "project.pth").write_text(f"{site}\n")
    have = subprocess.run([python, "-c", "import importlib.metadata as m; print(m.version('trl'))"],
                          capture_output=True, text=True)  # fmt: skip
    if have.stdout.strip() != TRL:
        subprocess.run([python, "-m", "pip", "install", "-q", f"trl=={TRL}"], check=True)
    return python


def _prepare(shape: str, run: Path, steps: int) -> tuple[Path, dict]:
    """Writes the weights as a Hugging Face folder and the batches as ids; counts tokens."""
    from phikit.model.config import ModelConfig
    from phikit.model.hf import save_hf
    from phikit.model.transformer import build
    from phikit.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(run / "tokenizer.json")
    rows = rows_of(run, ROW[shape])
    config = ModelConfig(**{"vocab": tokenizer.vocab_size, "context": 512, "tied": True, **SHAPES[shape]})
    folder = run / shape
    save_hf(build(config, 0), tokenizer, folder)
    batches = [rows.batch(i * BATCH, BATCH) for i in range(steps)]
    sides = [rows.sides[i] for b in batches for i in b.which]
    examples = [dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), map(list, s))) for s in sides]
    (folder / "examples.json").write_text(json.dumps(examples))
    dense = sum(2 * len(c) + len(x) + len(y) for c, x, y in sides)
    distinct = sum(
        len({rows.sides[i][0][:n] for i in b.which for n in range(1, len(rows.sides[i][0]) + 1)})
        for b in batches
    )
    contexts = {c for c, _, _ in rows.sides}
    leaves = [c for c in contexts if not any(len(o) > len(c) and o[: len(c)] == c for o in contexts)]
    facts = {
        "pairs": len(rows), "trajectories": len(leaves), "each": len(rows) / len(leaves),
        "prompts": len(rows.groups), "dense": dense, "distinct": distinct,
        "ours": sum(part.size for b in batches for part in b.parts(1)), "bound": dense / distinct,
    }  # fmt: skip
    return folder, facts


def _best_size(folder: Path, precision: str, python: Path) -> int:
    """The peer's quickest size of a forward pass, of three; where larger is slower, no further."""
    times = {}
    for micro in (BATCH // 4, BATCH // 2, BATCH):
        with _Worker(python, "trl", folder, precision, micro) as w:
            w.step()
            times[micro] = w.step()["seconds"]
        if times[micro] > 1.1 * min(times.values()):
            break
    print(f"  {precision}: TRL's second step: {', '.join(f'{m} pairs {t:.2f} s' for m, t in times.items())}")
    return min(times, key=lambda m: times[m])


def _compare(
    folder: Path, precision: str, python: Path, rounds: int, facts: dict, shape: str, micro: int | None
) -> dict:
    best = micro or _best_size(folder, precision, python)
    ours, peer = [], []
    with (
        _Worker(Path(sys.executable), "ours", folder, precision, ROW[shape]) as a,
        _Worker(python, "trl", folder, precision, best) as b,
    ):
        first = a.step(), b.step()  # the first step warms up; its loss counts
        for _ in range(rounds):
            ours.append(a.step())
            peer.append(b.step())
        memory = a.memory(), b.memory()
    losses = [abs(x["loss"] - y["loss"]) for x, y in zip([first[0], *ours], [first[1], *peer])]
    ratios = sorted(y["seconds"] / x["seconds"] for x, y in zip(ours, peer))
    cpu = statistics.median(y["cpu"] / x["cpu"] for x, y in zip(ours, peer))
    low, high = (ratios[LOW], ratios[HIGH]) if rounds == ROUNDS else (ratios[0], ratios[-1])
    row = {
        "ours": round(BATCH / statistics.median(x["seconds"] for x in ours), 2),
        "peer": round(BATCH / statistics.median(y["seconds"] for y in peer), 2),
        "ratio": round(statistics.median(ratios), 2), "low": round(low, 2), "high": round(high, 2),
        "cpu_ratio": round(cpu, 2),
        "agree": max(losses) < (1e-4 if precision == "fp32" else 2e-2), "n": rounds,
        "bound": round(facts["bound"], 2), "of_bound": round(statistics.median(ratios) / facts["bound"], 2),
        "pivots_per_trajectory": round(facts["each"], 2), "memory": memory[0], "peer_memory": memory[1],
        "memory_ratio": round(memory[0] / memory[1], 3), "loss_difference": float(f"{max(losses):.2g}"),
        "peer_micro": best, "shape": shape, "precision": precision,
    }  # fmt: skip
    print(
        f"  {precision}: {row['ours']} pairs/s, TRL {row['peer']}: {row['ratio']}x [{row['low']}, {row['high']}], "
        f"{row['cpu_ratio']}x in CPU time; "
        f"memory {memory[0] / 2**20:.0f} of {memory[1] / 2**20:.0f} MiB ({row['memory_ratio']}x); "
        f"losses within {max(losses):.1g}" + ("" if row["agree"] else "  LOSSES DIFFER")
    )
    return row


class _Worker:
    """A side in its own process: a line in, an optimizer step, a line of JSON out."""

    def __init__(self, python: Path, side: str, folder: Path, precision: str, micro: int) -> None:
        command = [python, __file__, "--worker", side, folder, precision, micro]
        self.log = (WORK / f"{side}.log").open("w")
        self.process = subprocess.Popen(
            [str(x) for x in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, "PHIKIT_QUIET": "1", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip

    def _ask(self, word: str) -> dict:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RuntimeError(f"a side ended: see {self.log.name}")

    def step(self) -> dict:
        return self._ask("step")

    def memory(self) -> int:
        return self._ask("memory")["bytes"]

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


if __name__ == "__main__":
    sys.exit(main())
