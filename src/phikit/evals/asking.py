"""Requests of prompts, and their answers from an engine or the journal.

Log-likelihood requests are sorted by their ids and asked some thousand at a time, so that those which share examples
stand together and a kill costs little; an engine computes what they share once. Generation is one call a task: the
engine's batch stays full, and an answer is on disk as soon as it is finished."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phikit.engine.base import Engine, GenRequest, ScoreRequest
from phikit.evals.journal import Journal
from phikit.evals.prompts import Prompt
from phikit.evals.task import Answer, Choices, Generate, Task
from phikit.jobs.progress import Bar
from phikit.records.ids import canonical_json, content_id, seed_of

SCORES = 2048  # requests scored between two writes of the journal


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer that is wanted: a prompt, which run it belongs to, and its requests (one for each choice, or one
    sample). `keys` name them in the journal. No requests: the prompt does not fit the model's context."""

    task: Task
    prompt: Prompt
    run: int
    keys: tuple[str, ...]
    scores: tuple[ScoreRequest, ...] = ()
    request: GenRequest | None = None
    tokens: int = 0  # of the prompt

    @property
    def fits(self) -> bool:
        return bool(self.keys)


def continuations(
    engine: Engine, context: str, texts: Sequence[str], blanks: str | None = None
) -> tuple[ScoreRequest, ...]:
    """Each of `texts` after `context` as plain text, tokenized together: continuation = encode(context + text) from the
    length of encode(context) on, as lm-eval does. White space at the end of the context (of `blanks`, any by default)
    belongs to the continuation."""
    bare = context.rstrip(blanks)
    head = engine.encode(bare)
    found = []
    for text in texts:
        whole = engine.encode(context + text)
        if not head or len(whole) <= len(head):
            raise ValueError(f"nothing to score: context {context[-200:]!r}, continuation {text!r}")
        found.append(ScoreRequest(tuple(whole[: len(head)]), tuple(whole[len(head) :])))
    return tuple(found)


def windows(ids: Sequence[int], size: int) -> list[ScoreRequest]:
    """Requests that score every id but the first once, in windows of `size` ids that overlap by one."""
    return [
        ScoreRequest(tuple(ids[at : at + 1]), tuple(ids[at + 1 : at + size]))
        for at in range(0, len(ids) - 1, size - 1)
    ]


def requests(task: Task, prompts: Sequence[Prompt], engine: Engine, model: str, seed: int) -> list[Asked]:
    """What is asked for the prompts. A sample's seed depends on the task, item and run alone, so two models draw common
    random numbers."""
    if isinstance(task.output, Choices):
        return [_choices(task, task.output, p, engine, model) for p in prompts]
    return [a for p in prompts for a in _samples(task, task.output, p, engine, model, seed)]


def answer(
    engine: Engine, asked: Sequence[Asked], journal: Journal, bar: Bar, *, scores: int = SCORES
) -> list[Answer]:
    """Answers in order. Raises what the engine raises; what was answered before is in the journal."""
    wanted: dict[str, ScoreRequest] = {}
    samples: dict[str, dict[str, GenRequest]] = {}
    for a in asked:
        missing = [k for k in a.keys if journal.get(k) is None]
        bar.advance(len(a.keys) - len(missing))
        for key in missing:
            if a.request is not None:
                samples.setdefault(a.task.name, {})[key] = a.request
            else:
                wanted[key] = a.scores[a.keys.index(key)]
    _score(engine, wanted, journal, bar, scores)
    failed: dict[str, Answer] = {}
    for some in samples.values():
        failed |= _generate(engine, some, journal, bar)
    return [failed.get(a.keys[0]) or _read(a, journal) if a.fits else Answer() for a in asked]


def _choices(task: Task, output: Choices, p: Prompt, engine: Engine, model: str) -> Asked:
    scores = continuations(engine, p.text, [output.delimiter + c for c in p.item.choices])
    tokens = max(len(s.context) for s in scores)
    if max(len(s.context) + len(s.continuation) for s in scores) > engine.info.context:
        return Asked(task, p, 0, (), tokens=tokens)
    keys = tuple(_key(model, "score", s.context, s.continuation, ()) for s in scores)
    return Asked(task, p, 0, keys, scores=scores, tokens=tokens)


def _samples(
    task: Task, output: Generate, p: Prompt, engine: Engine, model: str, seed: int
) -> Iterable[Asked]:
    ids = engine.render(p.turns()) if output.chat else engine.encode(p.text)
    for run in range(task.runs) if p.run < 0 else (p.run,):
        yield sample(
            task, output, p, ids, run, engine, model, seed_of(seed, "eval", task.name, p.item.id, run)
        )


def sample(
    task: Task,
    output: Generate,
    p: Prompt,
    prompt: Sequence[int],
    run: int,
    engine: Engine,
    model: str,
    seed: int,
) -> Asked:
    """One answer to these ids."""
    ids = tuple(prompt)
    r = GenRequest(
        ids, output.max_tokens, 1, output.temperature, output.top_p, tuple(engine.stop_ids), output.stop,
        seed if output.temperature else 0,
    )  # fmt: skip
    how = (r.max_tokens, r.temperature, r.top_p, r.stop, r.seed)
    keys = (_key(model, "generate", ids, (), how),) if len(ids) + 1 <= engine.info.context else ()
    return Asked(task, p, run, keys, request=r, tokens=len(ids))


def _key(
    model: str, kind: str, context: Sequence[int], continuation: Sequence[int], how: Sequence[Any]
) -> str:
    ids = " ".join(map(str, context)), " ".join(map(str, continuation))
    return content_id(model, kind, *ids, canonical_json(list(how)))


def _score(
    engine: Engine, wanted: Mapping[str, ScoreRequest], journal: Journal, bar: Bar, scores: int
) -> None:
    order = sorted(wanted, key=lambda k: (wanted[k].context, wanted[k].continuation))
    for at in range(0, len(order), scores):
        keys = order[at : at + scores]
        for key, s in zip(keys, engine.score([wanted[k] for k in keys]), strict=True):
            if not math.isfinite(s.logprob):
                raise ValueError(
                    f"{engine.info.name} gives a log-probability of {s.logprob}: its weights are damaged"
                )
            journal.put(key, {"logprob": s.logprob, "greedy": s.greedy, "tokens": s.tokens})
        bar.advance(len(keys))


def _generate(
    engine: Engine, wanted: Mapping[str, GenRequest], journal: Journal, bar: Bar
) -> dict[str, Answer]:
    """Answers that failed (an endpoint's error); they are not in the journal, so a later run asks again."""
    keys, failed = list(wanted), {}
    for index, (c,) in engine.generate([wanted[k] for k in keys]):
        if c.finish == "error":
            failed[keys[index]] = Answer(c.text, c.finish)
        else:
            journal.put(keys[index], {"text": c.text, "finish": c.finish, "tokens": len(c.tokens)})
        bar.advance()
    return failed


def _read(a: Asked, journal: Journal) -> Answer:
    rows = [journal.get(k) for k in a.keys]
    found = [r for r in rows if r is not None]
    assert len(found) == len(a.keys)
    if a.request is not None:
        return Answer(found[0]["text"], found[0]["finish"], found[0]["tokens"])
    return Answer(
        tokens=sum(r["tokens"] for r in found),
        logprobs=tuple(r["logprob"] for r in found),
        greedy=tuple(r["greedy"] for r in found),
    )
