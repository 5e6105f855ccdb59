"""The microbenchmarks that `benchmarks/plan` calibrates with do the network's own products, and count as plans do."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from phikit.model.config import ModelConfig
from phikit.model.layout import Layout
from phikit.train.cost import step_seconds, train_flops
from phikit.train.simulate import trace

SMALL = ModelConfig(512, 64, 3, 4, 2, 96, 128)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    file = Path(__file__).parents[2] / "benchmarks" / "plan.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_plans", file)
    assert spec
    assert spec.loader
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    path = list(sys.path)  # which the script adds its folder to
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture(scope="module")
def rates(bench) -> ModuleType:
    return sys.modules["_plan_rates"]


@pytest.mark.parametrize("tp", [1, 2])
def test_the_products_are_those_of_the_network(rates, tp):
    layout = Layout(tp=tp)
    block = sum(flops for flops, _ in rates._products(SMALL, layout, 128))
    head = sum(flops for flops, _ in rates._product(128, SMALL.vocab // tp, SMALL.width, torch.mul))
    norms = 6.0 * 128 * SMALL.width * (2 * SMALL.layers + 1)
    assert SMALL.layers * block + head == (train_flops(SMALL, 128, 0) - norms) / tp


def test_rates_of_one_rank_predict_a_step(bench, rates):
    ranks = SimpleNamespace(layout=Layout(device="cpu"), shards=None, wait=lambda: None)
    before, after = (rates.calibrate(SMALL, ranks, 1, SMALL.layers) for _ in range(2))
    assert set(before) == {"matmul", "attention", "copy", "call"}
    assert all(v > 0 for v in before.values())
    mean = bench.beside(before, after)
    assert min(before["call"], after["call"]) <= mean["call"] <= max(before["call"], after["call"])
    assert min(before["copy"], after["copy"]) <= mean["copy"] <= max(before["copy"], after["copy"])
    found = trace(SMALL, ranks.layout, 1, 128, cuda=False)
    parts = step_seconds(bench.device_of(mean), ranks.layout, found, 4)
    assert parts["matrix products"] == pytest.approx(4 * found.matmul / mean["matmul"])
    assert parts["calls"] == pytest.approx(4 * found.calls * mean["call"])


def test_the_mean_of_two_calibrations_is_that_of_the_seconds(bench):
    assert bench.beside({"copy": 1.0, "call": 1.0}, {"copy": 3.0, "call": 3.0}) == {"copy": 1.5, "call": 2.0}


def test_operations_are_counted_as_dispatched(rates):
    count, run = rates._few()
    assert count >= 8
    run()


@pytest.mark.parametrize(("case", "rows"), [("1 rank", 4), ("2 ranks, fsdp", 4), ("4 ranks, fsdp", 8)])
def test_each_rank_has_two_passes_or_more(bench, case, rows):
    chosen = bench.CASES[case]
    layout = Layout(**chosen.layout)
    assert bench.rows(chosen, layout) == rows
    assert rows // layout.data >= bench.PASSES
