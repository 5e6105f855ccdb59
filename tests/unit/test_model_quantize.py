"""Quantized GGUF files: bytes as llama.cpp writes them, the published mix, and what quantizing costs."""

from __future__ import annotations

import ctypes
from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGUFReader, quants
from gguf import GGMLQuantizationType as Block
from quantize_network import sentences, trained

from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.gguf_meta import read_meta
from phikit.engine.llama import LlamaEngine
from phikit.model.config import PHI4
from phikit.model.gguf import save_gguf
from phikit.model.gguf_read import load_gguf
from phikit.model.hf import save_hf
from phikit.model.hf_read import load_hf
from phikit.model.quantize.compare import compare
from phikit.model.quantize.types import FILE_TYPES, QUANTIZED, encode, file_type, mix
from phikit.model.rows import of_gguf, of_hf, shapes
from phikit.recipe import weights

rng = np.random.default_rng(0)
WEIGHTS = {
    "normal": rng.normal(0, 0.02, (64, 256)),
    "heavy tails": rng.standard_t(2, (64, 256)) * 0.02,
    "zero": np.zeros((2, 256)),
    "positive": rng.random((32, 256)),
    "negative": -rng.random((32, 256)),
    "constant": np.full((2, 256), -0.3),
    "sparse": rng.normal(0, 1, (64, 256)) * (rng.random((64, 256)) < 0.05),
    "ties": rng.integers(-3, 4, (64, 256)) * 0.01,
    "all sizes": rng.normal(0, 1, (64, 256)) * np.repeat(10.0 ** rng.integers(-8, 2, (64, 16)), 16, 1),
    "tiny": rng.normal(0, 1e-16, (8, 256)),
}


@pytest.fixture(scope="module")
def ggml():
    """llama.cpp's own quantizer, where the installed build exports it."""
    import xllamacpp

    for so in Path(xllamacpp.__file__).parent.glob("*.so"):
        function = getattr(ctypes.CDLL(str(so)), "ggml_quantize_chunk", None)
        if function is not None:
            function.restype = ctypes.c_size_t
            kinds = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3]
            function.argtypes = [*kinds, ctypes.c_void_p, ctypes.c_void_p]
            return function
    pytest.skip("this build of xllamacpp does not export ggml_quantize_chunk")


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("block", [Block.Q4_K, Block.Q5_K, Block.Q6_K, Block.Q8_0, Block.Q4_0])
def test_the_bytes_are_those_of_llama_cpp(ggml, block, name):
    x = np.ascontiguousarray(WEIGHTS[name], np.float32)
    _, size = GGML_QUANT_SIZES[block]
    theirs = np.empty(x.size // GGML_QUANT_SIZES[block][0] * size, np.uint8)
    written = ggml(int(block), x.ctypes.data, theirs.ctypes.data, 0, len(x), x.shape[1], None, None)
    assert written == len(theirs)
    ours = encode(x, block).reshape(-1)
    if block in (Block.Q8_0, Block.Q4_0):  # the gguf package's; the scale of an all-zero block may be -0
        ours, theirs = (quants.dequantize(b, block) for b in (ours, theirs))
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("block, error", [(Block.Q4_K, 0.075), (Block.Q5_K, 0.038), (Block.Q6_K, 0.019)])
def test_the_error_of_k_quants(block, error):
    x = rng.normal(0, 0.02, (300, 512)).astype(np.float32)
    back = quants.dequantize(encode(x, block).reshape(300, -1), block)
    assert back.shape == x.shape
    relative = np.sqrt(((back - x) ** 2).mean() / (x**2).mean())
    assert error / 1.5 < relative < error


def test_the_mix_is_that_of_the_published_phi4():
    """Facts sections 1.8 and 8.8: 9,053,114,464 bytes with a header of 3.6 MB; sizes of the other types in GB."""
    tensors = shapes(PHI4)
    assert len(tensors) == 243
    assert sum(prod(s) for s in tensors.values()) == PHI4.parameters
    mixed = mix(tensors, "Q4_K_M")
    assert Counter(b.name for b in mixed.values()) == {"Q4_K": 101, "Q5_K": 40, "Q6_K": 21, "F32": 81}
    assert mixed["output.weight"] == Block.Q6_K
    assert mixed["token_embd.weight"] == Block.Q4_K
    assert mixed["blk.7.ffn_down.weight"] == Block.Q6_K
    assert mixed["blk.6.ffn_down.weight"] == Block.Q4_K
    size = {}
    for type_ in FILE_TYPES:
        found = mix(tensors, type_)
        blocks = {n: GGML_QUANT_SIZES[found[n]] for n in tensors}
        size[type_] = sum(prod(s) // blocks[n][0] * blocks[n][1] for n, s in tensors.items())
    assert 3_000_000 < 9_053_114_464 - size["Q4_K_M"] < 4_000_000
    published = {"F32": 58.64, "F16": 29.32, "Q8_0": 15.58, "Q6_K": 12.03, "Q5_K_M": 10.60, "Q4_K_M": 9.05}
    assert {k: round(size[k] / 1e9, 2) for k in published} == published


def test_a_tied_embedding_is_the_head():
    tensors = {
        "token_embd.weight": (512, 256),
        "output_norm.weight": (256,),
        "blk.0.attn_v.weight": (64, 256),
    }
    mixed = mix(tensors, "Q4_K_M")
    assert mixed["token_embd.weight"] == Block.Q6_K
    assert mixed["blk.0.attn_v.weight"] == Block.Q6_K
    assert mixed["output_norm.weight"] == Block.F32
    assert mix(tensors, "Q8_0")["token_embd.weight"] == Block.Q8_0


@pytest.mark.parametrize("type_", ["Q4_K_M", "Q5_K_M", "Q6_K"])
def test_rows_that_k_quants_cannot_cut(type_):
    tensors = {"token_embd.weight": (100, 576), "output.weight": (100, 576)}
    with pytest.raises(ValueError, match=r"token_embd.* rows of 576 .*multiples of 256: use Q8_0 or Q4_0"):
        mix(tensors, type_)
    assert set(mix(tensors, "Q8_0").values()) == {Block.Q8_0}
    assert mix(tensors, "Q4_0") == {"token_embd.weight": Block.Q4_0, "output.weight": Block.Q8_0}
    with pytest.raises(ValueError, match="multiples of 32: use F16 or BF16"):
        mix({"token_embd.weight": (10, 40)}, "Q8_0")


def test_weights_that_no_block_holds():
    for bad in (np.inf, np.nan, 7e4):
        x = np.zeros((1, 256), np.float32)
        x[0, 3] = bad
        with pytest.raises(ValueError, match="beyond the range of Q4_K"):
            encode(x, Block.Q4_K)
    with pytest.raises(ValueError, match="no GGUF type 'Q3_K_L'"):
        file_type("Q3_K_L")


# -- a trained network -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("trained")
    model, tokenizer = trained()
    save_hf(model, tokenizer, path / "hf")
    save_gguf(model, tokenizer, path / "f32.gguf", ftype="f32", name="hf")
    return path


@pytest.fixture(scope="module")
def files(folder) -> dict[str, dict]:
    return {
        t: weights.quantize(
            str(folder / "hf"), t, folder / f"{t}.gguf", text=sentences(400, 1), tokens=1000, threads=1
        )
        for t in QUANTIZED
    }


def test_finer_types_are_nearer(files):
    kl = [files[t]["kl"]["value"] for t in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")]
    assert 0 < kl[0] < kl[1] < kl[2] < kl[3] < 0.05
    assert files["Q8_0"]["source_perplexity"] < 100  # it has learned something
    for row in files.values():
        assert row["tokens"] == 889 == 7 * 127
        assert row["same_top"]["value"] > 0.9
        assert row["perplexity"] == pytest.approx(
            row["source_perplexity"] * np.exp(row["log_ratio"]["value"]), rel=1e-6
        )
    sizes = [files[t]["bytes"] for t in QUANTIZED]
    assert sizes == sorted(sizes, reverse=True)
    assert files["Q4_K_M"]["tensors"] == {"F32": 5, "Q4_K": 6, "Q5_K": 2, "Q6_K": 2}


def test_llama_cpp_computes_what_the_dequantizer_says(folder, files):
    """llama.cpp rounds activations, too (to 8 bits); a wrong block would be off by nats."""
    text = sentences(6, 2)
    for type_ in files:
        path = folder / f"{type_}.gguf"
        assert read_meta(path).file_type == type_
        model, _ = load_gguf(path)
        engine = LlamaEngine(path, threads=1)
        try:
            tokens = engine.encode(text)
            requests = [ScoreRequest(tuple(tokens[:i]), (tokens[i],)) for i in range(1, len(tokens))]
            theirs = torch.tensor([s.logprob for s in engine.score(requests)])
            greedy = next(engine.generate([GenRequest(tuple(tokens[:9]), 8, temperature=0.0)]))[1][0].tokens
        finally:
            engine.close()
        with torch.no_grad():
            hidden = model(torch.tensor([tokens[:-1]]), torch.arange(len(tokens) - 1)[None], None)[0]
        logprobs = torch.log_softmax(hidden @ model.head_weight.T, -1)
        ours = logprobs[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])]
        assert (ours - theirs).abs().mean() < 0.03, type_
        assert (ours - theirs).abs().max() < 0.3, type_
        assert len(greedy) == 8


def test_every_source_gives_the_same_tensors(folder, files):
    again = weights.quantize(str(folder / "f32.gguf"), "q5_k_m", folder / "again.gguf", tokens=0, threads=2)
    a, b = GGUFReader(folder / "Q5_K_M.gguf"), GGUFReader(folder / "again.gguf")
    assert "kl" not in again
    assert [t.name for t in a.tensors] == [t.name for t in b.tensors]
    for x, y in zip(a.tensors, b.tensors):
        assert np.array_equal(x.data, y.data)
    keys = [{k: f.contents() for k, f in r.fields.items() if k[:4] != "GGUF"} for r in (a, b)]
    assert keys[0] == keys[1]
    assert keys[0]["general.quantization_version"] == 2


def test_what_is_not_quantized(folder, files, tmp_path):
    with pytest.raises(ValueError, match="is Q4_K already, and quantizing twice"):
        weights.quantize(str(folder / "Q4_K_M.gguf"), "Q8_0", tmp_path / "a.gguf", tokens=0)
    with pytest.raises(ValueError, match="F16 is not quantized: `phikit export"):
        weights.quantize(str(folder / "hf"), "F16", tmp_path / "a.gguf")
    with pytest.raises(ValueError, match="fewer than 2 tokens"):
        weights.quantize(str(folder / "hf"), "Q8_0", tmp_path / "a.gguf", text="a")
    with pytest.raises(ValueError, match="no model here"):
        weights.quantize(str(tmp_path), "Q8_0", tmp_path / "a.gguf")
    assert not list(tmp_path.iterdir())


def test_the_comparison_is_that_of_whole_networks(folder, files):
    """Layer by layer is the same as all at once; a model against itself is at 0."""
    _, config = of_hf(folder / "hf")
    windows = torch.randint(0, 300, (3, 40), generator=torch.Generator().manual_seed(0)).tolist()
    found = compare(folder / "hf", folder / "Q4_K_M.gguf", windows)
    tokens = torch.tensor(windows)
    both = []
    for model, _ in (load_hf(folder / "hf"), load_gguf(folder / "Q4_K_M.gguf")):
        with torch.no_grad():
            hidden = model(tokens[:, :-1], torch.arange(39)[None], None)
            both.append(torch.log_softmax(hidden @ model.head_weight.T, -1))
    kl = (both[0].exp() * (both[0] - both[1])).sum(-1)
    assert found.kl.value == pytest.approx(float(kl.mean()), rel=1e-3)
    assert found.kl.clusters == 3
    loss = [-float(x.gather(2, tokens[:, 1:, None]).mean()) for x in both]
    assert np.log(found.source_perplexity) == pytest.approx(loss[0], rel=1e-5)
    assert found.log_ratio.value == pytest.approx(loss[1] - loss[0], abs=1e-5)
    assert found.same_top.value == pytest.approx(
        float((both[0].argmax(-1) == both[1].argmax(-1)).float().mean())
    )
    itself = compare(folder / "hf", folder / "f32.gguf", windows)
    assert (itself.kl.value, itself.log_ratio.value, itself.same_top.value) == (0, 0, 1)
    with pytest.raises(ValueError, match="beyond the vocabulary of 512"):
        compare(folder / "hf", folder / "f32.gguf", [[1, 512]])
    assert config.vocab == 512


def test_rows_are_read_in_pieces(folder):
    whole = {r.name: r for r in of_gguf(folder / "f32.gguf")}
    for rows in of_hf(folder / "hf")[0]:
        other = whole[rows.name]
        assert other.shape == rows.shape
        parts = [rows.read(a, b) for a, b in rows.ranges(weights=1000)]
        assert np.array_equal(np.concatenate(parts), other.read(0, other.count))
