"""The corpus stage under faults: killed at any moment, a full disk, damaged inputs; nothing is lost and nothing is
done twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phikit.corpus.folders import Folder, folder_documents
from phikit.corpus.rejection import Rejection
from phikit.records.io import read_jsonl

RUN = """
import sys
from pathlib import Path
from phikit.corpus import pipeline
from phikit.corpus.folders import Folder
pipeline.SHARD_CHARACTERS = 20_000
settings = pipeline.Settings(quality=False, heldout=0.05, paragraphs=3, languages=("en", "und", "de", "nl", "pt", "sl"))
here = Path(sys.argv[1])
references = [("item", "the question of which of these words stands first in the second line of the last page")]
folders = [Folder(Path(sys.argv[2]), "text")]
pipeline.build([], references, here / "out", here / "work", settings, int(sys.argv[3]), folders=folders)
"""
NAMES = ("documents", "heldout", "rejected")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Forty files of a few thousand words with copies and near copies of one another."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = random.Random(0)
    words = [
        f"{a}{b}" for a in ("lor", "ips", "dol", "met", "con") for b in ("em", "um", "or", "ar", "is", "en")
    ]
    texts: list[str] = []
    for i in range(40):
        text = " ".join(rng.choice(words) for _ in range(1500))
        if i % 5 == 4:
            text = texts[i - 2].replace("lorem", "loremo", 1)
        texts.append(text)
        (folder / f"{i:02d}.txt").write_text(
            f"{text}\n\nThis line is at the end of every file that we have here."
        )
    return folder


def start(here, inputs, workers=1):
    here.mkdir(exist_ok=True)
    command = [sys.executable, "-c", RUN, str(here), str(inputs), str(workers)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def result(here):
    return [(here / "out" / f"{n}.jsonl.zst").read_bytes() for n in NAMES]


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    here = tmp_path_factory.mktemp("whole")
    _, error = (p := start(here, inputs)).communicate(timeout=300)
    assert p.returncode == 0, error[-2000:]
    assert len(list(read_jsonl(here / "out/documents.jsonl.zst"))) > 20
    assert any(row["reason"] == "near_duplicate" for row in read_jsonl(here / "out/rejected.jsonl.zst"))
    return result(here)


@pytest.mark.parametrize("stop", ["clean", "candidates", "fates", "write"])
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(tmp_path, inputs, whole, stop):
    """Killed as soon as a file of the step is there."""
    begun = {
        "clean": "00003.keys",
        "candidates": "pairs",
        "fates": "00002.fate.json",
        "write": "00005.kept.jsonl.zst",
    }
    here = tmp_path / "run"
    process = start(here, inputs)
    end = time.monotonic() + 200
    while (
        not (here / "work/clean" / begun[stop]).exists() and process.poll() is None and time.monotonic() < end
    ):
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    _, error = (again := start(here, inputs)).communicate(timeout=300)
    assert again.returncode == 0, error[-2000:]
    assert result(here) == whole
    assert not [p for p in (here / "out").iterdir() if p.name.startswith(".")]


def test_a_full_disk_stops_with_the_reason_and_the_next_run_goes_on(tmp_path, inputs, whole):
    """A limit on the size of files stands for the disk: writes fail with an error of the system in both."""
    here = tmp_path / "run"
    here.mkdir()
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n" + RUN
    )
    command = [sys.executable, "-c", limited, str(here), str(inputs), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert not (here / "out").exists() or not list((here / "out").glob("*.zst"))
    _, error = (again := start(here, inputs)).communicate(timeout=300)
    assert again.returncode == 0, error[-2000:]
    assert result(here) == whole


def small_disk(kilobytes, place, command):
    """`command` in a mount namespace of its own in which `place` is a file system of so many kilobytes."""
    mount = f'mount -t tmpfs -o size={kilobytes}k tmpfs "$0" && exec "$@"'
    return ["unshare", "-m", "sh", "-c", mount, str(place), *command]


def test_a_disk_that_is_really_full_stops_and_more_room_goes_on(tmp_path, inputs, whole):
    here = tmp_path / "run"
    here.mkdir()
    if subprocess.run(small_disk(16, here, ["true"]), capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here (needs root and unshare)")
    run = [sys.executable, "-c", RUN, str(here), str(inputs), "1"]
    keep = f'"$@"; cp -a {here}/. {tmp_path}/kept; exit 7'  # what lies there is gone with its namespace
    done = subprocess.run(
        small_disk(256, here, ["sh", "-c", keep, "sh", *run]), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 7
    assert "No space left on device" in done.stderr
    kept = tmp_path / "kept"
    assert not (kept / "out").exists() or not list((kept / "out").glob("*.zst"))
    assert (kept / "work/clean").is_dir()
    _, error = (again := start(kept, inputs)).communicate(timeout=300)
    assert again.returncode == 0, error[-2000:]
    assert result(kept) == whole


def test_a_corrupt_row_group_costs_its_own_rows_and_is_one_rejection(tmp_path):
    path = tmp_path / "rows.parquet"
    rows = pa.table({"text": [f"row {i} " + "x" * 200 + str(i * 7919) for i in range(3000)]})
    pq.write_table(rows, path, row_group_size=1000, compression="zstd")
    place = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = place.dictionary_page_offset or place.data_page_offset
    data[start : start + 400] = b"\xff" * 400
    path.write_bytes(bytes(data))
    (tmp_path / "a.txt").write_text("good")
    items = list(folder_documents(Folder(tmp_path, "x")))
    bad = [i for i in items if isinstance(i, Rejection)]
    texts = [i.text for i in items if not isinstance(i, Rejection)]
    assert "good" in texts
    assert [b.reason for b in bad] == ["unreadable"]
    assert "row group 2 is damaged after 0 of its 1000 rows" in bad[0].detail
    assert len(texts) == 2001
    assert texts[-1].startswith("row 2999 ")
