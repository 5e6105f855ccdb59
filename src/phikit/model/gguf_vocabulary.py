"""The tokenizer into a GGUF: byte-level BPE with Phi-4's special tokens, or with the chat format that it brings
(`gguf_tokenizer.py` reads it).

llama.cpp knows pre-split regexes by name only: `dbrx` is Phi-4's (digits in runs of up to three), `qwen2` is the
same regex with single digits. Both were compared with ours string by string.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phikit.text.chat import TEMPLATE
from phikit.text.splits import DIGIT, GPT2, PRE, WHOLE_WORDS
from phikit.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter


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
    chat = _chat(tokenizer)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_split(spec))
    writer.add_token_list([text_of.get(i, f"[UNUSED{i}]") for i in range(vocab)])
    writer.add_token_types([kinds.get(i, TokenType.UNUSED) for i in range(vocab)])
    writer.add_token_merges([" ".join(m) for m in tokenizer.merges])
    for key, token in (("bos", chat.bos), ("eos", chat.eos), ("eot", chat.eos), ("pad", chat.pad)):
        if token is not None:
            getattr(writer, f"add_{key}_token_id")(token)
    writer.add_add_bos_token(False)  # a template writes its own
    writer.add_chat_template(chat.template)


@dataclass(frozen=True)
class _Chat:
    bos: int | None
    eos: int
    pad: int | None
    template: str


def _chat(tokenizer: Tokenizer) -> _Chat:
    """Phi-4's chat format, or that which the tokenizer brings."""
    own = tokenizer.format
    if own is None:
        return _Chat(tokenizer.end_of_text, tokenizer.im_end, tokenizer.pad, TEMPLATE)
    if own.source is None or not own.stop_ids:
        raise ValueError("the model has no chat template, or none of its ids ends a turn: a GGUF needs both")
    eos = tokenizer.special_ids.get(own.eos)
    return _Chat(
        tokenizer.special_ids.get(own.bos), eos if eos in own.stop_ids else own.stop_ids[0], None, own.source
    )


def pre_split(spec: dict[str, Any]) -> str:
    """llama.cpp's name of the pre-split in a parsed tokenizer.json. Raises ValueError where it has none."""
    stage = spec.get("pre_tokenizer") or {}
    regexes = tuple(r for step in stage.get("pretokenizers", [stage]) if (r := _regex(step)))
    whole = bool(spec["model"].get("ignore_merges"))
    for name, known in PRE.items():  # of two names for one rule the first: dbrx is Phi-4's
        if known == regexes and (name in WHOLE_WORDS) == whole:
            return name
    raise ValueError(
        "tokenizer.json: its pre-split regex is not Phi-4's, nor another that llama.cpp has a name for: it would "
        "tokenize otherwise"
    )


def _regex(step: dict[str, Any]) -> str | None:
    """The regex that a step of a pre-split cuts by; None for one that does not cut."""
    if step.get("type") == "Digits" and step.get("individual_digits"):
        return DIGIT
    if step.get("type") == "ByteLevel":
        return GPT2 if step.get("use_regex", True) else None
    return (step.get("pattern") or {}).get("Regex")
