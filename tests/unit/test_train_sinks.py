"""Logs of training copied to TensorBoard, trackio and wandb; the first for real where it is installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from phikit.recipe.load import load
from phikit.train.sinks import numbers, open_sinks


class Service:
    """What trackio and wandb have in common, which keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def init(self, **keys: Any) -> None:
        self.calls.append(("init", keys))

    def log(self, values: dict, step: int) -> None:
        self.calls.append(("log", (step, values)))

    def finish(self) -> None:
        self.calls.append(("finish", None))


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_services_are_told_of_every_step(name, monkeypatch, tmp_path):
    service = Service()
    monkeypatch.setitem(sys.modules, name, service)  # type: ignore[arg-type]
    (sink,) = open_sinks([name], "sft", tmp_path)
    sink.log(3, {"loss": 1.5})
    sink.close()
    (first, keys), *rest = service.calls
    assert first == "init"
    assert (keys["project"], keys["name"]) == (tmp_path.name, "sft")
    assert rest == [("log", (3, {"loss": 1.5})), ("finish", None)]


def test_a_package_that_is_not_here(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "trackio", None)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"metrics.sinks: trackio is not installed: pip install 'phikit\[trackio\]'"
    ):
        open_sinks(["trackio"], "sft", tmp_path)


def test_both_logs_become_numbers():
    row = {"step": 3, "tokens": 30, "loss": 1.5}
    assert numbers(row, {"step": 3, "tokens_s": 9.0, "sources": {"code": 20}}) == {
        "tokens": 30, "loss": 1.5, "tokens_s": 9.0, "source/code": 20,
    }  # fmt: skip


def test_the_recipe_names_them():
    assert load("phi4").metrics.sinks == ()
    assert load("phi4", settings=["metrics.sinks=[tensorboard]"]).metrics.sinks == ("tensorboard",)
    with pytest.raises(ValueError, match=r"metrics\.sinks"):
        load("phi4", settings=["metrics.sinks=[elsewhere]"])


def test_the_trainer_tells_its_sinks(tmp_path):
    from tests.numerics.test_golden_loss import Progressions

    from phikit.model.config import ModelConfig
    from phikit.model.transformer import build
    from phikit.train.objectives import LanguageModeling
    from phikit.train.trainer import TrainConfig, Trainer

    class Memory:
        def __init__(self) -> None:
            self.seen: list[tuple[int, dict]] = []

        def log(self, step: int, values: Mapping[str, float]) -> None:
            self.seen.append((step, dict(values)))

        def close(self) -> None: ...

    sink = Memory()
    model = build(ModelConfig(97, 16, 1, 2, 2, 32, 64), 0)
    trainer = Trainer(model, LanguageModeling(), Progressions(), TrainConfig(3, 2, 2), tmp_path, sinks=[sink])
    log = trainer.run("sinks")
    assert [step for step, _ in sink.seen] == [1, 2, 3]
    assert [values["loss"] for _, values in sink.seen] == [row["loss"] for row in log]
    assert sink.seen[-1][1]["source/synthetic"] == trainer.tokens


def test_tensorboard_reads_what_was_written(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (sink,) = open_sinks(["tensorboard"], "pretrain", tmp_path)
    for step in (1, 2):
        sink.log(step, {"loss": 1 / step})
    sink.close()
    read = EventAccumulator(str(tmp_path / "tensorboard" / "pretrain"))
    read.Reload()
    assert json.dumps([(e.step, e.value) for e in read.Scalars("loss")]) == "[[1, 1.0], [2, 0.5]]"
