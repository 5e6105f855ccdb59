"""Plans of training: FLOPs, the trace of a sharded network on fake tensors, the roofline, and tuning's arithmetic."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from phikit.model.config import PHI4, ModelConfig
from phikit.model.layout import Layout, device_of, misfits
from phikit.model.logprob import weighted_nll
from phikit.model.parallel import parallelize
from phikit.model.ranks import Ranks
from phikit.model.transformer import build
from phikit.recipe.cluster import cluster_lines, layout_for, plan_cluster
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


class Counted(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_a_trace_counts_the_operations_of_a_real_pass():
    model = build(SMALL, 0)
    parallelize(model, Ranks(Layout(device="cpu")))
    ids = torch.zeros(1, 128, dtype=torch.long)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    with Counted() as seen:
        hidden = model(ids, ids, None, None).flatten(0, 1)
        weighted_nll(hidden, model.head_weight, ids.flatten(), torch.ones(128)).backward()
    assert trace(SMALL, Layout(), 1, 128, cuda=False).calls == pytest.approx(seen.calls, rel=0.02)


def test_rows_do_not_see_one_another():
    one, four = (trace(SMALL, Layout(), rows, 128, cuda=True) for rows in (1, 4))
    assert four.attention == pytest.approx(4 * one.attention)
    assert one.attention == pytest.approx(3.5 * 2 * SMALL.layers * SMALL.width * 128 * 128)


def test_nothing_is_gathered_ahead_where_weights_are_not_sharded():
    c = ModelConfig(512, 64, 3, 8, 4, 96, 128)
    alone, sharded = (trace(c, x, 1, 128, cuda=False) for x in (Layout(tp=2), Layout(tp=2, fsdp=2)))
    block = (c.parameters - 2 * 512 * 64 - 64) // c.layers
    norms = 2 * 64
    assert sharded.late - alone.late == pytest.approx(4 * (block - norms) / 2 + 4 * norms, rel=0.1)


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


def test_the_published_run_is_planned():
    recipe = load("phi4", scale="phi4", settings=["model.layers=5"])
    made = plan_cluster(recipe, "pretrain", 1920, "h100")
    assert made.fits
    lines = cluster_lines(made, 0.4)
    text = "\n".join(lines)
    assert "compiled ones keep less" in text
    sent = [line.split() for line in lines if line.startswith("  replicas")]
    assert sent[0][:5] == ["replicas", "240", "across", "nodes", "all_reduce"]
    assert "1,920 h100 = replicas 240 x fsdp 4 x cp 1 x tp 2" in text
    assert "the published run (1,920 H100, 21 days, 9.8 T tokens) implies MFU" in text
    for kind in ("parameters", "gradients", "optimizer", "activations", "buffers"):
        assert kind in text


def test_fp8_is_planned_as_bf16_and_said_so():
    keys = ["model.layers=2", "layout.tp=1", "layout.compile=false"]
    half, eighth = (
        plan_cluster(
            load("phi4", scale="phi4", settings=[*keys, f"layout.precision={p}"]), "pretrain", 960, "h100"
        )
        for p in ("bf16", "fp8")
    )
    assert eighth.trace.memory == half.trace.memory
    assert any("fp8 is planned as bf16" in line for line in cluster_lines(eighth, 0))
    assert not any("fp8" in line or "compiled ones" in line for line in cluster_lines(half, 0))


def test_days_follow_from_the_rate():
    made = plan_cluster(load("phi4", scale="phi4", settings=["model.layers=2"]), "pretrain", 1920, "h100")
    steps = made.tokens / made.step_tokens
    assert made.days(made.tokens, made.mfu) == pytest.approx(steps * sum(made.seconds.values()) / 86_400)
    assert made.days(made.tokens, 0.2) == pytest.approx(2 * made.days(made.tokens, 0.4))


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
