"""`phikit bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from phikit.cli.app import app, say


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A benchmark; without it they are listed.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the result line only.")] = False,
) -> None:
    """List the benchmarks, or run one. Further options go to the benchmark."""
    from phikit.recipe.bench import benchmarks, run_benchmark

    if not name:
        for script, what in benchmarks().items():
            say(f"{script:<16} {what}")
        return
    raise typer.Exit(run_benchmark(name, context.args, only_json=json))
