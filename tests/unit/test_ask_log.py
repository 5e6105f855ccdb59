import os
import signal
import subprocess
import sys
import threading

import pytest

from phikit.ask.log import Entry, RequestLog, request_key
from phikit.records.io import RowError


def entry(key, state="ok", text="t", max_tokens=8):
    return Entry(key, state, text, max_tokens, 3, 4)


def write(log, *entries):
    for e in entries:
        log.append(e, "m", {"turns": []}, 0)


def test_reopened_log_gives_back_the_last_outcome(tmp_path):
    with RequestLog(tmp_path) as log:
        write(log, entry("a", "truncated", "x"), entry("b"), entry("a", "ok", "longer \u2028 \ud800", 16))
        assert log.get("a").text == "longer \u2028 \ud800"
    with RequestLog(tmp_path) as log:
        assert log.get("a") == entry("a", "ok", "longer \u2028 \ud800", 16)
        assert log.get("c") is None
        assert log.states() == {"ok": 2}
        assert [r["model"] for r in log.rows()] == ["m", "m"]


def test_what_stands_for_a_request():
    assert entry("a", "ok").answers(10_000)
    assert entry("a", "truncated").answers(8)
    assert not entry("a", "truncated").answers(9)
    assert not entry("a", "retryable").answers(1)
    assert entry("a", "final").answers(1)
    assert entry("a", "refused").answers(9)


def test_key_depends_on_every_part():
    keys = {request_key(m, p, s) for m in "ab" for p in ({"x": 1}, {"x": 2}) for s in (0, 1)}
    assert len(keys) == 8


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_passed_over_and_the_log_goes_on(tmp_path, cut):
    with RequestLog(tmp_path) as log:
        write(log, entry("a"), entry("b"))
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-cut])
    with RequestLog(tmp_path) as log:
        assert log.get("a") == entry("a")
        if cut > 1:  # only the newline was lost: the row is whole
            assert log.get("b") is None
        write(log, entry("c"))
    with RequestLog(tmp_path) as log:
        assert log.get("a") == entry("a")
        assert log.get("c") == entry("c")


def test_a_bad_line_elsewhere_is_an_error_that_names_it(tmp_path):
    with RequestLog(tmp_path) as log:
        write(log, entry("a"), entry("b"))
    (path,) = tmp_path.glob("*.jsonl")
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0][:20], *lines[1:]]))
    with pytest.raises(RowError, match=r"segment-00000.jsonl, line 1"):
        RequestLog(tmp_path)


def test_segments_roll_and_two_writers_do_not_share_one(tmp_path, monkeypatch):
    monkeypatch.setattr("phikit.ask.log.SEGMENT_BYTES", 400)
    with RequestLog(tmp_path) as one, RequestLog(tmp_path) as two:
        write(one, *(entry(f"a{i}") for i in range(5)))
        write(two, *(entry(f"b{i}") for i in range(5)))
        assert all(one.get(f"a{i}") == entry(f"a{i}") for i in range(5))
    assert len(list(tmp_path.glob("*.jsonl"))) >= 4
    with RequestLog(tmp_path) as log:
        assert len(log) == 10


def test_threads_append_whole_lines(tmp_path):
    with RequestLog(tmp_path) as log:
        jobs = [
            threading.Thread(target=lambda k=k: write(log, *(entry(f"{k}-{i}") for i in range(20))))
            for k in range(4)
        ]
        for j in jobs:
            j.start()
        for j in jobs:
            j.join()
    with RequestLog(tmp_path) as log:
        assert len(log) == 80


def test_kill_9_loses_nothing_that_was_appended(tmp_path):
    code = (
        "import sys; from pathlib import Path; from phikit.ask.log import *\n"
        "log = RequestLog(Path(sys.argv[1]))\n"
        "for i in range(10**6):\n"
        "    log.append(Entry(str(i), 'ok', 'x' * 50, 8), 'm', {}, 0); print(i, flush=True)\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            if int(line) == 30:
                os.kill(child.pid, signal.SIGKILL)
                break
        said = [30, *(int(line) for line in child.stdout if line.strip().isdigit())]
    with RequestLog(tmp_path) as log:
        assert all(log.get(str(i)) for i in range(max(said[:-1], default=30) + 1))


def test_what_was_appended_is_fsynced_and_a_disk_that_fails_is_told(tmp_path, monkeypatch):
    synced, real = [], os.fsync
    go = threading.Event()

    def fsync(fd):
        go.wait(10)
        synced.append(os.fstat(fd).st_size)
        real(fd)

    with RequestLog(tmp_path) as log:
        write(log, entry("a"))  # begins a segment, whose folder is fsynced here and now
        log.flush()
        monkeypatch.setattr(os, "fsync", fsync)
        write(log, entry("b"), entry("c"), entry("d"))  # the disk is slow: nobody waits for it
        size = sum(p.stat().st_size for p in tmp_path.glob("*.jsonl"))
        assert not synced
        assert log.get("d") == entry("d")
        go.set()
        log.flush()
        assert synced[-1] == size
        assert len(synced) <= 2  # one that was under way, and one for all that came meanwhile

        def full(fd):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        write(log, entry("e"))
        with pytest.raises(OSError, match="No space left"):
            log.flush()
        monkeypatch.setattr(os, "fsync", real)
