"""The request log: every answer a teacher gave, written before anybody sees it and fsynced at once, so that it is never
paid twice.

A folder of append-only JSONL segments. Each process that writes begins a segment of its own, so a line that a
kill tore in two stays the last of its file and is passed over; anything else unreadable is an error."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from phikit.records.ids import canonical_json, content_id
from phikit.records.io import RowError

State = Literal["ok", "truncated", "refused", "retryable", "final"]
SEGMENT_BYTES = 64 << 20


def request_key(model: str, payload: Mapping[str, Any], sample: int) -> str:
    """H(model identity, exact payload, sample index). `max_tokens` is not in the payload: a higher limit is
    the same question, asked again only where the lower one cut the answer."""
    return content_id("ask", model, canonical_json(payload), str(sample))


@dataclass(frozen=True, slots=True)
class Entry:
    """One logged outcome. `truncated` was cut at `max_tokens`; `refused` by the model; `retryable` failed and
    is asked again on the next run; `final` fails every time (`error` says why). Token counts are 0 when
    unknown. `spent`: prompt and completion tokens charged for all tries of the request, those that gave no answer
    too."""

    key: str
    state: State
    text: str
    max_tokens: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""
    spent: tuple[int, int] = (-1, -1)  # not given: the token counts above

    def __post_init__(self) -> None:
        if self.spent[0] < 0:
            object.__setattr__(self, "spent", (self.prompt_tokens, self.completion_tokens))

    def answers(self, max_tokens: int) -> bool:
        """Whether this outcome stands for a request with this limit. A text cut because it went round in a loop
        (`error` says so) would do so again."""
        if self.state == "truncated":
            return self.max_tokens >= max_tokens or bool(self.error)
        return self.state != "retryable"


class RequestLog:
    """Thread-safe. Keeps keys and file positions in memory, texts on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._files: list[int] = []
        self._index: dict[str, tuple[int, int, int]] = {}  # key -> file, offset, bytes
        self._out: int | None = None  # position in _files of the segment being written
        self._size = 0
        self._under_way: dict[str, tuple[int, int, int]] = {}  # asked, no outcome yet: file, tokens reserved
        self._spent = [0, 0]
        self._dirty: set[int] = set()  # files written to since their last fsync
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="request-log")
        self._syncing = False
        self._synced = threading.Condition(self._lock)
        self._failed: OSError | None = None  # of an fsync: told at the next call
        self._named = True  # whether the name of the last segment is on disk too
        for path in sorted(folder.glob("segment-*.jsonl")):
            self._load(path)

    def get(self, key: str) -> Entry | None:
        """The last outcome of a key."""
        with self._lock:
            if (place := self._index.get(key)) is None:
                return None
            file, offset, size = place
            row = json.loads(os.pread(self._files[file], size, offset))
        return _entry(row)

    def append(self, entry: Entry, model: str, payload: Mapping[str, Any], sample: int) -> None:
        """Writes one outcome: safe from a kill when this returns, from a power cut when the fsync that begins now is
        done (`flush` waits for it). Answers do not wait for the disk, and those of one moment share an fsync. `model`,
        `payload` and `sample` are kept for tracing. Raises the OSError of this or an earlier write."""
        row = {"key": entry.key, "state": entry.state, "text": entry.text, "max_tokens": entry.max_tokens}
        row |= {"prompt_tokens": entry.prompt_tokens, "completion_tokens": entry.completion_tokens}
        row |= {
            "error": entry.error,
            "spent": list(entry.spent),
            "model": model,
            "sample": sample,
            "payload": dict(payload),
        }
        with self._lock:
            self._check()
            self._index[entry.key] = self._write(row)
            self._count(entry.key, entry.spent)
            self._wake()

    def flush(self) -> None:
        """Waits until all that was appended is on disk; raises OSError where it could not be put there."""
        with self._lock:
            while self._syncing:
                self._synced.wait()
            self._check()

    def _wake(self) -> None:
        """Begins an fsync in a thread of its own, if none is under way: the one under way goes on with what was written
        meanwhile. The caller holds the lock."""
        if not self._syncing:
            self._syncing = True
            self._disk.submit(self._sync)

    def _sync(self) -> None:
        while True:
            with self._lock:
                dirty, self._dirty = self._dirty, set()
                named, self._named = self._named, True
                if not dirty:
                    self._syncing = False
                    self._synced.notify_all()
                    return
            try:
                for fd in dirty:
                    os.fsync(fd)
                if not named:
                    folder = os.open(self.folder, os.O_RDONLY)
                    try:
                        os.fsync(folder)
                    finally:
                        os.close(folder)
            except OSError as e:
                with self._lock:
                    self._failed = e

    def _check(self) -> None:
        """The caller holds the lock."""
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed

    def asking(self, key: str, prompt: int, completion: int) -> None:
        """Notes that a paid request goes out, with what it and its earlier tries may cost. Not fsynced: the note has
        to outlive this process, not the machine."""
        with self._lock:
            file, _, _ = self._write({"key": key, "asking": [prompt, completion]})
            self._note(key, file, prompt, completion)

    def spent(self) -> tuple[int, int]:
        """Prompt and completion tokens charged to everything in this log, by earlier runs too. Requests that went
        out and left no outcome (kill -9, cancelled) count in full."""
        with self._lock:
            prompt = self._spent[0] + sum(p for _, p, _ in self._under_way.values())
            return prompt, self._spent[1] + sum(c for _, _, c in self._under_way.values())

    def _note(self, key: str, file: int, prompt: int, completion: int) -> None:
        before = self._under_way.get(key)
        if (
            before is not None and before[0] != file
        ):  # an earlier process went out with it and never came back
            self._count(key, before[1:])
        self._under_way[key] = (file, prompt, completion)

    def _count(self, key: str, spent: Sequence[int]) -> None:
        self._under_way.pop(key, None)
        self._spent[0] += spent[0]
        self._spent[1] += spent[1]

    def _write(self, row: Mapping[str, Any]) -> tuple[int, int, int]:
        """Appends a row; returns its file, offset and size. The caller holds the lock."""
        data = json.dumps(row, ensure_ascii=True).encode() + b"\n"
        if self._out is None or self._size + len(data) > SEGMENT_BYTES:
            self._begin()
        assert self._out is not None
        fd = self._files[self._out]
        done = 0
        try:
            while done < len(data):
                done += os.write(fd, data[done:])
            self._dirty.add(fd)
        except OSError:
            # Half a line (disk full) must not be followed by another: go on in a new segment.
            self._out = None
            raise
        place = (self._out, self._size, len(data))
        self._size += len(data)
        return place

    def rows(self) -> Iterator[dict[str, Any]]:
        """The current row of every key, in the order of the files."""
        with self._lock:
            places = sorted(self._index.values())
        for file, offset, size in places:
            yield json.loads(os.pread(self._files[file], size, offset))

    def states(self) -> dict[str, int]:
        """How many keys are in each state."""
        counts: dict[str, int] = {}
        for row in self.rows():
            counts[row["state"]] = counts.get(row["state"], 0) + 1
        return dict(sorted(counts.items()))

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._disk.shutdown()
            self._close()

    def _close(self) -> None:
        with self._lock:
            for fd in self._files:
                os.close(fd)
            self._files, self._out = [], None
            self._index.clear()

    def __enter__(self) -> RequestLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._index)

    def _load(self, path: Path) -> None:
        self._files.append(os.open(path, os.O_RDONLY))
        offset = 0
        with path.open("rb") as f:
            for number, line in enumerate(f, 1):
                try:
                    row = json.loads(line)
                    if "asking" in row:
                        self._note(
                            row["key"], len(self._files) - 1, int(row["asking"][0]), int(row["asking"][1])
                        )
                        offset += len(line)
                        continue
                    entry = _entry(row)
                except (ValueError, KeyError, TypeError) as e:
                    if not line.endswith(b"\n"):
                        break  # torn by a kill: the last line of its segment
                    raise RowError(
                        f"{path}, line {number}: not a request-log row ({e}); delete the line to ask again"
                    ) from e
                self._index[entry.key] = (len(self._files) - 1, offset, len(line))
                self._count(entry.key, entry.spent)
                offset += len(line)

    def _begin(self) -> None:
        number = len(list(self.folder.glob("segment-*.jsonl")))
        while True:  # another process may take the number first
            try:
                path = self.folder / f"segment-{number:05d}.jsonl"
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
                break
            except FileExistsError:
                number += 1
        self._named = False
        self._files.append(fd)
        self._out, self._size = len(self._files) - 1, 0


def _entry(row: Mapping[str, Any]) -> Entry:
    names: Sequence[str] = (
        "key",
        "state",
        "text",
        "max_tokens",
        "prompt_tokens",
        "completion_tokens",
        "error",
    )
    spent = row.get("spent", (-1, -1))
    return Entry(**{n: row[n] for n in names}, spent=(spent[0], spent[1]))
