"""`phikit decontaminate | corpus`: what one does with documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phikit.cli.app import On, app, group, say

corpus_app = group("corpus", "Look at a corpus.", no_args_is_help=True)


@app.command()
def decontaminate(
    files: Annotated[list[str], typer.Argument(help="JSONL (.gz, .zst) or Parquet files, or URLs of them.")],
    against: Annotated[
        list[str],
        typer.Option(
            help="A benchmark: JSONL, JSON, CSV, TSV, Parquet, .tar.gz, .zip, a folder, a URL. Repeatable."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; a killed call goes on there.")],
    key: Annotated[str, typer.Option(help="The column to check; without it `text`, or all strings.")] = "",
    info: Annotated[float, typer.Option(help="7-gram ratio above which a row is a partial match.")] = 0.1,
    contaminated: Annotated[float, typer.Option(help="7-gram ratio from which it is contaminated.")] = 0.4,
    allow: Annotated[
        list[str], typer.Option(help="Texts free of the benchmarks; their common 13-grams are no evidence.")
    ] = [],  # noqa: B006
    drop_partial: Annotated[
        bool, typer.Option("--drop-partial", help="Leave partial matches out too.")
    ] = False,
    drop_numbers: Annotated[
        bool, typer.Option("--drop-numbers", help="Leave items with other numbers out; without it: partial.")
    ] = False,
    paraphrase: Annotated[
        str,
        typer.Option(help="Look for items in other words too: minilm, or http://host/v1#model (embeddings)."),
    ] = "",
    paraphrase_from: Annotated[float, typer.Option(help="Cosine from which a passage is one.")] = 0.8,
    drop_paraphrase: Annotated[
        bool,
        typer.Option("--drop-paraphrase", help="Leave those rows out too; without it they are only shown."),
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes; 0: one for each core.")] = 0,
    on: On = "local",
) -> None:
    """Find evaluation items in your data: hybrid 13-gram and 7-gram rule, with the matching spans."""
    import os

    from phikit.corpus.scrub import Scrub, scrub
    from phikit.jobs.run import Planned
    from phikit.records.remote import place
    from phikit.report.contamination_page import write_page

    settings = Scrub(
        tuple(map(place, against)), key, info, contaminated, tuple(map(place, allow)), drop_partial,
        paraphrase, paraphrase_from, drop_paraphrase, drop_numbers,
    )  # fmt: skip
    try:
        summary = scrub([place(f) for f in files], out, settings, workers or os.cpu_count() or 1, on)
    except Planned as e:
        say(str(e))
        return
    write_page(out)
    say(
        f"{summary['rows']:,} rows: {summary['contaminated']:,} contaminated, {summary['partial']:,} partial, "
        f"{summary['unreadable']:,} unreadable; {summary['items_found']:,} of {summary['items']:,} items found"
    )
    if paraphrase:
        kept = "are left out" if drop_paraphrase else "are kept"
        say(
            f"{summary['paraphrased']:,} hold an item in other words, {summary['paraphrase_alone']:,} of them without "
            f"a shared n-gram; they {kept}"
        )
    say(f"kept rows: {out / 'clean'}; matches: {out / 'flagged.jsonl'}; page: {out / 'report.html'}")


@corpus_app.command("card")
def card(
    folder: Annotated[Path, typer.Argument(help="A corpus stage, such as runs/nano/corpus.")],
    out: Annotated[
        Path | None, typer.Option(help="The page; without it corpus-card.html beside the folder.")
    ] = None,
) -> None:
    """One page: what is in it by source, language, topic, licence and length, and what was left out and why."""
    from phikit.report.corpus_card import write_card

    page = out or folder.resolve().parent / "corpus-card.html"
    write_card(folder, page)
    say(f"{page}")
