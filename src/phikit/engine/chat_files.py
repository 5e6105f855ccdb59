"""How a model's files say that conversations are written: template, special tokens, ends of a turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phikit.engine.gguf_meta import END_NAMES, GgufMeta
from phikit.engine.template import ChatTemplate, FileChat
from phikit.model.hf_config import read_object
from phikit.records.types import Turn
from phikit.text import chat
from phikit.text.tokenizer import Tokenizer


class Spoken:
    """Texts and conversations of an engine that holds its tokenizer; `dialog`: how its files write conversations, None
    for Phi-4's own way."""

    tokenizer: Tokenizer
    dialog: FileChat | None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return chat.stop_ids(self.tokenizer) if self.dialog is None else self.dialog.stop_ids

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def render(self, turns: Sequence[Turn]) -> list[int]:
        if self.dialog is not None:
            return self.dialog.render(turns)
        return list(chat.render(self.tokenizer, turns, open_assistant=True).tokens)


def chat_of_gguf(meta: GgufMeta, tokenizer: Tokenizer) -> FileChat:
    """The GGUF's own template and ends. Raises ValueError that names the file for a template that is no Jinja."""
    return FileChat(
        tokenizer, _template(meta.path, meta.template, meta.bos, meta.eos, tokenizer), meta.stop_ids
    )


def chat_of_folder(folder: Path, tokenizer: Tokenizer) -> FileChat | None:
    """None where the tokenizer has Phi-4's chat format, which `text/chat.py` renders; for any other the template of
    chat_template.jinja or tokenizer_config.json. Raises ValueError that names the file."""
    if tokenizer.is_phi4:
        return None
    config = _optional(folder / "tokenizer_config.json")
    source = config.get("chat_template")
    if isinstance(source, list):  # several templates by name
        named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
        source = named.get("default")
    path = folder / "tokenizer_config.json"
    if (folder / "chat_template.jinja").is_file():
        path = folder / "chat_template.jinja"
        source = path.read_text(encoding="utf-8")
    if source is not None and not isinstance(source, str):
        raise ValueError(f"{path}: chat_template is no text")
    bos, eos = (_text(config.get(f"{name}_token")) for name in ("bos", "eos"))
    ends = {tokenizer.special_ids[t] for t in END_NAMES | {eos} if t in tokenizer.special_ids}
    for file in ("config.json", "generation_config.json"):
        ids = _optional(folder / file).get("eos_token_id")
        ends |= {i for i in (ids if isinstance(ids, list) else [ids]) if type(i) is int and i >= 0}
    return FileChat(tokenizer, _template(path, source, bos, eos, tokenizer), _end_first(ends, eos, tokenizer))


def _end_first(ends: set[int], eos: str, tokenizer: Tokenizer) -> list[int]:
    """The end of a turn first: it is what closes an answer that was written elsewhere."""
    return sorted(ends, key=lambda i: (i != tokenizer.special_ids.get(eos), i))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder with the chat format its files give (none for Phi-4's own)."""
    tokenizer = Tokenizer.load(folder)
    tokenizer.format = chat_of_folder(folder, tokenizer)
    return tokenizer


def _template(
    path: Path, source: str | None, bos: str, eos: str, tokenizer: Tokenizer
) -> ChatTemplate | None:
    if source is None:
        return None
    try:
        return ChatTemplate(source, bos, eos, tuple(tokenizer.special_ids))
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def _text(token: Any) -> str:
    """A special token stands as its text or as an object with `content`."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""
