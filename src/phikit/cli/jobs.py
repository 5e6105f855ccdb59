"""`phikit run-task`: the tasks of a plan, one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phikit.cli.app import app, say


@app.command("run-task")
def run_task(
    plan: Annotated[Path, typer.Argument(help="plan.json, as --on plan writes it.")],
    index: Annotated[
        int,
        typer.Option(envvar="SLURM_ARRAY_TASK_ID", help="The task to run, from 0; in a Slurm array its own."),
    ] = -1,
    count: Annotated[
        bool, typer.Option("--count", help="Print how many tasks there are, and run none.")
    ] = False,
    listed: Annotated[
        bool, typer.Option("--list", help="Print the steps and how they stand, and run none.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Run the task also if it ended as truncated.")
    ] = False,
) -> None:
    """Run one task of a plan: 0 done, 1 failed, 2 wrong call, 3 others must run first, 75 try again."""
    from phikit.jobs import command

    if count:
        say(str(command.count(plan)))
    elif listed:
        command.list_tasks(plan, say)
    elif index < 0:
        raise ValueError("give --index, --count or --list")
    else:
        raise typer.Exit(command.run_task(plan, index, say, again))
