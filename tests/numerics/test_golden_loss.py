"""20 steps of the trainer on synthetic rows follow the curve on file. After a wanted change of the numbers:
`python tests/numerics/test_golden_loss.py` writes it anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from phikit.mixture.loader import Batch
from phikit.model.config import ModelConfig
from phikit.model.transformer import build
from phikit.train.objectives import LanguageModeling
from phikit.train.optim import OptimConfig
from phikit.train.trainer import TrainConfig, Trainer

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_20.txt"
VOCAB, LENGTH = 97, 48


class Progressions:
    """Row i: two documents, each an arithmetic progression modulo VOCAB; the first tokens of the second weigh
    nothing. A pure function of i without any random generator."""

    def batch(self, first: int, count: int) -> Batch:
        i = np.arange(first, first + count, dtype=np.int64)[:, None]
        at = np.arange(LENGTH + 1, dtype=np.int64)[None]
        cut = 12 + (i * 5) % 24
        second = at >= cut
        start, step = (i * 31 + 7) % VOCAB, 1 + (i * 13) % 5
        text = np.where(second, start * 3 + 11 + (at - cut) * (step + 2), start + at * step) % VOCAB
        segment = second[:, :-1].astype(np.int64)
        weight = np.where(segment == second[:, 1:], 1.0, 0.0) * np.where(segment == 1, 0.5, 1.0)
        position = np.where(second, at - cut, at)[:, :-1]
        names = ("synthetic",) * count
        return Batch(text[:, :-1], text[:, 1:], weight.astype(np.float32), segment, position, names)


def losses(optimizer: str, micro: int = 4) -> list[float]:
    config = ModelConfig(VOCAB, 48, 2, 4, 2, 96, 64, rope_base=10_000.0, tied=optimizer == "muon")
    train = TrainConfig(
        steps=20, rows=8, micro=micro, warmup=0.1, decay=0.5,
        optim=OptimConfig(optimizer, lr=3e-3),  # type: ignore[arg-type]
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        trainer = Trainer(build(config, 1), LanguageModeling(), Progressions(), train, Path(work))
        return [row["loss"] for row in trainer.run("golden")]


def golden() -> dict[str, list[float]]:
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    names = lines[0].split()[1:]
    columns = zip(*([float(v) for v in line.split()[1:]] for line in lines[1:]))
    return dict(zip(names, map(list, columns)))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_curve_is_the_one_on_file(optimizer):
    expected, got = golden()[optimizer], losses(optimizer)
    assert len(expected) == len(got) == 20
    assert got == pytest.approx(expected, rel=5e-4)  # CPUs differ in the order of sums
    assert got[-1] < 0.85 * got[0]


def test_micro_batches_do_not_change_the_curve():
    assert losses("adamw", micro=8) == pytest.approx(losses("adamw", micro=2), rel=1e-4)


def write() -> None:
    columns = {name: losses(name) for name in ("adamw", "muon")}
    lines = [" ".join(["step", *columns])]
    lines += [" ".join([str(n + 1), *(f"{c[n]:.6f}" for c in columns.values())]) for n in range(20)]
    GOLDEN.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
