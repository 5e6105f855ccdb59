"""The network gives the numbers of transformers' Phi3ForCausalLM, through the folder it writes."""

from __future__ import annotations

import pytest
import torch
from transformers import Phi3ForCausalLM

from phikit.engine.base import Counter
from phikit.engine.network import Network
from phikit.engine.prefill import Prefill
from phikit.engine.trie import build_trie
from phikit.model.config import PHI4, ModelConfig
from phikit.model.hf import save_hf
from phikit.model.hf_read import load_hf
from phikit.model.names import table
from phikit.model.transformer import Transformer, build
from phikit.text.tokenizer import Tokenizer

SHAPES = {
    "all heads": ModelConfig(320, 64, 2, 4, 4, 160, 256),
    "grouped": ModelConfig(320, 64, 3, 4, 2, 192, 256, norm_eps=1e-6),
    "one kv head": ModelConfig(333, 96, 2, 6, 1, 100, 128),
    "tied": ModelConfig(320, 64, 2, 4, 2, 160, 256, tied=True),
    "long base": ModelConfig(320, 128, 2, 4, 2, 256, 1024, rope_base=250_000.0),
    "tied, long base": ModelConfig(320, 128, 4, 4, 2, 448, 512, rope_base=250_000.0, tied=True),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the cat sat on the mat, the rat on the hat: 3 + 4 = 7. " * 3], 275)


def network(config: ModelConfig, seed: int = 0) -> Transformer:
    """Random weights larger than a fresh network's, norms included: an error in any of them shows."""
    model = build(config, seed)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0) if p.ndim == 2 else p.normal_(1.0, 0.3, generator=g)
    return model.eval()


def logits(model: Transformer, tokens: torch.Tensor, segments=None, positions=None) -> torch.Tensor:
    if positions is None:
        positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    with torch.no_grad():
        return model(tokens, positions, segments) @ model.head_weight.T


def some_tokens(config: ModelConfig, rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, config.vocab, (rows, length), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_transformers(name, tmp_path, tokenizer):
    config = SHAPES[name]
    model = network(config)
    save_hf(model, tokenizer, tmp_path)
    reference = Phi3ForCausalLM.from_pretrained(tmp_path).eval()
    assert reference.dtype == torch.float32
    assert sum(p.numel() for p in reference.parameters()) == config.parameters
    tokens = some_tokens(config, 2, config.context)
    with torch.no_grad():
        theirs = reference(tokens).logits
    ours = logits(model, tokens)
    assert theirs.abs().max() > 1
    assert (ours - theirs).abs().max() <= 1e-5


@pytest.mark.parametrize("name", SHAPES)
def test_the_folder_gives_the_same_bits_back(name, tmp_path, tokenizer):
    model = network(SHAPES[name])
    save_hf(model, tokenizer, tmp_path)
    again, config = load_hf(tmp_path)
    assert config == SHAPES[name]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    tokens = some_tokens(config, 1, 50)
    assert torch.equal(logits(model, tokens), logits(again, tokens))


def test_a_folder_of_transformers_can_be_loaded(tmp_path):
    """Several safetensors files with an index, written by transformers itself."""
    from transformers import Phi3Config

    config = Phi3Config(
        vocab_size=320, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, original_max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 250000.0}, sliding_window=None,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    reference = Phi3ForCausalLM(config).eval()
    reference.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    model, shape = load_hf(tmp_path)
    assert shape.rope_base == 250_000.0
    tokens = some_tokens(shape, 2, 100)
    with torch.no_grad():
        theirs = reference(tokens).logits
    assert (logits(model, tokens) - theirs).abs().max() <= 1e-5


def test_generation_stops_at_the_end_of_turn(tmp_path, tokenizer):
    save_hf(network(SHAPES["tied"]), tokenizer, tmp_path)
    reference = Phi3ForCausalLM.from_pretrained(tmp_path)
    assert reference.generation_config.eos_token_id == [tokenizer.im_end, tokenizer.end_of_text]
    assert reference.generation_config.pad_token_id == tokenizer.pad


@pytest.mark.parametrize("lengths", [(40,), (1, 39), (13, 2, 25), (8, 8, 8, 8, 8), (20, 12)])
def test_packed_documents_do_not_see_each_other(lengths):
    """One row of documents and padding equals a loop over the documents."""
    config = SHAPES["long base"]
    model = network(config)
    tokens = some_tokens(config, 1, 40)
    segments, positions = torch.full((1, 40), -1), torch.zeros(1, 40, dtype=torch.long)
    at = 0
    for number, n in enumerate(lengths):
        segments[0, at : at + n] = number
        positions[0, at : at + n] = torch.arange(n)
        at += n
    packed = logits(model, tokens, segments, positions)
    assert torch.isfinite(packed).all()
    at = 0
    for n in lengths:
        alone = logits(model, tokens[:, at : at + n])
        assert (packed[:, at : at + n] - alone).abs().max() <= 1e-5
        at += n


@pytest.mark.parametrize("name", SHAPES)
def test_the_engine_gives_the_same_hidden_states(name):
    """Fused projections, the table of rotations and the blocks of prefill against the modules."""
    model = network(SHAPES[name])
    tokens = some_tokens(SHAPES[name], 3, 120).tolist()
    trie = build_trie(tokens, [0, 0, 0])
    with torch.no_grad():
        hidden = torch.cat([h for _, h in Prefill(Network(model), trie, Counter())])
        for row, nodes in zip(tokens, trie.nodes):
            want = model(torch.tensor([row]), torch.arange(120)[None], None)[0]
            assert (hidden[torch.from_numpy(nodes)] - want).abs().max() <= 2e-5


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_counted_right(name):
    assert sum(p.numel() for p in build(SHAPES[name], 0).parameters()) == SHAPES[name].parameters


def test_phi4_has_its_published_size():
    assert PHI4.parameters == 14_659_507_200
    assert len(table(PHI4)) == 243
    with torch.device("meta"):
        assert sum(p.numel() for p in Transformer(PHI4).parameters()) == PHI4.parameters


def test_weights_depend_on_seed_and_name_alone():
    small, deep = build(SHAPES["all heads"], 3), build(ModelConfig(320, 64, 4, 4, 4, 160, 256), 3)
    assert torch.equal(small.blocks[1].attn.q.weight, deep.blocks[1].attn.q.weight)
    assert not torch.equal(small.embed.weight, build(SHAPES["all heads"], 4).embed.weight)
    assert not torch.equal(small.blocks[0].attn.q.weight, small.blocks[1].attn.q.weight)
