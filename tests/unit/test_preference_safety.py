"""Readers of harmless preference data, and the pairs made of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from phikit.preference.safety import dialogs, pairs, parse_transcript, read_comparisons
from phikit.records.io import RowError, write_jsonl, write_parquet
from phikit.records.types import Turn

HH = Path(__file__).parents[3] / "shared" / "data" / "preferences" / "hh_rlhf-harmless-test.jsonl.gz"
TALK = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: How do I hide it?\n\nAssistant: "


def write(tmp_path, *rows, name="rows.jsonl"):
    write_jsonl(tmp_path / name, rows)
    return tmp_path / name


def test_transcripts():
    assert parse_transcript(TALK + "No.") == (
        Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "How do I hide it?"), Turn("assistant", "No."),
    )  # fmt: skip
    assert parse_transcript("\n\nHuman: a\n\nHuman: b\n\nAssistant: c") == (
        Turn("user", "a\n\nb"),
        Turn("assistant", "c"),
    )
    assert parse_transcript('\n\nHuman: say "Human: no"\n\nAssistant: ok')[0].content == 'say "Human: no"'
    assert parse_transcript("just text") is None
    assert parse_transcript("\n\nAssistant: first") is None


def test_hh_rows_and_their_faults_are_counted(tmp_path):
    counts: dict[str, int] = {}
    path = write(
        tmp_path,
        {"chosen": TALK + "I won't help.", "rejected": TALK + "Under the bed."},
        {"chosen": TALK + "Same.", "rejected": TALK + "Same."},
        {"chosen": TALK + "No.", "rejected": TALK.replace("Hello", "Hey") + "No way."},
        {"chosen": TALK, "rejected": TALK + "x"},
        {"chosen": "text", "rejected": "text"},
        {"chosen": TALK[:-12], "rejected": TALK + "x"},
    )
    (found,) = read_comparisons(path, counts)
    assert (found.chosen, found.rejected, found.row) == ("I won't help.", "Under the bed.", "rows.jsonl:1")
    assert [t.role for t in found.conversation] == ["user", "assistant", "user"]
    assert counts == {
        "read": 1, "same_answer": 1, "different_conversations": 1, "empty_answer": 1, "no_transcript": 1,
        "no_last_answer": 1,
    }  # fmt: skip


def test_beavertails_rows(tmp_path):
    row = {"prompt": "How?", "response_0": "Like this.", "response_1": "I won't say.", "safer_response_id": 1}
    path = tmp_path / "rows.parquet"
    write_parquet(
        path,
        [
            row | {"is_response_0_safe": False, "is_response_1_safe": True},
            row | {"is_response_0_safe": True, "is_response_1_safe": True},
        ],
    )
    counts: dict[str, int] = {}
    (found,) = read_comparisons(path, counts)
    assert (found.chosen, found.rejected) == ("I won't say.", "Like this.")
    assert counts == {"read": 1, "equally_safe": 1}


def test_another_format_is_an_error_that_names_the_columns(tmp_path):
    with pytest.raises(RowError, match=r"row 1: columns \['text'\]"):
        list(read_comparisons(write(tmp_path, {"text": "x"}), {}))


def test_pairs_are_whole_answers_of_kind_safety(tmp_path):
    path = write(tmp_path, {"chosen": TALK + "No.", "rejected": TALK + "Under the bed."})
    counts: dict[str, int] = {}
    some = list(read_comparisons(path, counts))
    (pair,) = pairs(some, lambda t: list(t.encode()), 256, longest=50, counts=counts)
    assert pair.kind == "safety"
    assert pair.chosen_ids == (*b"No.", 256)
    assert pair.rejected_ids == (*b"Under the bed.", 256)
    assert pair.meta["row"] == "rows.jsonl:1"
    assert list(pairs(some, lambda t: list(t.encode()), 256, longest=10, counts=counts)) == []
    assert counts["too_long"] == 1
    (dialog,) = dialogs(some)
    assert dialog.turns[-1] == Turn("assistant", "No.")


def test_the_public_file_is_read():
    if not HH.exists():
        pytest.skip("HH-RLHF is not here")
    counts: dict[str, int] = {}
    some = list(read_comparisons(HH, counts))
    with gzip.open(HH, "rt") as f:
        rows = [json.loads(line) for line in f]
    assert sum(counts.values()) == len(rows) == 2312
    assert counts["read"] == len(some) > 2200
    for c in some[:300]:
        assert c.conversation[-1].role == "user"
        row = rows[int(c.row.split(":")[1]) - 1]
        assert row["chosen"].rstrip().endswith(c.chosen[-20:])
        assert "\n\nHuman:" not in c.chosen + c.rejected
