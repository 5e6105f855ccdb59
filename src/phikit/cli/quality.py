"""`phikit quality`: keep the better part of your documents, by what a teacher thinks of a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phikit.cli.app import app, say


@app.command()
def quality(
    files: Annotated[
        list[str], typer.Argument(help="JSONL (.gz, .zst) or Parquet with a `text` column; URLs too.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; a killed call goes on there.")],
    teacher: Annotated[
        str, typer.Option(help="smollm2, a .gguf, a checkpoint, http://host/v1#model.")
    ] = "smollm2",
    learned: Annotated[
        Path | None, typer.Option(help="A folder of an earlier call: its classifiers, no teacher.")
    ] = None,
    sample: Annotated[int, typer.Option(min=10, help="Documents that the teacher grades.")] = 1000,
    votes: Annotated[int, typer.Option(min=1, help="Answers to each; two or more show how sure it is.")] = 1,
    good: Annotated[float, typer.Option(help="The score (0 to 5) from which a text is good.")] = 3.0,
    rubric: Annotated[Path | None, typer.Option(help="A text file to tell the teacher instead.")] = None,
    keep: Annotated[float, typer.Option(help="Share of the documents to keep.")] = 0.3,
    amplify: Annotated[float, typer.Option(help="Non-STEM topics: so many times that share.")] = 1.0,
) -> None:
    """Annotate a sample, train a small classifier, say how far it agrees with the teacher, keep the best share."""
    from phikit.ask.teacher import open_teacher
    from phikit.corpus.annotate import RUBRIC
    from phikit.corpus.select import Learning, Selection, learn, select
    from phikit.corpus.table import documents_of
    from phikit.records.remote import place

    places = [place(f) for f in files]
    if learned is None:
        text = rubric.read_text(encoding="utf-8") if rubric else RUBRIC
        with open_teacher(teacher, log=out / "requests") as asked:
            report = learn(asked, documents_of(places), out, Learning(sample, votes, good, text))
        q = report["quality"]
        say(
            f"{report['graded']:,} texts graded, {report['good']['value']:.0%} good. On {q['tested']} others: "
            f"agreement {q['agreement']['value']:.1%} [{q['agreement']['low']:.1%}, {q['agreement']['high']:.1%}] "
            f"(always the same answer: {q['majority']:.1%}), kappa {q['kappa']:.2f}, "
            f"AUC {q['auc']:.2f} [{q['auc_low']:.2f}, {q['auc_high']:.2f}]"
        )
        if c := report.get("crossed"):
            say(
                f"by five-fold cross-fitting on all {c['tested']:,}: agreement {c['agreement']['value']:.1%} "
                f"[{c['agreement']['low']:.1%}, {c['agreement']['high']:.1%}], kappa {c['kappa']:.2f}, "
                f"AUC {c['auc']:.2f} [{c['auc_low']:.2f}, {c['auc_high']:.2f}]"
            )
    found = select(lambda: documents_of(places), learned or out, out, Selection(keep, amplify))
    say(f"kept {sum(found['kept'].values()):,}, dropped {sum(found['dropped'].values()):,}: {out}")
