"""Prompts of a given length in the tokens of the model under test, for the six categories of HELMET (report section
3.3 and table 6). What is built here from local data is called helmet-style, for it is not HELMET's own files.

Everything is a pure function of (seed, task, run): the five runs draw other examples, distractors, places and label
numbers. (HELMET shuffles the examples of its judged sets without a seed.) Where the answer lies is recorded: `depth` is
the share of the documents before it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any

from phikit.evals.task import Item, Row, Source
from phikit.text.fill import DoesNotFit, fill

ITEMS, LABELLED = 100, 500  # items a run; of label tasks
SHOTS = 2
CHAT = 64  # tokens left for a chat template
RECALL_TOKENS, RAG_TOKENS, RANK_TOKENS, LABEL_TOKENS, QA_TOKENS, SUMMARY_TOKENS = 100, 20, 200, 20, 100, 400
EXAMPLE_WORDS = 20  # of a document in an example


def fit(source: Source, room: int, sizes: Sequence[int], least: int, build: Callable[[int], str]) -> str:
    """`fill` in the tokens of the model under test."""
    try:
        return fill(source.count, room, sizes, least, build)
    except DoesNotFit as e:
        raise DoesNotFit(f"a length of {source.length} tokens: {e}; raise it with --set TASK.length=N") from e


def recall(source: Source) -> Iterator[Item]:
    """JSON key-value recall: pairs of random UUIDs, two of them shown as examples, one asked for."""
    room = _room(source, RECALL_TOKENS)

    def one(i: int, depth: float) -> Item:
        rng = source.rng("pairs", i)
        key, value = _uuid(rng), _uuid(rng)
        size = source.count(_pair(key, value) + ",\n")
        pairs = [(key, value), *((_uuid(rng), _uuid(rng)) for _ in range(8 + room // size))]
        told = "".join(f"Key: {k}\nValue: {v}\n\n" for k, v in pairs[1 : 1 + SHOTS])

        def build(n: int) -> str:
            rest = source.rng("order", i).sample(pairs[1:n], n - 1)
            rest.insert(_place(depth, n), (key, value))
            listed = ",\n".join(_pair(k, v) for k, v in rest)
            return (
                "Give the value that belongs to a key of this JSON object.\n\n"
                f"{{{listed}}}\n\n{told}Key: {key}\nValue:"
            )

        return Item(
            id=f"kv-{i}",
            prompt=fit(source, room, [size] * len(pairs), 1 + SHOTS, build),
            reference={"answers": [value], "depth": depth},
            group=_quarter(depth),
            cluster=f"kv-{source.run}-{i}",
        )

    return _those_that_fit(one, enumerate(_depths(source, ITEMS)))


def rag(source: Source) -> Iterator[Item]:
    """Questions with their own paragraphs among paragraphs of other questions (HotpotQA)."""
    room, rows = _room(source, RAG_TOKENS), source.rows("dev")
    asked, rest = rows[:ITEMS], rows[ITEMS:]
    sizes: dict[str, int] = {}

    def one(row: Row, depth: float) -> Item:
        rng = source.rng("documents", row["id"])
        gold, others = _gold(row), _others(rng, row, rest)
        told = "".join(_example(r) for r in rng.sample(rest, SHOTS))

        def build(n: int) -> str:
            listed = _placed(rng, gold, others[: n - len(gold)], depth)
            return (
                "Answer the question from the documents, in a few words and on one line.\n\n"
                f"{told}{_documents(listed)}\n\nQuestion: {row['question']}\nAnswer:"
            )

        return Item(
            id=row["id"],
            prompt=fit(source, room, _sizes(source, [*gold, *others], sizes), len(gold), build),
            reference={"answers": row["answers"], "depth": depth},
            group=_quarter(depth),
            text=row["question"],
        )

    return _those_that_fit(one, zip(asked, _depths(source, len(asked))))


def rerank(source: Source) -> Iterator[Item]:
    """Documents with ids in a random order, to be ranked for a question; those that support its answer are relevant."""
    room, rows = _room(source, RANK_TOKENS), source.rows("dev")
    asked, rest = rows[:ITEMS], rows[ITEMS:]
    sizes: dict[str, int] = {}

    def one(row: Row) -> Item:
        rng = source.rng("documents", row["id"])
        gold, others = _gold(row), _others(rng, row, rest)
        told = "".join(_ranked_example(rng, r) for r in rng.sample(rest, SHOTS))
        labels: dict[str, float] = {}

        def build(n: int) -> str:
            listed = [*gold, *others[: n - len(gold)]]
            rng.shuffle(listed)
            labels.clear()
            labels.update(zip(_names(rng, n), (float(p["gold"]) for p in listed)))
            return (
                "Rank the documents by how well they answer the query, the best first, as ID > ID > ID and so on. Give "
                f"the ten best.\n\n{told}{_named(labels, listed)}\n\nQuery: {row['question']}\nRanking:"
            )

        tokens = [n + 6 for n in _sizes(source, [*gold, *others], sizes)]  # 6: the id before each
        text = fit(source, room, tokens, len(gold), build)
        return Item(id=row["id"], prompt=text, reference={"labels": dict(labels)}, text=row["question"])

    return _those_that_fit(one, ((r,) for r in asked))


def labelled(field: str) -> Callable[[Source], Iterable[Item]]:
    """In-context learning: as many examples as fit, all labels in turn, under integers that mean nothing. The items of
    a run share their examples, so an engine computes them once."""

    def items(source: Source) -> Iterator[Item]:
        room = _room(source, LABEL_TOKENS)
        rows, rng = source.rows("test"), source.rng("examples")
        asked = Random(source.seed).sample(rows, min(LABELLED, len(rows)))
        names = sorted({r[field] for r in source.rows("train")})
        numbers = dict(zip(names, rng.sample(range(len(names)), len(names))))
        examples = _in_turn(rng, source.rows("train"), field)[: room // 4]
        shown = [f"{r['text']}\nlabel: {numbers[r[field]]}\n\n" for r in examples]
        longest = max((r["text"] for r in asked), key=len)

        def build(n: int, text: str = longest) -> str:
            told = "".join(shown[:n][::-1])  # the round that is cut short comes first
            return f"Each text has a label, an integer. Learn them from the examples.\n\n{told}{text}\nlabel:"

        whole = fit(source, room, [source.count(s) for s in shown], 1, build)
        head = whole.removesuffix(f"{longest}\nlabel:")
        for row in asked:
            if row[field] in numbers:
                yield Item(
                    id=row["id"],
                    prompt=f"{head}{row['text']}\nlabel:",
                    reference={"label": numbers[row[field]]},
                    text=row["text"],
                )

    return items


def reading(source: Source) -> Iterator[Item]:
    """A question on one of many passages (DROP), answered freely and judged."""
    room, rows = _room(source, QA_TOKENS + CHAT), source.rows("dev")
    passages = list(dict.fromkeys(_passage(r) for r in rows))
    sizes: dict[str, int] = {}

    def one(row: Row, depth: float) -> Item:
        own, rng = _passage(row), source.rng("passages", row["id"])
        others = rng.sample([p for p in passages if p != own], min(len(passages) - 1, 1 + room // 50))
        question = row["context"][len(row["passage"]) :].partition("Question:")[2]
        question = question.strip().removesuffix("Answer:").strip()

        def build(n: int) -> str:
            listed = list(others[: n - 1])
            listed.insert(_place(depth, n), own)
            return "\n".join(listed) + f"\n\nAnswer this question on the text above: {question}"

        tokens = [_size(source, p, sizes) for p in (own, *others)]
        return Item(
            id=row["id"],
            prompt=fit(source, room, tokens, 1, build),
            reference={"question": question, "answers": row["answers"], "depth": depth},
            group=_quarter(depth),
            cluster=own[:200],
            text=question,
        )

    asked = rows[:ITEMS]
    return _those_that_fit(one, zip(asked, _depths(source, len(asked))))


def summary(source: Source) -> Iterator[Item]:
    """A summary of what many documents say about two subjects (HotpotQA's supporting paragraphs); the key points are
    the sentences of their paragraphs, at most eight."""
    room, rows = _room(source, SUMMARY_TOKENS + CHAT), source.rows("dev")
    asked, rest = rows[:ITEMS], rows[ITEMS:]
    sizes: dict[str, int] = {}

    def one(row: Row, depth: float) -> Item:
        rng = source.rng("documents", row["id"])
        gold, others = _gold(row), _others(rng, row, rest)
        about = " and ".join(p["title"] for p in gold)

        def build(n: int) -> str:
            listed = _placed(rng, gold, others[: n - len(gold)], depth)
            return f"{_documents(listed)}\n\nSummarize what these documents say about {about}."

        points = [x.strip() for p in gold for x in p["text"].split(". ") if len(x) > 20][:8]
        return Item(
            id=row["id"],
            prompt=fit(source, room, _sizes(source, [*gold, *others], sizes), len(gold), build),
            reference={"points": points, "source": _documents(gold), "depth": depth},
            group=_quarter(depth),
            text=_documents(gold),
        )

    return _those_that_fit(one, zip(asked, _depths(source, len(asked))))


def _those_that_fit(one: Callable[..., Item], rows: Iterable[tuple[Any, ...]]) -> Iterator[Item]:
    """Items of rows; rows whose own documents are longer than the room are passed over, and the length is an error
    where that is all of them."""
    none: DoesNotFit | None = None
    found = False
    for row in rows:
        try:
            item = one(*row)
        except DoesNotFit as e:
            none = none or e
            continue
        found = True
        yield item
    if none and not found:
        raise none


def _room(source: Source, tokens: int) -> int:
    """Tokens of the prompt: `length` holds the answer too."""
    assert source.length is not None
    if source.length <= tokens:
        raise ValueError(f"a length of {source.length} tokens leaves no room beside an answer of {tokens}")
    return source.length - tokens


def _depths(source: Source, n: int) -> list[float]:
    """n depths spread evenly over [0, 1), in a random order."""
    rng = source.rng("depths")
    found = [(k + rng.random()) / n for k in range(n)]
    rng.shuffle(found)
    return [round(d, 4) for d in found]


def _place(depth: float, n: int) -> int:
    return min(n - 1, int(depth * n))


def _quarter(depth: float) -> str:
    low = 25 * min(3, int(4 * depth))
    return f"depth {low}-{low + 25} %"


def _uuid(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _pair(key: str, value: str) -> str:
    return f'"{key}": "{value}"'


def _gold(row: Row) -> list[dict[str, Any]]:
    return [p for p in row["passages"] if p["gold"]]


def _others(rng: Random, row: Row, rest: Sequence[Row]) -> list[dict[str, Any]]:
    """The row's own distractors, then paragraphs of other questions, none about the same subject."""
    mine = [p for p in row["passages"] if not p["gold"]]
    rng.shuffle(mine)
    titles = {p["title"] for p in row["passages"]}
    more = {p["title"]: {**p, "gold": False} for r in rest for p in r["passages"] if p["title"] not in titles}
    return [*mine, *rng.sample(list(more.values()), len(more))]


def _placed(rng: Random, gold: Sequence[Any], others: Sequence[Any], depth: float) -> list[dict[str, Any]]:
    """The first that is needed at its depth, the other needed ones anywhere."""
    listed = list(others)
    for p in gold[1:]:
        listed.insert(rng.randint(0, len(listed)), p)
    listed.insert(_place(depth, len(listed) + 1), gold[0])
    return listed


def _document(p: Row) -> str:
    return f"Document ({p['title']}): {p['text']}"


def _documents(listed: Sequence[Row]) -> str:
    return "\n\n".join(_document(p) for p in listed)


def _short(p: Row) -> dict[str, str]:
    return {"title": p["title"], "text": " ".join(p["text"].split()[:EXAMPLE_WORDS])}


def _example(row: Row) -> str:
    listed = _documents([_short(p) for p in _gold(row)])
    return f"{listed}\n\nQuestion: {row['question']}\nAnswer: {row['answers'][0]}\n\n"


def _names(rng: Random, n: int) -> list[str]:
    return [str(x) for x in rng.sample(range(1000, 10000), n)]


def _named(labels: Iterable[str], listed: Sequence[Row]) -> str:
    return "\n\n".join(f"[ID: {name}] {_document(p)}" for name, p in zip(labels, listed))


def _ranked_example(rng: Random, row: Row) -> str:
    """Two relevant documents and one that is not, ranked."""
    listed = [*_gold(row)[:2], *[p for p in row["passages"] if not p["gold"]][:1]]
    rng.shuffle(listed)
    names = _names(rng, len(listed))
    order = sorted(zip(names, listed), key=lambda x: not x[1]["gold"])
    shown = _named(names, [_short(p) for p in listed])
    return f"{shown}\n\nQuery: {row['question']}\nRanking: {' > '.join(n for n, _ in order)}\n\n"


def _in_turn(rng: Random, rows: Sequence[Row], field: str) -> list[Row]:
    """Rows shuffled so that every label comes once before one comes again."""
    by_label: dict[str, list[Row]] = {}
    for r in rows:
        by_label.setdefault(r[field], []).append(r)
    for some in by_label.values():
        rng.shuffle(some)
    out: list[Row] = []
    for k in range(max(map(len, by_label.values()))):
        turn = [some[k] for some in by_label.values() if k < len(some)]
        rng.shuffle(turn)
        out += turn
    return out


def _passage(row: Row) -> str:
    return row["passage"].strip()


def _sizes(source: Source, listed: Sequence[Row], known: dict[str, int]) -> list[int]:
    return [_size(source, _document(p), known) for p in listed]


def _size(source: Source, text: str, known: dict[str, int]) -> int:
    """Tokens of a part and the break after it, counted once."""
    if text not in known:
        known[text] = source.count(text + "\n\n")
    return known[text]
