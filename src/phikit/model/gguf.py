"""GGUF out: architecture phi3, so that llama.cpp and what is built on it run the network (facts section 1.8).

The tokenizer goes along. llama.cpp knows pre-split regexes by name only: `dbrx` is Phi-4's (digits in runs of
up to three), `qwen2` is the same regex with single digits. Both were compared with ours string by string.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from phikit.model.names import fused
from phikit.records.io import atomic_path
from phikit.text.chat import TEMPLATE
from phikit.text.tokenizer import SPLIT, Tokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

    from phikit.model.transformer import Transformer

FileType = Literal["f32", "f16", "bf16"]
PRE_SPLITS = {SPLIT % 1: "qwen2", SPLIT % 3: "dbrx"}
_F16_MAX = 65504.0


def save_gguf(
    model: Transformer, tokenizer: Tokenizer, path: Path, *, ftype: FileType = "f16", name: str = "phikit"
) -> None:
    """Writes `path` atomically. Norms stay fp32 in every type, as llama.cpp wants them. Raises ValueError
    where the tokenizer does not fit the network or llama.cpp, or where a weight is beyond the range of
    f16."""
    from gguf import GGUFWriter

    with atomic_path(path) as tmp:
        writer = GGUFWriter(tmp, "phi3")
        try:
            _shape(writer, model, ftype, name)
            _vocabulary(writer, tokenizer, model.config.vocab)
            _weights(writer, model, ftype)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _shape(writer: GGUFWriter, model: Transformer, ftype: FileType, name: str) -> None:
    from gguf import LlamaFileType

    c = model.config
    types = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "bf16": LlamaFileType.MOSTLY_BF16}
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(types[ftype])
    writer.add_vocab_size(c.vocab)
    writer.add_context_length(c.context)
    writer.add_rope_scaling_orig_ctx_len(c.context)
    writer.add_embedding_length(c.width)
    writer.add_feed_forward_length(c.ffn)
    writer.add_block_count(c.layers)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(c.rope_base)
    writer.add_sliding_window(0)  # absent, llama.cpp takes the model for a Phi-3 with a window


def _vocabulary(writer: GGUFWriter, tokenizer: Tokenizer, vocab: int) -> None:
    from gguf import TokenType

    spec = json.loads(tokenizer.to_json())
    pieces = dict(spec["model"]["vocab"])
    kinds = dict.fromkeys(pieces.values(), TokenType.NORMAL)
    for token in spec["added_tokens"]:
        pieces[token["content"]] = token["id"]
        kinds[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    text_of = {i: t for t, i in pieces.items()}
    if max(text_of) >= vocab:
        raise ValueError(
            f"model.vocab = {vocab} is below the tokenizer's highest id {max(text_of)}: raise it"
        )
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_split(spec))
    writer.add_token_list([text_of.get(i, f"[UNUSED{i}]") for i in range(vocab)])
    writer.add_token_types([kinds.get(i, TokenType.UNUSED) for i in range(vocab)])
    writer.add_token_merges([" ".join(m) for m in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(tokenizer.im_end)
    writer.add_eot_token_id(tokenizer.im_end)
    writer.add_pad_token_id(tokenizer.pad)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def pre_split(spec: dict[str, Any]) -> str:
    """llama.cpp's name of the pre-split in a parsed tokenizer.json. Raises ValueError where it has none."""
    stage = spec.get("pre_tokenizer") or {}
    for step in stage.get("pretokenizers", [stage]):
        pattern = step.get("pattern", {}).get("Regex")
        if pattern in PRE_SPLITS:
            return PRE_SPLITS[pattern]
    raise ValueError("tokenizer.json: its pre-split regex is not Phi-4's; llama.cpp would tokenize otherwise")


def _weights(writer: GGUFWriter, model: Transformer, ftype: FileType) -> None:
    import torch
    from gguf import GGMLQuantizationType

    for name, tensor in fused(model):
        tensor = tensor.to("cpu", torch.float32)
        if tensor.ndim == 1 or ftype == "f32":
            writer.add_tensor(name.gguf, tensor.contiguous().numpy())
        elif ftype == "f16":
            if float(tensor.abs().max()) > _F16_MAX:
                raise ValueError(f"{name.gguf}: a weight is beyond the range of f16: export f32 or bf16")
            writer.add_tensor(name.gguf, tensor.half().contiguous().numpy())
        else:  # numpy has no bf16: its bits go as bytes
            bits = tensor.bfloat16().contiguous().view(torch.uint8).numpy()
            writer.add_tensor(name.gguf, bits, raw_dtype=GGMLQuantizationType.BF16)
