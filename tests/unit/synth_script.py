"""A teacher that says what it is told, for the tests of synth."""

import asyncio
import json

from phikit.ask.budget import BudgetExhausted
from phikit.records import Document


class Reply:
    def __init__(self, text, key, finish="stop", replayed=False):
        self.text, self.key, self.finish, self.replayed = text, key, finish, replayed


class Script:
    """One item (a text, a JSON value, or a list of n texts) for each call, in order."""

    def __init__(self, *items, budget=10**9, holds=True):
        self.holds = holds  # an endpoint cannot be held to a grammar
        self.items, self.asked, self.options, self.roles = list(items), [], [], []
        self.budget, self._role = budget, "writer"

    def role(self, name):
        self._role = name
        return self

    async def chat(self, turns, *, n=1, **options):
        if len(self.asked) >= self.budget:
            raise BudgetExhausted("the budget is spent")
        self.asked.append(turns)
        self.options.append(options)
        self.roles.append(self._role)
        item = self.items.pop(0)
        item = json.dumps(item) if isinstance(item, dict) else item
        texts = item if isinstance(item, list) else [item] * n
        return [Reply(t, f"k{len(self.asked)}.{i}") for i, t in enumerate(texts)]

    def run(self, flow):
        return asyncio.run(flow)

    def counts(self):
        return {"asked": len(self.asked), "replayed": 0, "tokens": 10 * len(self.asked)}


def go(flow, seed, *items, holds=True, **options):
    return asyncio.run(flow(seed, Script(*items, holds=holds), **options))


def reasons(outcome):
    return [r for r, _ in outcome.rejected]


def passage(text, source="text"):
    return Document(text, source)
