"""Stage `questions`: your own questions, split into those to learn from and those to be measured by, and dialogs.

It stands where `corpus`, `synth` and `mixture` stand in a recipe that makes a model from nothing, and writes what
they write: questions and dialogs as rows, dialogs as token shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext
    from phikit.records import Dialog

NEEDS = ("init",)
WATCHES = ("file", "test", "dialogs")
REASONS = ("duplicate", "contaminated")


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes questions, dialogs and rejected (.jsonl.zst), heldout/questions.jsonl, and dialogs/ where there are any.
    Raises ValueError that names the file and row at fault, and where either side of the split is empty."""
    from phikit.engine.chat_files import load_tokenizer
    from phikit.mixture.shards import encode_dialog, make_shard
    from phikit.recipe.own_questions import clean, dialog_of, read_asked, split
    from phikit.records import to_row
    from phikit.records.io import write_jsonl

    c: Any = ctx.config
    asked = list(read_asked(Path(c.file), kind=c.kind))
    if c.test is None:
        train, held = split(asked, c.heldout)
    else:
        train, held = asked, list(read_asked(Path(c.test), kind=c.kind))
    _check_sides(c, len(train), len(held))
    d = c.decontaminate
    limits = {"info": d.info, "contaminated": d.contaminated, "numbers": d.numbers == "contaminated"}
    kept, rejected = clean(train, [a.text for a in train], held, **limits)
    if c.dialogs is None:
        dialogs, dropped = [dialog_of(a) for a in kept if a.solution], 0
    else:
        given = list(_dialogs(Path(c.dialogs)))
        dialogs, more = clean(given, ["\n".join(t.content for t in d.turns) for d in given], held, **limits)
        rejected += more
        dropped = len(more)
    write_jsonl(ctx.out / "questions.jsonl.zst", [a.row() for a in kept])
    write_jsonl(ctx.out / "heldout" / "questions.jsonl", [a.row() for a in held])
    write_jsonl(ctx.out / "dialogs.jsonl.zst", [to_row(d) for d in dialogs])
    write_jsonl(ctx.out / "rejected.jsonl.zst", rejected)
    tokenizer, tokens = load_tokenizer(ctx.file("init", "hf/tokenizer.json").parent), 0
    if dialogs:
        shard = make_shard(encode_dialog(tokenizer, d) for d in dialogs)
        shard.save(ctx.out / "dialogs", [d.id for d in dialogs])
        tokens = int(shard.offsets[-1])
    return {
        "questions": len(asked), "train": len(kept), "heldout": len(held),
        "rejected": {r: sum(x["reason"] == r for x in rejected) for r in REASONS},
        "with_solution": sum(bool(a.solution) for a in kept), "dialogs": len(dialogs), "dialogs_rejected": dropped,
        "dialog_tokens": tokens,
    }  # fmt: skip


def _check_sides(c: Any, train: int, held: int) -> None:
    if not held:
        raise ValueError(
            f"questions: none of the {train} questions of {c.file} is held out: raise questions.heldout, or name a "
            "file of held-out questions in questions.test"
        )
    if not train:
        raise ValueError(f"questions: {c.file} leaves none to learn from: lower questions.heldout")


def _dialogs(path: Path) -> Iterator[Dialog]:
    """Chats of a file: rows with `messages` or `turns`, each a list of {role, content}. Raises RowError."""
    from phikit.records import Dialog
    from phikit.records.io import RowError, read_jsonl, read_parquet

    rows = read_parquet(path) if path.suffix == ".parquet" else read_jsonl(path)
    for number, row in enumerate(rows, 1):
        said: Sequence[Any] = row.get("messages") or row.get("turns") or ()
        good = all(isinstance(t, dict) and {"role", "content"} <= set(t) for t in said)
        if not good or not any(t["role"] == "assistant" for t in said):
            raise RowError(
                f'{path}, row {number}: no chat: "messages" must be a list of {{"role", "content"}} with an '
                "assistant among them"
            )
        yield Dialog(tuple(said), "own", {"row": number})
