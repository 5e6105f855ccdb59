"""Rows of preference pairs for DPO, and the reference log-probabilities computed once before training.

The trainer holds one model: what the reference said of each response is a column of numbers, computed by the
model that enters the stage with the same code that trains (design section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from phikit.jobs.progress import bar
from phikit.mixture.loader import Batch, finish
from phikit.mixture.shards import WEIGHT_SCALE
from phikit.model.transformer import Transformer
from phikit.records.ids import seed_of
from phikit.records.types import Preference
from phikit.text import chat
from phikit.text.tokenizer import Tokenizer
from phikit.train.objectives import PairBatch, response_logprobs

ROUND_TO = 16  # row lengths are multiples of this, so that few shapes occur


class PairRows:
    """Row 2i is the chosen side of pair i of the epoch's order, row 2i + 1 the rejected side."""

    def __init__(self, pairs: Sequence[Preference], tokenizer: Tokenizer, context: int, seed: int) -> None:
        """Raises ValueError for no pairs, or for a pair that does not fit `context`."""
        if not pairs:
            raise ValueError("there are no preference pairs to train on")
        self.seed, self.pad, self.pairs = seed, tokenizer.pad, len(pairs)
        self.rows: list[tuple[list[int], int]] = []  # (ids, where the response begins)
        for pair in pairs:
            prompt = [*chat.render(tokenizer, pair.prompt, open_assistant=True).tokens, *pair.prefix_ids]
            for response in (pair.chosen_ids, pair.rejected_ids):
                ids = [*prompt, *response]
                if len(ids) > context:
                    raise ValueError(f"pair {pair.id}: {len(ids)} tokens do not fit the context of {context}")
                self.rows.append((ids, len(prompt)))
        self.reference = np.zeros(len(self.rows), dtype=np.float32)

    def batch(self, first: int, count: int) -> PairBatch:
        rows = [r for i in range(first // 2, (first + count) // 2) for r in self._pair(i)]
        return self._batch(rows)

    def add_reference(self, model: Transformer, at_once: int = 64) -> None:
        """Fills `reference` from `model`, in fp32."""
        model.eval()
        order = sorted(range(len(self.rows)), key=lambda r: len(self.rows[r][0]))
        with torch.no_grad(), bar("reference log-probs", total=len(order), unit="rows") as b:
            for a in range(0, len(order), at_once):
                part = order[a : a + at_once]
                self.reference[part] = response_logprobs(model, self._batch(part))[0].numpy()
                b.advance(len(part))

    def _pair(self, i: int) -> tuple[int, int]:
        epoch, k = divmod(i, self.pairs)
        order = np.random.default_rng(seed_of(self.seed, "pairs", epoch)).permutation(self.pairs)
        return 2 * int(order[k]), 2 * int(order[k]) + 1

    def _batch(self, rows: Sequence[int]) -> PairBatch:
        longest = max(len(self.rows[r][0]) for r in rows)
        shape = (len(rows), -(-longest // ROUND_TO) * ROUND_TO)
        tokens = np.full(shape, self.pad, dtype=np.int64)
        own = np.zeros(shape, dtype=np.float32)
        segment = np.full(shape, -1, dtype=np.int64)
        position = np.zeros(shape, dtype=np.int64)
        for b, r in enumerate(rows):
            ids, start = self.rows[r]
            tokens[b, : len(ids)], segment[b, : len(ids)] = ids, 0
            own[b, start : len(ids)] = WEIGHT_SCALE
            position[b, : len(ids)] = np.arange(len(ids))
        plain: Batch = finish(tokens, own, segment, position, ("pairs",) * len(rows))
        return PairBatch(
            plain.tokens, plain.targets, plain.weight, plain.segment, plain.position, plain.source,
            reference=torch.from_numpy(self.reference[list(rows)]),
        )  # fmt: skip
