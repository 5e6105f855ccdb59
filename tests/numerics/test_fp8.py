"""fp8 through torchao: which maps are chosen, who is refused, and a step in emulation against one in bf16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from phikit.model import fp8
from phikit.model.config import PHI4, ModelConfig
from phikit.model.layout import Layout, misfits
from phikit.model.logprob import weighted_nll
from phikit.model.parallel import parallelize
from phikit.model.ranks import Ranks
from phikit.model.transformer import Transformer, build

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torchao"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torchao"),
]
SMALL = ModelConfig(320, 64, 2, 4, 2, 96, 64, init_std=0.1)


@pytest.fixture
def torchao():
    return pytest.importorskip("torchao", reason="torchao is not installed: phikit[fp8]")


def loss_of(model: Transformer) -> torch.Tensor:
    ids = torch.randint(0, 320, (2, 64), generator=torch.Generator().manual_seed(0))
    hidden = model(ids, torch.arange(64).expand(2, 64), None)
    n = 2 * 63
    return (
        weighted_nll(hidden[:, :-1].flatten(0, 1), model.head_weight, ids[:, 1:].flatten(), torch.ones(n)) / n
    )


def test_all_maps_of_phi4s_blocks_and_no_others():
    with torch.device("meta"):
        model = Transformer(PHI4)
    chosen = [n for n, m in model.named_modules() if fp8.qualifies(m, n)]
    assert len(chosen) == 40 * 7
    assert all(n.startswith("blocks.") for n in chosen)
    assert sum(model.get_parameter(f"{n}.weight").numel() for n in chosen) == (
        PHI4.parameters - 2 * PHI4.vocab * PHI4.width - PHI4.width * 81
    )


def test_sides_that_are_no_multiples_of_16_are_left_out(torchao):
    model = build(ModelConfig(320, 64, 1, 4, 2, 100, 64), 0)
    assert fp8.convert(model, gathered=False, emulate=True) == [f"blocks.0.attn.{x}" for x in "qkvo"]
    with pytest.raises(ValueError, match="no linear map of a block has sides that are multiples of 16"):
        fp8.convert(build(ModelConfig(320, 36, 1, 2, 1, 100, 64), 0), gathered=False)


def test_names_values_and_head_stay_and_come_back(torchao):
    model, same = build(SMALL, 0), build(SMALL, 0)
    chosen = fp8.convert(model, gathered=False, emulate=True)
    assert len(chosen) == 14
    assert type(model.head) is nn.Linear
    fp8.revert(model)
    assert all(type(model.get_submodule(n)) is nn.Linear for n in chosen)
    for (name, p), (other, q) in zip(model.named_parameters(), same.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(p, q)


def test_a_step_in_fp8_is_near_one_in_bf16(torchao):
    """An element of e4m3 has 3 bits behind the point, of e5m2, which gradients are in, 2: a relative error of up to
    6 % and 12 % an element. Over two blocks the norms of gradients come to differ by 18 %."""
    model, other = build(SMALL, 0), build(SMALL, 0)
    fp8.convert(model, gathered=False, emulate=True)
    with torch.autocast("cpu", torch.bfloat16):
        want = loss_of(other)
    got = loss_of(model)
    assert float(got.detach()) != float(want.detach())
    assert float(got.detach()) == pytest.approx(float(want.detach()), rel=0.005)
    for loss in (got, want):
        loss.backward()
    for (name, p), q in zip(model.named_parameters(), other.parameters()):
        assert p.grad is not None
        assert q.grad is not None
        assert p.grad.dtype == torch.float32
        far = float((p.grad - q.grad.float()).norm() / q.grad.float().norm())
        assert far < 0.25, name
        assert torch.cosine_similarity(p.grad.flatten(), q.grad.float().flatten(), 0) > 0.97, name


def test_who_has_none_is_told(monkeypatch):
    ranks = Ranks(Layout(device="cpu", precision="fp8"))
    with pytest.raises(ValueError, match=r"fp8, but the device is the CPU: set layout.precision to bf16"):
        parallelize(build(SMALL, 0), ranks)
    assert "layout.precision fp8 divides no matrices: set layout.tp to 1" in "".join(
        misfits(PHI4, Layout(precision="fp8", tp=2))
    )
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: (8, 0))
    with pytest.raises(
        ValueError, match=r"NVIDIA A100 \(compute capability 8.0\) has none: it begins with 8.9"
    ):
        fp8.check(cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: (9, 0))
    monkeypatch.setattr(fp8, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"torchao is not installed: pip install 'phikit\[fp8\]'"):
        fp8.check(cuda)
