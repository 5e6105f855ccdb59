"""`phikit eval`: tasks on a model, two models compared, the list of tasks and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phikit.cli.app import group, say

eval_app = group("eval", "Evaluate a model on benchmarks.", invoke_without_command=True)


@eval_app.callback()
def evaluate(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Option(
            help="A checkpoint or Hugging Face folder, a .gguf, a model's name, or http://host/v1#model."
        ),
    ] = "",
    tasks: Annotated[
        str, typer.Option(help="Suites, tasks and files, joined by commas: base,chat,mine.yaml")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="The folder to write; a killed run goes on there.")] = None,
    data: Annotated[
        list[Path],
        typer.Option(help="A folder of benchmark data; without it $PHIKIT_BENCHMARKS. Repeatable."),
    ] = [],  # noqa: B006
    limit: Annotated[int, typer.Option(help="At most so many items a task; 0: all.")] = 0,
    settings: Annotated[
        list[str],
        typer.Option("--set", help="TASK.KEY=VALUE: shots, split, runs, temperature, max_tokens, limit ..."),
    ] = [],  # noqa: B006
    judge: Annotated[str, typer.Option(help="A model that grades the tasks which need one.")] = "",
    self_judge: Annotated[bool, typer.Option("--self-judge", help="Let a model judge itself.")] = False,
    train: Annotated[
        list[Path],
        typer.Option(help="Training text (.jsonl, .txt, a folder): report overlap and clean scores."),
    ] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Of samples and permutations.")] = 0,
    engine_context: Annotated[int, typer.Option("--context", help="GGUF: tokens; 0: the model's own.")] = 0,
    parallel: Annotated[int, typer.Option(help="GGUF: answers generated at once.")] = 4,
    threads: Annotated[
        int, typer.Option(help="Of llama.cpp and of the sandbox; 0: the number of cores.")
    ] = 0,
) -> None:
    """Run tasks on a model: scores with intervals, every prompt and answer, and a page."""
    if context.invoked_subcommand is not None:
        return
    from phikit.evals.command import run
    from phikit.report.evals_page import write_page

    if not model or not tasks or out is None:
        raise ValueError("give --model, --tasks and --out; `phikit eval tasks` lists the tasks")
    run(
        model, tasks, out, data=data, limit=limit, settings=settings, judge=judge, self_judge=self_judge, train=train,
        seed=seed, context=engine_context, parallel=parallel, threads=threads, say=say,
    )  # fmt: skip
    say(f"report: {write_page(out)}")


@eval_app.command("compare")
def compare(
    a: Annotated[Path, typer.Argument(help="The folder of an evaluation.")],
    b: Annotated[Path, typer.Argument(help="Another, of the same tasks.")],
    out: Annotated[Path | None, typer.Option(help="A page to write.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print rows as JSON.")] = False,
) -> None:
    """Pair two evaluations item by item: differences with intervals, McNemar, what could have been seen."""
    from phikit.evals.command import compare as run
    from phikit.report.evals_page import write_comparison

    rows = run(a, b, json=json, say=say)
    if out is not None:
        say(f"report: {write_comparison(a, b, rows, out)}")


@eval_app.command("inspect")
def inspect(
    folder: Annotated[Path, typer.Argument(help="The folder of an evaluation.")],
    out: Annotated[Path, typer.Argument(help="A folder for Inspect logs, one a task.")],
) -> None:
    """Write an evaluation as Inspect logs, for `inspect view`."""
    from phikit.evals.inspect_bridge import write_logs

    for path in write_logs(folder, out):
        say(str(path))


@eval_app.command("tasks")
def tasks(
    data: Annotated[list[Path], typer.Option(help="Folders to look for data in. Repeatable.")] = [],  # noqa: B006
) -> None:
    """List tasks, and whether their data are there."""
    from phikit.evals.command import list_tasks

    list_tasks(data, say=say)


@eval_app.command("new")
def new(folder: Annotated[Path, typer.Argument(help="A folder that is not there yet.")]) -> None:
    """Begin a set of original questions with judge's notes."""
    from phikit.evals.kit_command import new as run

    run(folder, say=say)


@eval_app.command("validate")
def validate(
    folder: Annotated[Path, typer.Argument(help="A set of questions.")],
    against: Annotated[
        list[Path], typer.Option(help="Texts that questions must not repeat: benchmarks, training data.")
    ] = [],  # noqa: B006
    judge: Annotated[str, typer.Option(help="A judge to try the notes on the authors' answers.")] = "",
) -> None:
    """Check a set: its files, repeated questions, notes that a judge cannot apply."""
    from phikit.evals.kit_command import validate as run

    raise typer.Exit(run(folder, against, judge, say=say))


@eval_app.command("attack")
def attack() -> None:
    """Test the sandbox that programs run in: attacks, each of which must be contained."""
    from phikit.evals.command import attack as run

    raise typer.Exit(run(say=say))
