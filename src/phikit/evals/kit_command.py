"""What `phikit eval new` and `phikit eval validate` do and print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from phikit.evals import kit

Say = Callable[[str], None]


def new(folder: Path, *, say: Say) -> None:
    for path in kit.new(folder):
        say(f"wrote {path}")
    say(
        f"add questions, then: phikit eval validate {folder}; "
        f"phikit eval --model M --tasks {folder} --judge J --out DIR"
    )


def validate(folder: Path, against: Sequence[Path], judge: str, *, say: Say) -> int:
    """Prints what is there and what to mend; 1 where there is something."""
    from phikit.evals.contamination import texts

    told, questions = kit.read(folder)
    points = sum(n["points"] for q in questions for n in q.notes)
    say(f"{told['title']}: {len(questions)} questions, {points} points")
    for skill, n in sorted(Counter(q.skill for q in questions).items()):
        say(f"  {n:4d}  {skill}")
    found = kit.problems(questions, texts(against))
    if judge:
        found += _tried(folder, questions, judge, say)
    for line in found:
        say(f"mend {line}")
    if not found:
        say(
            "nothing to mend"
            + ("" if judge else "; --judge MODEL tries the notes on the authors' own answers")
        )
    return 1 if found else 0


def _tried(folder: Path, questions: Sequence[kit.Question], judge: str, say: Say) -> list[str]:
    from phikit.ask.teacher import open_teacher

    with open_teacher(judge, log=folder / ".judge", role="judge") as teacher:
        rows = kit.tried(questions, teacher)
    found = []
    for r in rows:
        own, other = ("unreadable" if x is None else f"{x:.2f}" for x in (r.own, r.other))
        say(f"  {r.name:<32} author's answer {own}, answer to another question {other}")
        if r.own is None or r.own < 1:
            found.append(f"{r.name}: the judge gives the author's own answer {own} of 1")
        if r.other is not None and r.other > 0.5:
            found.append(f"{r.name}: the judge gives an answer to another question {other} of 1")
    return found
