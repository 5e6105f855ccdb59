"""Preference pairs as trees: what chosen, rejected and other pairs of the same prompt share is computed once.

A sequence is prompt, prefix and all but the last token of a response (the last one is only predicted, never
read). The sequences of one prompt form a tree (`train/trees.py`). Of a pivotal pair nothing but the prefix is
left: its two tokens are read from one row of logits, and the pairs along one answer share one forward pass. A
whole-answer pair is [prompt | chosen branch | rejected branch], and an answer that is in several pairs is computed
once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from phikit.model.attention import Ragged
from phikit.model.documents import copied
from phikit.records.ids import seed_of
from phikit.records.types import Preference
from phikit.text import chat
from phikit.text.tokenizer import Tokenizer
from phikit.train.trees import Rows, filler, grow, lay_queries, lay_rows, plan_rows


@dataclass(frozen=True)
class TreeBatch:
    """One forward pass of P pairs: n nodes of trees and filler, the tokens whose log-probabilities are wanted, and
    the R distinct responses that they add up to."""

    tokens: torch.Tensor  # [1, n]
    position: torch.Tensor  # [1, n]
    rows: Ragged  # the trees, for attention
    nodes: torch.Tensor  # [N] nodes that predict something, ascending
    asked: Ragged  # the trees asked by `nodes` alone, for the last block
    at: torch.Tensor  # [S] which of `nodes` predicts the token, ascending
    targets: torch.Tensor  # [S] the token
    response: torch.Tensor  # [S] whose token it is, 0 .. R - 1
    sides: torch.Tensor  # [P, 2] the chosen and the rejected response of each pair
    lengths: torch.Tensor  # [P, 2] their tokens
    reference: torch.Tensor  # [P, 2] their log-probabilities under the model that entered the stage
    which: np.ndarray  # [P] the pairs' numbers in the file
    size: int  # nodes of trees
    responses: int  # R

    def to(self, device: torch.device) -> TreeBatch:
        if device.type == "cpu":
            return self
        return _moved(self, device)


def _moved(record: Any, device: torch.device) -> Any:
    """A record with its tensors, and those of the records in it, on `device`."""
    found = {}
    for f in (f for f in fields(record) if f.init):
        value = getattr(record, f.name)
        if isinstance(value, torch.Tensor):
            found[f.name] = copied(value, device)
        elif isinstance(value, Ragged):
            found[f.name] = _moved(value, device)
    return replace(record, **found)


PROMPTS = 16  # whose trees are measured at once: a table of all their sequences is built


class PairRows:
    """The pairs of a stage and their order. An epoch draws the order of the prompts; pairs of one prompt stay
    together (in the order of the file), so that they share a forward pass."""

    def __init__(self, pairs: Sequence[Preference], tokenizer: Tokenizer, context: int, seed: int) -> None:
        """Raises ValueError for no pairs, or for a pair that does not fit `context`."""
        if not pairs:
            raise ValueError("there are no preference pairs to train on")
        self.seed, self.context = seed, context
        self.sides: list[
            tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
        ] = []  # context, two responses
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, pair in enumerate(pairs):
            prompt = tuple(chat.render(tokenizer, pair.prompt, open_assistant=True).tokens)
            longest = len(prompt) + len(pair.prefix_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))
            if longest > context:
                raise ValueError(f"pair {pair.id}: {longest} tokens do not fit the context of {context}")
            if not pair.chosen_ids or not pair.rejected_ids:
                raise ValueError(f"pair {pair.id}: a side has no tokens")
            self.sides.append((prompt + pair.prefix_ids, pair.chosen_ids, pair.rejected_ids))
            groups.setdefault(prompt, []).append(i)
        self.groups = [np.asarray(g) for g in groups.values()]
        self.group_of = np.empty(len(pairs), dtype=np.int64)
        for k, g in enumerate(self.groups):
            self.group_of[g] = k
        self.reference = np.zeros((len(pairs), 2), dtype=np.float32)
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.sides)

    def batch(self, first: int, count: int) -> PairBatch:
        """Pairs first .. first + count - 1 of the endless order."""
        return PairBatch(self, np.asarray([self._number(i) for i in range(first, first + count)]))

    def all(self) -> PairBatch:
        """Every pair once, in the order of the file."""
        return PairBatch(self, np.arange(len(self)))

    def _number(self, i: int) -> int:
        epoch, k = divmod(i, len(self))
        if self._epoch[0] != epoch:
            order = np.random.default_rng(seed_of(self.seed, "pairs", epoch)).permutation(len(self.groups))
            self._epoch = epoch, np.concatenate([self.groups[g] for g in order])
        return int(self._epoch[1][k])


class PairBatch:
    """The pairs of one optimizer step, or of the reference pass."""

    source = ("pairs",)

    def __init__(self, rows: PairRows, which: np.ndarray) -> None:
        self.rows, self.which = rows, which

    def __len__(self) -> int:
        return len(self.which)

    def parts(self, micro: int) -> Iterator[TreeBatch]:
        return map(self.part, self.plan(micro))

    def plan(self, micro: int) -> list[list[np.ndarray]]:
        """The pairs of each row of each forward pass. A pass has at most `micro` x context tokens (one row, where a row
        is larger); the pairs of a prompt are never split, and prompts in one pass share their common beginning too."""
        group = self.rows.group_of[self.which]
        numbers = [self.which[group == g] for g in dict.fromkeys(group.tolist())]
        sizes = [n for a in range(0, len(numbers), PROMPTS) for n in self._sizes(numbers[a : a + PROMPTS])]
        room, used = micro * self.rows.context, 0
        passes: list[list[np.ndarray]] = []
        for row in plan_rows(sizes, 0):
            size = sum(sizes[k] for k in row)
            if not passes or used + size > room:
                passes.append([])
                used = 0
            passes[-1].append(np.concatenate([numbers[k] for k in row]))
            used += size
        return passes

    def _sizes(self, numbers: list[np.ndarray]) -> Iterator[int]:
        """Nodes of the trees of some prompts, given their pairs."""
        whole = self._responses(np.concatenate(numbers))
        _, paths = grow(whole.sequences)
        return (len(nodes) for nodes in _rows_nodes(numbers, whole, paths))

    def _responses(self, which: np.ndarray) -> _Responses:
        return _Responses([self.rows.sides[i] for i in which])

    def part(self, numbers: list[np.ndarray]) -> TreeBatch:
        """One forward pass; `numbers`: the pairs of each row."""
        which = np.concatenate(numbers)
        whole = self._responses(which)
        forest, paths = grow(whole.sequences)
        node = np.concatenate([path[a:] for path, a in zip(paths, whole.starts)])
        order = np.argsort(node, kind="stable")
        nodes, at = np.unique(node[order], return_inverse=True)
        fill = filler(len(forest))
        every = forest.beside(fill)
        filled = [np.arange(len(forest), len(every))] if len(fill) else []
        rows = lay_rows(every, [*filled, *_rows_nodes(numbers, whole, paths)])
        asked = _ragged(rows, *lay_queries(rows, nodes))
        t = torch.from_numpy
        return TreeBatch(
            t(every.tokens)[None], t(every.position)[None], _ragged(rows), t(nodes), asked, t(at),
            t(whole.target[order]), t(whole.response[order]), t(whole.sides), t(whole.lengths[whole.sides]),
            t(self.rows.reference[which]), which, len(forest), int(whole.response.max()) + 1,
        )  # fmt: skip


def _rows_nodes(
    numbers: list[np.ndarray], whole: _Responses, paths: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """For the pairs of each row, which follow one another in `whole`: the nodes, ascending, of their sequences."""
    end = 0
    for n in numbers:
        begin, end = end, end + len(n)
        used = set(whole.sides[begin:end].ravel().tolist())
        yield np.unique(np.concatenate([paths[i] for i in used]))


def _ragged(
    rows: Rows,
    query: np.ndarray | None = None,
    place: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> Ragged:
    """Without `query` all nodes ask, each from its slot."""
    mask = rows.mask if mask is None else mask
    token, slot, again = (torch.from_numpy(x) for x in (rows.token, rows.slot, rows.again))
    bias = torch.from_numpy(np.where(mask[:, None], np.float32(0), np.float32(-np.inf)))
    if query is None or place is None:
        return Ragged(token, slot, again, token, slot, bias)
    return Ragged(token, slot, again, torch.from_numpy(query), torch.from_numpy(place), bias)


class _Responses:
    """The distinct responses of some pairs, and the sequences that are read to predict them."""

    def __init__(self, pairs: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]) -> None:
        self.known: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}  # (context, response) -> number
        self.sides = np.asarray(
            [[self.known.setdefault((c, r), len(self.known)) for r in two] for c, *two in pairs]
        )
        self.sequences = [np.asarray((*c, *r[:-1]), dtype=np.int64) for c, r in self.known]
        self.starts = [len(c) - 1 for c, _ in self.known]  # from here on a response is predicted
        responses = [np.asarray(r, dtype=np.int64) for _, r in self.known]
        self.lengths = np.asarray([len(r) for r in responses], dtype=np.float32)
        self.target = np.concatenate(responses)
        self.response = np.repeat(np.arange(len(responses)), [len(r) for r in responses])
