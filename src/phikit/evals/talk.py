"""Conversations of the model under test with a simulated user (report section 7: a model plays the user and grades)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from phikit.ask.teacher import Teacher
from phikit.engine.base import Engine
from phikit.evals.asking import Asked, answer, sample
from phikit.evals.journal import Journal
from phikit.evals.task import Answer, Generate, Talk
from phikit.jobs.progress import Bar
from phikit.records.ids import seed_of
from phikit.records.types import Turn

TEMPERATURE = 0.7  # of the simulated user


def converse(
    engine: Engine,
    asked: Sequence[Asked],
    answers: Sequence[Answer],
    simulator: Teacher,
    journal: Journal,
    bar: Bar,
    *,
    model: str,
    seed: int,
) -> list[Answer]:
    """`answers`, where a task has a Talk carried on to its number of turns. Turn by turn, all conversations together:
    the simulator writes, then the model answers. A conversation ends early where the simulator fails or says nothing,
    where the model's answer failed, or where it no longer fits the context. Both sides are on disk (the simulator's in
    its request log), so a killed run goes on."""
    out = list(answers)
    talks = {i: a.task.talk for i, a in enumerate(asked) if a.task.talk is not None}
    said = {i: [*asked[i].prompt.turns(), Turn("assistant", answers[i].text)] for i in talks}
    going = [i for i in talks if asked[i].fits and answers[i].finish not in ("error", "refused")]
    turn = 1
    while going := [i for i in going if turn < talks[i].turns]:
        more: list[tuple[int, Asked]] = []
        for i, text in zip(going, simulator.run(_users(simulator, talks, asked, said, going, turn, seed))):
            if not text:
                continue
            turns = [*said[i], Turn("user", text)]
            a, output = asked[i], asked[i].task.output
            assert isinstance(output, Generate)
            drawn = seed_of(seed, "eval", a.task.name, a.prompt.item.id, a.run, turn)
            one = sample(a.task, output, a.prompt, engine.render(turns), a.run, engine, model, drawn)
            if one.fits:
                said[i] = turns
                more.append((i, one))
        for (i, _), x in zip(more, answer(engine, [m for _, m in more], journal, bar), strict=True):
            said[i].append(Turn("assistant", x.text))
            out[i] = replace(x, text=transcript(said[i], asked[i]), tokens=out[i].tokens + x.tokens)
        going = [i for i, _ in more if out[i].finish not in ("error", "refused")]
        turn += 1
    return out


def transcript(turns: Sequence[Turn], asked: Asked) -> str:
    """What follows the prompt: the first answer, then every turn under its role."""
    first = len(asked.prompt.turns())
    rest = "".join(f"\n\n[{t.role}]\n{t.content}" for t in turns[first + 1 :])
    return turns[first].content + rest


async def _users(
    simulator: Teacher,
    talks: dict[int, Talk],
    asked: Sequence[Asked],
    said: dict[int, list[Turn]],
    going: Sequence[int],
    turn: int,
    seed: int,
) -> list[str]:
    async def one(i: int) -> str:
        a, talk = asked[i], talks[i]
        drawn = seed_of(seed, "user", a.task.name, a.prompt.item.id, a.run, turn)
        (found,) = await simulator.chat(
            tuple(talk.ask(a.prompt.item, said[i])),
            max_tokens=talk.max_tokens,
            temperature=TEMPERATURE,
            seed=drawn,
        )
        return "" if found.finish in ("error", "refused") else found.text.strip()

    return await asyncio.gather(*(one(i) for i in going))
