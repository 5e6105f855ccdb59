"""`phikit pts` and `phikit pts view`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phikit.cli.app import group, say

pts_app = group("pts", "Pivotal Token Search: pairs from any model.", invoke_without_command=True)


@pts_app.callback()
def pts(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Option(
            help="A checkpoint or Hugging Face folder, a .gguf, a model's name, torch:NAME, or http://host/v1#model."
        ),
    ] = "",
    questions: Annotated[
        Path | None, typer.Option(help="JSONL or Parquet: question, answer, kind; GSM8K and MBPP rows too.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; a killed search goes on there.")
    ] = None,
    kind: Annotated[str, typer.Option(help="math, choice, text or code, for rows that name none.")] = "",
    gap: Annotated[
        float, typer.Option(help="Smallest change of p(success) that makes a token pivotal.")
    ] = 0.2,
    error: Annotated[
        float, typer.Option(help="Share of what is listed that may change p by less than 3/4 gap.")
    ] = 0.05,
    certified: Annotated[
        bool, typer.Option("--certified", help="List only what e-BH certifies, for any model: more rollouts.")
    ] = False,
    budget: Annotated[
        str, typer.Option(help="Tokens, generated and prefilled, such as 5M; 0: no bound.")
    ] = "5M",
    limit: Annotated[int, typer.Option(help="Take only so many questions; 0: all.")] = 0,
    low: Annotated[
        float, typer.Option(help="Questions answered right less often are left out: nothing to choose.")
    ] = 0.2,
    high: Annotated[float, typer.Option(help="And those answered right more often.")] = 0.8,
    trajectories: Annotated[int, typer.Option(help="Answers searched per question.")] = 2,
    rollouts: Annotated[int, typer.Option(help="Most rollouts on each side of one decision.")] = 96,
    temperature: Annotated[float, typer.Option(help="Of the sampled answers.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Of the sampled answers.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 512,
    stop: Annotated[list[str], typer.Option(help="A string that closes an answer. Repeatable.")] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Seed of the rollouts.")] = 0,
    parallel: Annotated[int, typer.Option(help="GGUF: samples at once.")] = 4,
    device: Annotated[
        str, typer.Option(help="cpu, cuda or cuda:1, for torch networks; without it CUDA where there is one.")
    ] = "",
) -> None:
    """Find the tokens that decide whether an answer comes out right, and make preference pairs of them."""
    if context.invoked_subcommand is not None:
        return
    from phikit.preference.command import pts as run_pts

    if not model or questions is None or out is None:
        raise ValueError("give --model, --questions and --out")
    run_pts(
        model, questions, out, kind=kind, gap=gap, error=error, certified=certified, budget=budget, limit=limit,
        low=low, high=high, trajectories=trajectories, rollouts=rollouts, temperature=temperature, top_p=top_p,
        max_tokens=max_tokens, stop=stop, seed=seed, parallel=parallel, device=device, say=say,
    )  # fmt: skip
    from phikit.report.pivots_page import write_page

    say(f"page: {write_page(out)}")


@pts_app.command("view")
def view(
    folder: Annotated[Path, typer.Argument(help="The --out folder of a search, or the folder of a run.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; without it FOLDER/pivotal.html.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write a page of p(success) along every answer, its pivotal tokens and what followed their alternatives."""
    from phikit.report.pivots_page import write_page

    page = write_page(folder, out)
    say(str(page))
    if open_:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            raise ValueError(f"no browser could be started; open {page} yourself")
