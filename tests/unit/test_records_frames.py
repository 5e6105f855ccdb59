import pytest
import zstandard

from phikit.records import frames, io
from phikit.records.io import RowError, read_jsonl, write_jsonl

ROWS = [{"n": i, "text": f"row {i} " * (i % 7)} for i in range(500)]


@pytest.fixture
def packed(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "FRAME", 1000)
    path = tmp_path / "rows.jsonl.zst"
    write_jsonl(path, ROWS)
    return path


@pytest.mark.parametrize("size", [1, 500, 2000])
def test_parts_hold_each_line_once_and_in_order(packed, size):
    parts = frames.parts(packed, size)
    assert len(parts) > 2
    assert parts[0][0] == 0  # type: ignore[index]
    assert parts[-1][1] == packed.stat().st_size  # type: ignore[index]
    assert all(b - a <= size for a, b in parts if size > 1)  # type: ignore[misc]
    found = [line for part in parts for line in frames.lines(packed, part)]
    assert [io.parse_row(line) for line in found] == ROWS == list(read_jsonl(packed))


def test_one_frame_and_other_files_are_one_part(tmp_path):
    for name in ("rows.jsonl.zst", "rows.jsonl", "rows.jsonl.gz"):
        write_jsonl(tmp_path / name, ROWS)
        assert frames.parts(tmp_path / name, 1) == [None]
        assert [io.parse_row(line) for line in frames.lines(tmp_path / name, None)] == ROWS


def test_every_kind_of_block_and_frame_is_passed_over(tmp_path):
    path = tmp_path / "mixed.jsonl.zst"
    pieces = [
        zstandard.ZstdCompressor(write_checksum=True).compress(b'{"a":1}\n' * 50_000),  # several blocks
        b"\x50\x2a\x4d\x18\x05\x00\x00\x00hello",  # a frame that holds no data
        zstandard.ZstdCompressor(write_content_size=False).compress(b"\n" * 300_000),  # a byte repeated
        zstandard.ZstdCompressor().compress(b""),
        zstandard.ZstdCompressor().compress(bytes(range(128)) * 2 + b"\n"),
    ]
    path.write_bytes(b"".join(pieces))
    ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
    assert [end for _, end in frames.parts(path, 1)] == ends  # type: ignore[misc]


def test_a_damaged_file_is_named(tmp_path, packed):
    data = packed.read_bytes()
    cut = tmp_path / "cut.jsonl.zst"
    for left in (len(data) - 1, len(data) - 40):
        cut.write_bytes(data[:left])
        with pytest.raises(RowError, match=r"cut\.jsonl\.zst: cut off inside a frame"):
            frames.parts(cut, 1)
    cut.write_bytes(data + b"no frame of any kind")
    with pytest.raises(RowError, match=f"no frame of zstd at byte {len(data)}"):
        frames.parts(cut, 1)


def test_a_frame_that_ends_inside_a_line_is_no_silent_loss(tmp_path):
    path = tmp_path / "torn.jsonl.zst"
    path.write_bytes(b"".join(map(zstandard.ZstdCompressor().compress, (b'{"a": ', b"1}\n"))))
    first, _ = frames.parts(path, 1)
    with pytest.raises(RowError, match="ends inside a line"):
        list(frames.lines(path, first))
