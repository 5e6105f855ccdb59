"""kill -9 in the middle of `phikit synth run`, run again: the same rows, and no answered question asked again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
from ask_endpoint import FaultyEndpoint
from test_synth_command import TOWNS, answers

from phikit.records.io import read_jsonl
from phikit.synth.command import run


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for i, town in enumerate(f"{t}{s}" for t in TOWNS for s in ("", "ham", "by", "ton")):
        text = f"The mill of {town} was built in {1870 + i} by weavers, and it now holds a museum of wool. "
        (mine / f"{town}.txt").write_text(
            text + f"It is open in summer, and {20 + i} people of {town} work there."
        )
    out = tmp_path / "out"
    with FaultyEndpoint(reply=answers, delay=0.05, remembers=True) as server:
        command = [
            sys.executable,
            "-m",
            "phikit",
            "synth",
            "run",
            "science",
            "--seeds",
            str(mine),
            "--out",
            str(out),
        ]
        command += ["--teacher", f"{server.url}#m", "--concurrency", "4", "--budget", "1M"]
        with subprocess.Popen(command, env={**os.environ, "PHIKIT_QUIET": "1"}) as child:
            while server.number < 20 and child.poll() is None:
                time.sleep(0.005)
            os.kill(child.pid, signal.SIGKILL)
        assert not (out / "rows.jsonl").exists()
        paid = len(server.memory)
        assert 10 < paid < 64
        done = subprocess.run(
            command, env={**os.environ, "PHIKIT_QUIET": "1"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert (out / "card.html").is_file()
        assert "28 rows from 32 seeds" in done.stdout
        assert len(server.memory) == 64  # two questions a seed, each computed once
        quiet = tmp_path / "quiet"
        run("science", str(mine), [f"{server.url}#m"], quiet, say=lambda _: None)
        assert list(read_jsonl(quiet / "rows.jsonl")) == list(read_jsonl(out / "rows.jsonl"))
