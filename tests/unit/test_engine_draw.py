import numpy as np
import pytest
import torch

from phikit.engine import sampling, slots
from phikit.engine.base import GenRequest
from phikit.engine.draw import best, log_total, pick, sample_key, shaped, uniform


def test_uniforms_and_keys_are_those_of_the_torch_engine():
    for seed in (0, 1, 2**63 - 1):
        for number in (0, 3):
            key = sample_key(seed, number)
            assert key == slots.sample_key(seed, number)
            ours = [uniform(key, t) for t in range(5)]
            theirs = sampling.uniforms(np.full(5, key, np.uint64), np.arange(5))
            assert ours == theirs.tolist()
    many = [uniform(7, t) for t in range(4000)]
    assert abs(np.mean(many) - 0.5) < 0.02
    assert len(set(many)) == 4000


@pytest.mark.parametrize("temperature, top_p", [(0.0, 1.0), (1.0, 1.0), (0.3, 0.9), (2.0, 0.5), (1.0, 0.0)])
def test_the_same_token_is_drawn_as_by_the_torch_engine(temperature, top_p):
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((200, 700)) * 4).astype(np.float32)
    u = rng.random(200)
    ours = [pick(row, temperature, top_p, x)[0] for row, x in zip(logits, u)]
    ids, logprobs = sampling.pick(
        torch.from_numpy(logits),
        torch.full((200,), temperature),
        torch.full((200,), top_p),
        torch.from_numpy(u),
    )
    # A draw within rounding of a boundary may fall on either side of it.
    assert np.mean(np.array(ours) == ids.numpy()) >= 0.99
    same = [i for i in range(200) if ours[i] == ids[i]]
    mine = [float(logits[i, ours[i]]) - log_total(logits[i]) for i in same]
    np.testing.assert_allclose(mine, logprobs.numpy()[same], atol=2e-6)


def test_forbidden_tokens_are_never_drawn():
    logits = np.full(50, -np.inf, np.float32)
    logits[[3, 9]] = 1.0
    assert {pick(logits, 1.0, 1.0, u)[0] for u in np.linspace(0, 0.9999999, 40)} == {3, 9}
    assert pick(logits, 1.0, 0.3, 0.999)[0] in (3, 9)


def test_a_flat_distribution_needs_more_than_the_head():
    logits = np.zeros(5000, np.float32)
    drawn = [pick(logits, 1.0, 0.5, u)[0] for u in np.linspace(0, 0.999, 50)]
    assert len(set(drawn)) == 50


def test_best_lists_the_most_probable_first():
    logits = np.array([0.0, 3.0, -1.0, 2.0], np.float32)
    found = best(logits, log_total(logits), 3)
    assert [i for i, _ in found] == [1, 3, 0]
    assert found[0][1] == pytest.approx(3 - np.log(np.exp(logits.astype(float)).sum()))
    assert len(best(logits, 0.0, 9)) == 4


def test_shaped_logits_follow_llama_cpps_order():
    """Penalties first, then top_k, then min_p; what is forbidden is -inf, the rest as it was."""
    logits = np.array([3.0, 2.0, 1.0, 0.0, -1.0], np.float32)

    def shape(tokens=(), **options):
        return shaped(logits, GenRequest((0,), 1, **options), tokens).tolist()

    inf = float("-inf")
    assert shape(top_k=2) == [3, 2, inf, inf, inf]
    assert shape(min_p=0.3) == [3, 2, inf, inf, inf]  # exp(-1) = 0.37 is kept, exp(-2) = 0.14 is not
    assert shape((0, 0, 4), repeat_penalty=2.0) == [1.5, 2, 1, 0, -2]
    assert shape((0, 0, 4), frequency_penalty=0.5, presence_penalty=0.25) == [1.75, 2, 1, 0, -1.75]
    assert shape((0, 0, 4), repeat_penalty=2.0, repeat_last=1) == [3, 2, 1, 0, -2]
    assert shape((0, 0, 4), repeat_penalty=2.0, repeat_last=0, top_k=5) == logits.tolist()
    assert shape((0, 0, 0, 0), frequency_penalty=1.0, top_k=1) == [inf, 2, inf, inf, inf]
    assert logits.tolist() == [3, 2, 1, 0, -1]


def test_a_request_says_whether_its_logits_are_shaped():
    assert not GenRequest((0,), 1).is_shaped
    assert GenRequest((0,), 1, top_k=1).is_shaped
    assert GenRequest((0,), 1, min_p=0.1).is_shaped
    assert GenRequest((0,), 1, presence_penalty=0.1).is_shaped
    assert not GenRequest((0,), 1, presence_penalty=0.1, repeat_last=0).is_shaped
