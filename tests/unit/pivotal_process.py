"""A random process whose p(success) is known at every prefix: an infinite tree of tokens, made lazily from a seed.

Every node has a probability p of a right answer and a few next tokens, whose own p average to it. Most tokens are
sure, some are wording (several tokens, p hardly moves), a few are decisive. It is an engine, so a search runs on it
unchanged.
"""

from __future__ import annotations

import math
from bisect import bisect
from dataclasses import dataclass

from phikit.engine.base import Counter, EngineInfo
from phikit.records.types import Completion

RIGHT, WRONG, EOT = 90, 91, 99
VOCAB = 100


MASK = (1 << 64) - 1


class Mix:
    """A small generator that is cheap to seed (splitmix64)."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def bits(self) -> int:
        self.state = x = (self.state + 0x9E3779B97F4A7C15) & MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    def random(self) -> float:
        return (self.bits() >> 11) * 2.0**-53

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.random()


@dataclass(slots=True)
class Node:
    p: float
    seed: int
    depth: int
    tokens: list[int] | None = None
    cdf: list[float] | None = None
    probability: list[float] | None = None
    children: list | None = None


class Process:
    """`shape`: length of an answer, share of wording tokens, share of decisive tokens, size of their changes. `alike`:
    how often a token's id tells what it does in every question (a few ids for what is decisive, a few for slips, for
    wording, for the rest); else it is any id. Prompts are [1, number of the question]."""

    def __init__(
        self, seed=0, length=30, wording=0.15, decisive=0.08, size=0.9, start=(0.3, 0.7), paths=0, slips=0.0,
        alike=0.0,
    ) -> None:  # fmt: skip
        self.info = EngineInfo("process", 4 * length, VOCAB, "scripted")
        self.seed, self.length, self.wording, self.decisive, self.size = seed, length, wording, decisive, size
        self.start, self.used, self.roots = start, Counter(), {}
        self.paths, self.slips, self.alike = paths, slips, alike
        self.asked = []

    usage = property(lambda self: self.used.usage())
    stop_ids = (EOT,)

    def render(self, turns):
        return [1, int(turns[0].content)]

    def decode(self, ids):
        return " ".join(str(i) for i in ids if i != EOT)

    def encode(self, text): ...
    def score(self, requests): ...
    def close(self): ...

    def p(self, question: int, prefix) -> float:
        """The exact p(success) after a prefix."""
        return self.walk(question, prefix).p

    def walk(self, question: int, prefix) -> Node:
        node = self.roots.get(question)
        if node is None:
            r = Mix(self.seed * 1_000_003 + question)
            node = self.roots[question] = Node(r.uniform(*self.start), r.bits(), 0)
            if self.paths:
                self.fan(node, r)
        for t in prefix:
            self.grow(node)
            node = node.children[node.tokens.index(t)]
        return node

    def fan(self, node: Node, r: Mix) -> None:
        """A first token that chooses a path: most paths nearly always succeed or nearly always fail."""
        weights = [r.uniform(0.3, 1) for _ in range(self.paths)]
        share = [w / sum(weights) for w in weights]
        ps = [r.uniform(0.0, 0.12) if r.random() < 0.5 else r.uniform(0.75, 1.0) for _ in share]
        node.p = sum(a * b for a, b in zip(share, ps))
        self.link(node, r, [(5 + i, a, b) for i, (a, b) in enumerate(zip(share, ps))])

    def link(self, node: Node, r: Mix, options: list) -> None:
        node.tokens = [t for t, _, _ in options]
        node.probability = [q for _, q, _ in options]
        node.cdf = [sum(node.probability[: i + 1]) for i in range(len(options))]
        node.children = [Node(c, r.bits(), node.depth + 1) for _, _, c in options]

    def grow(self, node: Node) -> None:
        if node.tokens is not None:
            return
        r = Mix(node.seed)
        p = node.p
        if node.depth > self.length:
            options = []
        elif node.depth == self.length:
            options = [(RIGHT, p, 1.0), (WRONG, 1 - p, 0.0)]
        else:
            u = r.random()
            if u < self.decisive:
                options = self.split(r, p, r.uniform(0.25, 0.75), self.size * r.uniform(-1, 1), 0)
            elif u < self.decisive + self.slips:  # the rarer token nearly always fails
                share = r.uniform(0.8, 0.99)
                options = self.split(r, p, share, p / share - 0.02, 1)
            elif u < self.decisive + self.slips + self.wording:
                options = self.split(r, p, r.uniform(0.2, 0.8), r.uniform(-0.06, 0.06), 2)
            else:
                options = self.split(r, p, r.uniform(0.93, 0.999), r.uniform(-0.3, 0.3), 3)
        options = [x for x in options if x[1] > 0] or [(EOT, 1.0, p)]
        self.link(node, r, options)

    def split(self, r, p, share, d, role):
        """Two or three tokens: the first has `share`, and its p is d above that of the others, as far as p allows."""
        high = min((1 - p) / (1 - share), p / share) if d > 0 else min(p / (1 - share), (1 - p) / share)
        d = math.copysign(min(abs(d), high), d)
        first, rest = p + (1 - share) * d, p - share * d
        first, rest = min(1.0, max(0.0, first)), min(1.0, max(0.0, rest))
        base = 5 + r.bits() % 50
        if self.alike and r.random() < self.alike:
            base = 60 + 6 * role + 3 * (base % 2)
        if r.random() < 0.5:
            return [(base, share, first), (base + 1, 1 - share, rest)]
        part = r.uniform(0.3, 0.7) * (1 - share)
        return [(base, share, first), (base + 1, part, rest), (base + 2, 1 - share - part, rest)]

    def generate(self, requests):
        seen = set()
        for i, r in enumerate(requests):
            self.asked.append((r.prompt, r.seed))
            if r.prompt not in seen:
                self.used.prefilled += len(r.prompt)
                seen.add(r.prompt)
            yield i, [self.sample(r, j) for j in range(r.n)]

    def sample(self, request, j):
        draw = Mix(request.seed + j * 7_919).random
        node = self.walk(request.prompt[1], request.prompt[2:])
        tokens, logprobs = [], []
        finish = "length"
        while len(tokens) < request.max_tokens:
            if node.tokens is None:
                self.grow(node)
            k = min(bisect(node.cdf, draw()), len(node.tokens) - 1) if len(node.tokens) > 1 else 0
            tokens.append(node.tokens[k])
            logprobs.append(math.log(node.probability[k]))
            node = node.children[k]
            if tokens[-1] == EOT:
                finish = "stop"
                break
        self.used.generated += len(tokens)
        return Completion(self.decode(tokens), tuple(tokens), tuple(logprobs), finish)


def check(question, text):
    return str(RIGHT) in text.split()
