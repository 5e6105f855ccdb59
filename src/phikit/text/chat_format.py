"""How conversations are written, where a model's own files say so and it is not Phi-4's format (`chat.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from phikit.records.types import Turn


@dataclass(frozen=True, slots=True)
class Rendered:
    """`train[i]` tells whether token i is a target of the loss."""

    tokens: tuple[int, ...]
    train: tuple[bool, ...]


class ChatFormat(Protocol):
    """What a tokenizer that is not Phi-4's brings along. `stop_ids` end an assistant turn; `source` is the Jinja text
    of its template (None: a base model), `bos` and `eos` are special tokens, "" where there is none."""

    stop_ids: tuple[int, ...]

    @property
    def source(self) -> str | None: ...

    @property
    def bos(self) -> str: ...

    @property
    def eos(self) -> str: ...

    def rendered(self, turns: Sequence[Turn], *, open_assistant: bool = False) -> Rendered: ...
