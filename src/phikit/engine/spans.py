"""Which tokens of a conversation the assistant said, for any chat template: what the template adds when a turn of the
assistant follows an open header.

The tokens up to the open header are exactly those of a request, and what follows is tokenized apart, as a model
that answers gives it. The loss covers an answer and the id that ends it, not the line break some templates add.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from phikit.records.types import Turn
from phikit.text.chat_format import Rendered

if TYPE_CHECKING:
    from phikit.engine.template import FileChat

Pieces = list[tuple[str, bool]]  # text, and whether special-token strings in it are tokens


def rendered(chat: FileChat, turns: Sequence[Turn], open_assistant: bool) -> Rendered:
    """Raises ValueError where the model has no template, the template writes a turn otherwise when more follow, or it
    ends an answer with none of the stop ids."""
    whole = _pieces(chat, turns, open_assistant)
    cuts: list[tuple[int, int]] = []  # the answers' spans in characters
    for k, turn in enumerate(turns):
        if turn.role == "assistant":
            before = _text(_pieces(chat, turns[:k], True))
            last = k == len(turns) - 1 and not open_assistant
            after = _text(whole) if last else _text(_pieces(chat, turns[: k + 1], False))
            if not after.startswith(before) or not _text(whole).startswith(after):
                raise ValueError(
                    f"the model's chat template writes turn {k + 1} otherwise when it answers or more turns follow: "
                    "it cannot be told what to train on; give dialogs of one question and one answer"
                )
            cuts.append((len(before), len(after)))
    tokens: list[int] = []
    train: list[bool] = []
    for answer, pieces in _cut(whole, cuts):
        ids = chat.encode_pieces(pieces)
        ends = [n + 1 for n, i in enumerate(ids) if i in chat.stop_ids]
        if answer and not ends:
            raise ValueError(
                "the model's chat template ends an answer with none of the ids that end a turn "
                f"({list(chat.stop_ids)}): a model trained on it would never stop; set eos_token_id in its "
                "generation_config.json"
            )
        tokens += ids
        train += [answer and n < ends[-1] for n in range(len(ids))]
    return Rendered(tuple(tokens), tuple(train))


def _pieces(chat: FileChat, turns: Sequence[Turn], open_assistant: bool) -> Pieces:
    if chat.template is None:
        raise ValueError(
            "the model has no chat template: it is a base model; name a Jinja file of one in `init.template`"
        )
    messages = [{"role": t.role, "content": t.content} for t in turns]
    return list(chat.template.render_messages(messages, open_turn=open_assistant))


def _text(pieces: Pieces) -> str:
    return "".join(text for text, _ in pieces)


def _cut(pieces: Pieces, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[bool, Pieces]]:
    """The pieces between the ends of spans; True for what lies in one."""
    at = 0
    for first, last in spans:
        yield False, _between(pieces, at, first)
        yield True, _between(pieces, first, last)
        at = last
    yield False, _between(pieces, at, len(_text(pieces)))


def _between(pieces: Pieces, first: int, last: int) -> Pieces:
    found, at = [], 0
    for text, special in pieces:
        part = text[max(first - at, 0) : max(last - at, 0)]
        if part:
            found.append((part, special))
        at += len(text)
    return found
