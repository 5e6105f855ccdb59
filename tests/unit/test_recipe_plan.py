from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import get_type_hints

import pytest

from phikit.model.layout import Layout
from phikit.recipe import plan, schema
from phikit.recipe.load import load
from phikit.recipe.run import run


def test_phi4_has_the_published_number_of_parameters():
    assert plan.parameters(load("phi4", scale="phi4").model) == 14_659_507_200


def test_nano_and_mini_have_the_sizes_they_are_named_for():
    assert plan.parameters(load("phi4", scale="mini").model) == pytest.approx(100e6, rel=0.05)
    assert plan.parameters(load("phi4", scale="nano").model) < 5e6


def test_flops_of_phi4_are_near_six_n_d():
    recipe = load("phi4", scale="phi4")
    flops = plan.train_flops(recipe.model, 10**13, 4096)
    assert 6 * 14.66e9 * 1e13 < flops < 1.1 * 6 * 14.66e9 * 1e13


def test_attention_grows_with_the_context():
    model = load("phi4", scale="phi4").model
    extra = plan.train_flops(model, 1000, 16384) - plan.train_flops(model, 1000, 4096)
    assert extra == pytest.approx(1000 * 6 * 40 * 5120 * (16384 - 4096))


def test_steps_follow_from_tokens_batch_and_context():
    made = plan.make_plan(load("phi4", scale="phi4"))
    lines = {line.stage: line for line in made.lines}
    assert lines["pretrain"].steps == 423_856  # 10T / (5760 x 4096)
    assert lines["dpo1"].steps is None  # the pairs are not known before the search
    assert [line.stage for line in made.lines] == list(load("phi4", scale="phi4").stages)


def test_memory_of_a_rank():
    recipe = load("phi4", scale="phi4", settings=["layout.fsdp=960", "layout.replicas=1"])
    assert recipe.pretrain
    memory = plan.train_memory(recipe, recipe.pretrain)
    share = 14_659_507_200 / 1920
    assert memory.weights == pytest.approx(6 * share, rel=1e-6)
    assert memory.optimizer == pytest.approx(8 * share, rel=1e-6)
    assert memory.total < 80e9
    one = load("phi4", scale="phi4", settings=["layout.fsdp=1", "layout.tp=1", "layout.replicas=1"])
    assert one.pretrain
    assert plan.train_memory(one, one.pretrain).optimizer == 8 * 14_659_507_200
    muon = load(
        "phi4", scale="phi4", settings=["pretrain.optimizer=muon", "layout.fsdp=960", "layout.replicas=1"]
    )
    assert muon.pretrain
    assert plan.train_memory(muon, muon.pretrain).optimizer < memory.optimizer


def test_the_keys_of_the_layout_are_those_that_the_trainer_has():
    assert schema.Layout().model_dump() == asdict(Layout())
    for f in fields(Layout):
        if f.type not in ("int", "bool"):
            assert schema.Layout.model_fields[f.name].annotation == get_type_hints(Layout)[f.name]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_estimate_of_memory_is_near_that_of_the_simulated_network(precision):
    from phikit.train.simulate import trace

    recipe = load("phi4", scale="mini", settings=[f"layout.precision={precision}", "layout.compile=false"])
    assert recipe.pretrain
    estimate, train = plan.train_memory(recipe, recipe.pretrain), recipe.pretrain
    shape = replace(plan.network_of(recipe), context=train.context)
    found = trace(shape, plan.layout_of(recipe), train.micro or train.batch, train.context, cuda=True).memory
    assert estimate.gradients == found.gradients
    assert estimate.optimizer == found.optimizer
    assert estimate.total == pytest.approx(found.total, rel=0.15)


@pytest.mark.parametrize("scale", ["nano", "mini", "phi4"])
def test_the_built_in_layouts_fit(scale):
    assert not [r for r in plan.layout_remarks(load("phi4", scale=scale)) if r.startswith("error")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["layout.tp=4", "layout.fsdp=480"], "does not divide the 10 KV heads"),
        (["layout.tp=2", "layout.cp=2", "layout.fsdp=480"], r"product is in {1, 2, 5, 10}"),
        (["layout.fsdp=7"], "pretrain.batch 5760 is not a multiple of layout.fsdp x layout.replicas 1680"),
        (["pretrain.micro=4"], "pretrain.micro 4 does not divide the 6 rows"),
        (
            ["layout.tp=1", "layout.cp=2"],
            "dpo1 trains whole trees of tokens on each rank: set layout.cp to 1",
        ),
        (["pretrain.optimizer=muon"], "pretrain.optimizer muon needs whole matrices"),
        (["sft.lora={rank: 8}"], "sft.lora trains on one rank"),
        (["model.vocab=100353"], "layout.tp 2 does not divide model.vocab 100353"),
    ],
)
def test_a_layout_that_cannot_run_is_an_error_in_words(settings, message):
    import re

    remarks = plan.layout_remarks(load("phi4", scale="phi4", settings=settings))
    assert any(r.startswith("error") and re.search(message, r) for r in remarks), remarks


def test_disk_grows_with_the_stages():
    recipe = load("phi4", scale="phi4")
    assert plan.disk_bytes(recipe, ["report"]) < 1e9
    assert plan.disk_bytes(recipe, ["sft"]) > 16 * 14e9
    assert plan.disk_bytes(load(), load().stages) < 2e9


def test_gguf_types_that_do_not_fit_the_rows_are_refused_before_the_run(tmp_path):
    nano = load("phi4", scale="nano", settings=["export.gguf=[f16, Q4_K_M]"])
    assert plan.layout_remarks(nano)[-1].startswith(
        "error: export.gguf: tensor 'token_embd.weight' has rows of 128"
    )
    with pytest.raises(ValueError, match=r"export\.gguf: .* multiples of 256: use Q8_0 or Q4_0"):
        run(nano, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    plan.check_export(load("phi4", scale="nano", settings=["export.gguf=[f16, Q8_0, Q4_0]"]))
    every = "export.gguf=[f32, f16, bf16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0]"
    plan.check_export(load("phi4", scale="phi4", settings=[every]))
    with pytest.raises(ValueError, match=r"export\.gguf"):
        load("phi4", scale="phi4", settings=["export.gguf=[Q3_K]"])
