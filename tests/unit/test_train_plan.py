"""Plans of training: FLOPs, the trace of a sharded network on fake tensors, the roofline, and tuning's arithmetic."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from phikit.model.config import PHI4, ModelConfig
from phikit.model.layout import Layout, device_of, misfits
from phikit.model.ranks import Ranks
from phikit.recipe.cluster import layout_for, print_cluster
from phikit.recipe.load import load
from phikit.recipe.tune import broken, horizon, parabola, tune_lr
from phikit.records.io import read_json
from phikit.train.cost import H100, causal_pairs, step_seconds, train_flops
from phikit.train.simulate import trace

SMALL = ModelConfig(512, 64, 3, 4, 2, 96, 128)


def products(c: ModelConfig, tokens: int) -> float:
    """FLOPs without norms, which multiply but are no matrices."""
    return train_flops(c, tokens, 0) - 6.0 * tokens * c.width * (2 * c.layers + 1)


def test_flops_are_six_n_d_and_what_attention_sees():
    tokens = 4096 * 8
    flops = train_flops(PHI4, tokens, causal_pairs(tokens, 4096))
    assert flops == pytest.approx(
        6 * (PHI4.parameters - 100_352 * 5120) * tokens + 6 * 40 * 5120 * 4097 * tokens
    )


def test_a_trace_counts_the_products_of_the_network():
    found = trace(SMALL, Layout(), 2, 128, cuda=False)
    assert found.matmul == products(SMALL, 256)
    assert found.memory.parameters == 4 * SMALL.parameters
    assert found.memory.optimizer == 8 * SMALL.parameters
    assert found.sent == {}
    assert not torch.distributed.is_initialized()


def test_recomputation_keeps_less_and_computes_more():
    kept, again = (trace(SMALL, Layout(recompute=r), 2, 128, cuda=True) for r in ("none", "blocks"))
    assert again.memory.activations < 0.4 * kept.memory.activations
    assert again.matmul > 1.15 * kept.matmul


def test_layouts_divide_memory_and_say_what_they_send():
    alone = trace(SMALL, Layout(), 1, 128, cuda=True)
    found = trace(SMALL, Layout(fsdp=2, tp=2, replicas=3, precision="bf16"), 1, 128, cuda=True)
    assert found.memory.parameters == pytest.approx(alone.memory.parameters / 4, rel=0.02)
    assert found.matmul == pytest.approx(alone.matmul / 2, rel=0.05)
    assert set(found.sent) == {
        ("shard", "all_gather"), ("shard", "reduce_scatter"), ("tp", "all_reduce"), ("replicas", "all_reduce"),
    }  # fmt: skip
    assert (
        found.sent["tp", "all_reduce"][1] == 4 * SMALL.layers + 5
    )  # two sums a block and pass; embedding, head
    seconds = step_seconds(H100, Layout(fsdp=2, tp=2, replicas=3), found, 2)
    assert seconds["replicas sums"] > 0
    assert all(v >= 0 for v in seconds.values())


@pytest.mark.parametrize(
    ("layout", "kinds"),
    [
        (Layout(tp=2), {("tp", "all_reduce")}),
        (Layout(cp=2), {("cp", "all_to_all"), ("shard", "all_gather"), ("shard", "reduce_scatter")}),
        (
            Layout(tp=2, cp=2, fsdp=2, precision="bf16"),
            {
                ("tp", "all_reduce"),
                ("cp", "all_to_all"),
                ("shard", "all_gather"),
                ("shard", "reduce_scatter"),
            },
        ),
    ],
)
def test_a_trace_of_divided_heads_and_tokens(layout, kinds):
    """Work and weights are divided; heads and tokens change places once a map and pass; the head's sums are counted."""
    c = ModelConfig(512, 64, 3, 8, 4, 96, 128)
    alone, found = (trace(c, x, 1, 128, cuda=False) for x in (Layout(precision=layout.precision), layout))
    assert {
        k
        for k in found.sent
        if {"tp": layout.tp, "cp": layout.cp, "shard": layout.fsdp * layout.cp}.get(k[0], 1) > 1
    } == kinds
    assert found.matmul == pytest.approx(alone.matmul / (layout.tp * layout.cp), rel=0.05)
    assert found.memory.parameters == pytest.approx(alone.memory.parameters / layout.ranks, rel=0.02)
    assert found.memory.activations < 0.95 * alone.memory.activations
    if layout.cp > 1:
        size, calls = found.sent["cp", "all_to_all"]
        assert calls == 8 * c.layers
        itemsize = 2 if layout.half else 4
        wide = (2 * c.width + 2 * c.kv_heads * c.head_dim) // layout.tp
        assert size == pytest.approx(2 * c.layers * 128 // layout.cp * wide * itemsize, rel=0.5)
    if layout.tp > 1:
        _, calls = found.sent["tp", "all_reduce"]
        assert (
            calls == 4 * c.layers + 5
        )  # embedding; of the head: largest, sum, chosen, gradient of hidden states


def test_a_plan_can_be_made_again_in_one_process():
    layout = Layout(fsdp=2)
    first, again = (trace(SMALL, layout, 1, 128, cuda=False) for _ in range(2))
    assert first.memory == again.memory
    assert first.late > 0


def test_many_layers_follow_from_few():
    deep = ModelConfig(512, 64, 7, 4, 2, 96, 128)
    found = trace(deep, Layout(), 1, 128, cuda=False)
    assert found.matmul == products(deep, 128)
    assert found.memory.parameters == 4 * deep.parameters


def test_the_published_run_is_planned(capsys):
    lines: list[str] = []
    recipe = load("phi4", scale="phi4", settings=["model.layers=5"])
    assert print_cluster(recipe, "pretrain", 1920, "h100", 0.4, lines.append) == 0
    text = "\n".join(lines)
    assert "1,920 h100 = replicas 240 x fsdp 4 x cp 1 x tp 2" in text
    assert "the published run (1,920 H100, 21 days, 9.8 T tokens) implies MFU" in text
    for kind in ("parameters", "gradients", "optimizer", "activations", "buffers"):
        assert kind in text


def test_gpus_that_do_not_divide():
    with pytest.raises(ValueError, match=r"--gpus 100 is not a multiple of layout.fsdp x cp x tp = 8"):
        layout_for(Layout(fsdp=4, tp=2), 100)


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (Layout(tp=8), r"tp 8 x cp 1 does not divide the 10 KV heads: .* in \{1, 2, 5, 10\}"),
        (Layout(tp=2, cp=2), "tp 2 x cp 2 does not divide the 10 KV heads"),
        (Layout(tp=5), "layout.tp 5 does not divide model.vocab 100352"),
        (Layout(cp=5), "layout.cp 5 does not divide the context of 4096"),
    ],
)
def test_layouts_that_do_not_fit_say_why(layout, says):
    with pytest.raises(ValueError, match=says):
        raise ValueError("; ".join(misfits(PHI4, layout, 4096)))


def test_ranks_that_were_not_started():
    with pytest.raises(
        ValueError, match=r"replicas 1 x fsdp 2 x cp 1 x tp 1 = 2 ranks, but 1 run: start `torchrun"
    ):
        Ranks(Layout(fsdp=2))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match=r"layout.device is cuda, but torch finds no CUDA device"):
        device_of(Layout(device="cuda"))


def test_the_lowest_point_of_a_parabola():
    fit = parabola([(f, 2 + (math.log2(f) - 0.5) ** 2) for f in (0.25, 0.5, 1, 2, 4)])
    assert fit.inside
    assert fit.factor == pytest.approx(2**0.5)
    assert fit.loss == pytest.approx(2.0)
    edge = parabola([(0.5, 3.0), (1, 2.0), (2, 1.5), (4, math.inf)])
    assert not edge.inside
    assert edge.factor == 2


def test_the_rate_is_extended_in_logarithms():
    assert horizon([(1e6, 4.0), (1e8, 1.0)], 1e10) == pytest.approx(0.25)


def test_a_rate_at_which_runs_end_at_once_is_left_out(tmp_path):
    def losses(steps, stop, factor, warmup):
        return [] if factor == 4 else [2 + (math.log2(factor) - 0.5) ** 2] * steps

    tuning = SimpleNamespace(
        recipe=load("phi4"), out=tmp_path, say=lambda line: None, losses=losses, steps=lambda share: 20
    )
    found = tune_lr(tuning, (0.5, 1, 2, 4), (0.25,))  # type: ignore[arg-type]
    assert found["factor"] == pytest.approx(2**0.5)
    assert read_json(tmp_path / "lr.json")["horizons"][0]["points"][-1] == [4, None]


def test_runs_that_come_apart():
    calm = [5 - 0.1 * i for i in range(30)]
    assert broken(calm, 30) == ""
    assert broken(calm[:12], 30) == "no number at step 13"
    assert "above its lowest" in broken([*calm[:20], *[6.0] * 10], 30)
