"""Safety pairs from helpful and harmless preference data (report section 7: HH-RLHF and BeaverTails).

HH-RLHF rows hold two transcripts, `chosen` and `rejected`, of "Human:" and "Assistant:" turns that differ in the last
assistant turn. BeaverTails rows hold a prompt, two responses and which of them is safer. Rows that are neither a
comparison of two answers to one conversation are counted and left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phikit.records.ids import content_id
from phikit.records.io import RowError, read_jsonl, read_parquet
from phikit.records.types import Dialog, Preference, Turn

_SPEAKER = re.compile(r"\n\n(Human|Assistant):[ ]?")
_ROLE = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one conversation, which ends with a user turn; `row` names its place in the file."""

    conversation: tuple[Turn, ...]
    chosen: str
    rejected: str
    row: str


def read_comparisons(path: Path, counts: dict[str, int]) -> Iterator[Comparison]:
    """Comparisons of a JSONL (.gz, .zst) or Parquet file in HH-RLHF's or BeaverTails' form. What is left out is counted
    by reason. Raises RowError for a file in another form."""
    rows: Iterable[Mapping[str, Any]] = read_parquet(path) if path.suffix == ".parquet" else read_jsonl(path)
    for number, row in enumerate(rows, 1):
        place = f"{path.name}:{number}"
        if "chosen" in row and "rejected" in row:
            found = _hh(row, place)
        elif "response_0" in row and "safer_response_id" in row:
            found = _beavertails(row, place)
        else:
            raise RowError(
                f"{path}, row {number}: columns {sorted(row)}; expected `chosen` and `rejected` transcripts "
                "(HH-RLHF) or `prompt`, `response_0`, `response_1` and `safer_response_id` (BeaverTails)"
            )
        if isinstance(found, str):
            counts[found] = counts.get(found, 0) + 1
        else:
            counts["read"] = counts.get("read", 0) + 1
            yield found


def parse_transcript(text: str) -> tuple[Turn, ...] | None:
    """The turns of "\\n\\nHuman: ...\\n\\nAssistant: ...", None where the text is no such transcript. Two turns of
    one speaker in a row are one turn."""
    parts = _SPEAKER.split(text if text.startswith("\n\n") else "\n\n" + text.lstrip("\n"))
    if len(parts) < 3 or parts[0].strip() or parts[1] != "Human":
        return None
    turns: list[Turn] = []
    for speaker, said in zip(parts[1::2], parts[2::2]):
        role, said = _ROLE[speaker], said.strip()
        if turns and turns[-1].role == role:
            turns[-1] = Turn(role, f"{turns[-1].content}\n\n{said}".strip())  # type: ignore[arg-type]
        else:
            turns.append(Turn(role, said))  # type: ignore[arg-type]
    return tuple(turns)


def pairs(
    comparisons: Iterable[Comparison],
    encode: Callable[[str], Sequence[int]],
    end: int,
    *,
    longest: int,
    counts: dict[str, int],
) -> Iterator[Preference]:
    """Preference rows of kind "safety": whole answers with their end of turn. `longest`: tokens of an answer above
    which a comparison is left out (counted), since half an answer is none."""
    for c in comparisons:
        better, worse = ((*encode(t), end) for t in (c.chosen, c.rejected))
        if max(len(better), len(worse)) > longest:
            counts["too_long"] = counts.get("too_long", 0) + 1
            continue
        counts["pairs"] = counts.get("pairs", 0) + 1
        parent = content_id("comparison", c.row, c.chosen, c.rejected)
        meta = {"row": c.row, "turns": len(c.conversation)}
        yield Preference(c.conversation, (), better, worse, c.chosen, c.rejected, "safety", meta, (parent,))


def dialogs(comparisons: Iterable[Comparison]) -> Iterator[Dialog]:
    """The preferred sides as SFT conversations."""
    for c in comparisons:
        meta = {"kind": "safety", "row": c.row}
        yield Dialog((*c.conversation, Turn("assistant", c.chosen)), "safety", meta)


def _hh(row: Mapping[str, Any], place: str) -> Comparison | str:
    chosen, rejected = (parse_transcript(str(row[k])) for k in ("chosen", "rejected"))
    if chosen is None or rejected is None:
        return "no_transcript"
    if chosen[-1].role != "assistant" or rejected[-1].role != "assistant":
        return "no_last_answer"
    if chosen[:-1] != rejected[:-1]:
        return "different_conversations"
    return _comparison(chosen[:-1], chosen[-1].content, rejected[-1].content, place)


def _beavertails(row: Mapping[str, Any], place: str) -> Comparison | str:
    """The safer answer is chosen; where both are safe or both are not, only a difference in safety counts, so the
    row is left out."""
    texts = [str(row["response_0"]).strip(), str(row["response_1"]).strip()]
    safe = [row.get("is_response_0_safe"), row.get("is_response_1_safe")]
    if safe[0] is not None and safe[0] == safe[1]:
        return "equally_safe"
    best = int(row["safer_response_id"])
    if best not in (0, 1):
        return "no_label"
    return _comparison((Turn("user", str(row["prompt"]).strip()),), texts[best], texts[1 - best], place)


def _comparison(conversation: tuple[Turn, ...], chosen: str, rejected: str, place: str) -> Comparison | str:
    if not conversation or not all(t.content for t in conversation):
        return "empty_turn"
    if not chosen or not rejected:
        return "empty_answer"
    if chosen == rejected:
        return "same_answer"
    return Comparison(conversation, chosen, rejected, place)
