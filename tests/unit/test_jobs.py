"""Shard tasks: order, resume, failures, two workers; and the progress lines."""

from __future__ import annotations

import math

import pytest

from phikit.jobs import progress
from phikit.jobs.pool import ShardError, run_shards


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")


class Squares:
    """Squares its shard; remembers what it computed; fails at `bad`."""

    def __init__(self, bad: int | None = None) -> None:
        self.seen: list[int] = []
        self.bad = bad

    def __call__(self, i: int) -> int:
        self.seen.append(i)
        if i == self.bad:
            raise ValueError("no such number")
        return i * i


def test_results_come_in_order_and_are_kept(tmp_path):
    first = Squares()
    assert run_shards(first, [3, 1, 2], work=tmp_path, label="x") == [9, 1, 4]
    again = Squares()
    assert run_shards(again, [3, 1, 2], work=tmp_path, label="x") == [9, 1, 4]
    assert (first.seen, again.seen) == ([3, 1, 2], [])


def test_a_failure_names_the_shard_and_keeps_what_was_done(tmp_path):
    with pytest.raises(ShardError, match=r"squares, shard 2 \(7\): no such number"):
        run_shards(Squares(bad=7), [5, 6, 7, 8], work=tmp_path, label="squares")
    again = Squares()
    assert run_shards(again, [5, 6, 7, 8], work=tmp_path, label="squares") == [25, 36, 49, 64]
    assert again.seen == [7, 8]


def test_long_shards_are_shortened_in_messages(tmp_path):
    def fail(shard):
        raise ValueError("bad")

    with pytest.raises(ShardError) as e:
        run_shards(fail, ["x" * 500], work=tmp_path, label="l")
    assert len(str(e.value)) < 120


def test_a_changed_shard_is_computed_again(tmp_path):
    run_shards(Squares(), [1, 2, 3], work=tmp_path, label="x")
    again = Squares()
    assert run_shards(again, [1, 5, 3, 4], work=tmp_path, label="x") == [1, 25, 9, 16]
    assert again.seen == [5, 4]


def test_no_shards(tmp_path):
    assert run_shards(Squares(), [], work=tmp_path, label="x") == []


# math functions: child processes of a test can import them.
def test_two_workers_give_the_same_and_resume(tmp_path):
    numbers = [9, 4, 1, 16]
    assert run_shards(math.isqrt, numbers, work=tmp_path / "two", label="x", workers=2) == [3, 2, 1, 4]
    run_shards(math.isqrt, numbers, work=tmp_path / "one", label="x")
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / w).iterdir()} for w in ("one", "two"))
    assert one == two
    mine = Squares()
    assert run_shards(mine, numbers, work=tmp_path / "two", label="x") == [3, 2, 1, 4]
    assert mine.seen == []


def test_a_failure_in_a_worker_names_the_shard(tmp_path):
    with pytest.raises(ShardError, match=r"roots, shard 1 \(-4\)"):
        run_shards(math.isqrt, [9, -4, 16], work=tmp_path, label="roots", workers=2)


def test_progress_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.delenv("PHIKIT_QUIET")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    assert list(progress.track([1, 2], "rows")) == [1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("  rows: 1/2 rows,")
    assert "2/2 rows" in lines[-1]


def test_quiet_shows_nothing(capsys):
    with progress.bar("x", total=3) as b:
        b.advance(2, loss=1.0)
    assert capsys.readouterr().err == ""
