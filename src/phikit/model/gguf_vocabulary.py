"""The tokenizer into a GGUF: byte-level BPE with Phi-4's special tokens (`gguf_tokenizer.py` reads it).

llama.cpp knows pre-split regexes by name only: `dbrx` is Phi-4's (digits in runs of up to three), `qwen2` is the
same regex with single digits. Both were compared with ours string by string.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from phikit.text.chat import TEMPLATE
from phikit.text.splits import SPLIT
from phikit.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

PRE_SPLITS = {SPLIT % 1: "qwen2", SPLIT % 3: "dbrx"}


def add_vocabulary(writer: GGUFWriter, tokenizer: Tokenizer, vocab: int) -> None:
    """Writes the tokens, merges, special ids and chat template. Raises ValueError where an id has no row, or
    where llama.cpp does not know the pre-split."""
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
