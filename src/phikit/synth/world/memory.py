"""Verbatim copying, key-value recall and label-the-pattern: skills that need the context, not the weights.

Keys, values and items are syllables. Each is one token of a vocabulary trained on this text, so a document of n
pairs is 3n tokens and "4x the context" is a statement about pairs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

CONSONANTS, VOWELS = "bcdfghjklmnprstvwxyz", "aeiou"
CV = tuple(c + v for c in CONSONANTS for v in VOWELS)
VC = tuple(v + c for v in VOWELS for c in CONSONANTS if c not in "fnst")  # not " if", " as", " is", " at" ...
SYLLABLES = tuple(
    s
    for s in CV + VC
    if s not in ("be", "by", "do", "go", "he", "me", "no", "so", "to", "we", "or", "up", "us")
)
LABELS = ("A", "B", "C")


@dataclass(frozen=True, slots=True)
class Item:
    """`prompt` ends where one more token, ` answer`, is due."""

    prompt: str
    answer: str
    choices: tuple[str, ...] = ()


def echo_text(rng: random.Random, length: int) -> tuple[str, list[tuple[int, int]]]:
    """A list and its verbatim copy, "Copy: ka mo zu.\\nAgain: ka mo zu.", and the span of the copy.

    Every token of the copy asks for "what came after this one before?", which recall asks once per query and
    between noise: copying forms here first, at every seed, and recall is built on it.
    """
    listed = " " + " ".join(rng.sample(SYLLABLES, length))
    text = f"Copy:{listed}.\nAgain:"
    return f"{text}{listed}.", [(len(text), len(text) + len(listed))]


def recall_text(rng: random.Random, pairs: int, queries: int) -> tuple[str, list[tuple[int, int]]]:
    """A training document and the character spans of its answers.

    "Codes: ka mo, zu ti, be ra.\\nAsk: zu ti, ka mo." - a query repeats a key, its value is what the loss is about.
    With more queries than pairs, every key is asked in turn.
    """
    keys, table = _table(rng, pairs)
    text, spans = "Codes:" + _pairs(keys, table) + ".\nAsk:", []
    asked: list[str] = []
    while len(asked) < queries:
        asked += rng.sample(keys, min(queries - len(asked), pairs))
    for j, key in enumerate(asked):
        text += f" {key}"
        spans.append((len(text), len(text) + 1 + len(table[key])))
        text += f" {table[key]}" + ("." if j == len(asked) - 1 else ",")
    return text, spans


def recall_item(rng: random.Random, pairs: int) -> Item:
    """A test item with one query; the asked key is uniform over the document."""
    keys, table = _table(rng, pairs)
    key = rng.choice(keys)
    return Item("Codes:" + _pairs(keys, table) + f".\nAsk: {key}", f" {table[key]}")


def icl_text(rng: random.Random, examples: int) -> tuple[str, list[tuple[int, int]]]:
    """Items with labels that follow a hidden rule: the second syllable decides, and which syllable stands for
    which letter is drawn anew for each document. Answer spans are the labels whose class was seen before."""
    shown = _labelled(rng, examples)
    text, spans, seen = "Sort:", [], set()
    for j, (item, label) in enumerate(shown):
        text += f" {item}"
        if label in seen:
            spans.append((len(text), len(text) + 2))
        seen.add(label)
        text += f" {label}" + ("." if j == len(shown) - 1 else ",")
    return text, spans


def icl_item(rng: random.Random, examples: int) -> Item:
    shown = _labelled(rng, examples + 1)
    while shown[-1][1] not in {label for _, label in shown[:-1]}:
        shown = _labelled(rng, examples + 1)
    text = "Sort:" + ",".join(f" {item} {label}" for item, label in shown[:-1]) + f", {shown[-1][0]}"
    return Item(text, f" {shown[-1][1]}", tuple(f" {x}" for x in LABELS))


def _table(rng: random.Random, pairs: int) -> tuple[list[str], dict[str, str]]:
    if pairs > len(SYLLABLES):
        raise ValueError(f"world: {pairs} recall pairs asked for, but there are only {len(SYLLABLES)} keys")
    keys = rng.sample(SYLLABLES, pairs)
    return keys, {k: rng.choice(SYLLABLES) for k in keys}


def _pairs(keys: list[str], table: dict[str, str]) -> str:
    return ",".join(f" {k} {table[k]}" for k in keys)


def _labelled(rng: random.Random, n: int) -> list[tuple[str, str]]:
    """(item, label) pairs; an item is a noise syllable and a marker, and the marker decides the label."""
    markers = rng.sample(SYLLABLES, len(LABELS))
    label = dict(zip(markers, rng.sample(LABELS, len(LABELS))))
    drawn = [rng.choice(markers) for _ in range(n)]
    return [(f"{rng.choice(SYLLABLES)} {m}", label[m]) for m in drawn]
