"""Phi-4's chat format as spans: what the model reads and what it is trained on.

`<|im_start|>role<|im_sep|>content<|im_end|>` for each turn, no newlines, no begin-of-text (facts section
2.4). The loss covers the content and the end-of-turn token of assistant turns: a model that never sees the
end token in its loss never stops, the most repeated SFT bug of the peers.
"""

from __future__ import annotations

from collections.abc import Sequence

from phikit.records.types import Turn
from phikit.text.chat_format import Rendered
from phikit.text.tokenizer import Tokenizer

__all__ = ["TEMPLATE", "Rendered", "header", "pad_id", "render", "stop_ids"]

# The fixed Hugging Face template (facts section 2.4): roles outside these three are skipped.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] in ['system', 'user', 'assistant'] %}"
    "{{ '<|im_start|>' + message['role'] + '<|im_sep|>' + message['content'] + '<|im_end|>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)


def render(tokenizer: Tokenizer, turns: Sequence[Turn], *, open_assistant: bool = False) -> Rendered:
    """Tokens and loss spans of a conversation; with `open_assistant` an assistant header ends it. A tokenizer that
    brings a format of its own (another model's) writes it so."""
    if tokenizer.format is not None:
        return tokenizer.format.rendered(turns, open_assistant=open_assistant)
    tokens: list[int] = []
    train: list[bool] = []

    def put(ids: Sequence[int], trained: bool) -> None:
        tokens.extend(ids)
        train.extend([trained] * len(ids))

    for turn in turns:
        if turn.role not in ("system", "user", "assistant"):
            continue
        put(header(tokenizer, turn.role), False)
        put(tokenizer.encode(turn.content), turn.role == "assistant")
        put([tokenizer.im_end], turn.role == "assistant")
    if open_assistant:
        put(header(tokenizer, "assistant"), False)
    return Rendered(tuple(tokens), tuple(train))


def header(tokenizer: Tokenizer, role: str) -> list[int]:
    return [tokenizer.im_start, *tokenizer.encode(role), tokenizer.im_sep]


def stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What ends an answer: end of turn, and end of text as a guard (facts section 2.4)."""
    if tokenizer.format is not None:
        return tokenizer.format.stop_ids
    return tokenizer.im_end, tokenizer.end_of_text


def pad_id(tokenizer: Tokenizer) -> int:
    """What fills the end of a row of training; no loss and no attention sees it."""
    return tokenizer.pad if tokenizer.format is None else 0
