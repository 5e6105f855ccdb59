"""Files behind URLs: memory and HTTP stores, with and without ranges, and what goes wrong there."""

from __future__ import annotations

import io
import subprocess
import sys

import fsspec
import numpy as np
import pytest
from range_server import serving

from phikit.mixture.loader import Loader, open_sources
from phikit.mixture.order import Phase
from phikit.mixture.shards import TokenShard, make_shard
from phikit.records import remote
from phikit.records.arrays import RemoteArray, load_array
from phikit.records.remote import Remote, Unreachable, files_under, place

TEXT = b"".join(b"line %d\n" % i for i in range(5000))


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    remote._ranges.cache_clear()
    memory = fsspec.filesystem("memory")
    yield
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def put(url: str, data: bytes) -> str:
    with fsspec.open(url, "wb") as f:
        f.write(data)
    return url


def test_local_paths_import_no_fsspec(tmp_path):
    code = (
        "import sys\nfrom phikit.corpus.folders import Folder, folder_documents\n"
        "from phikit.corpus import pipeline\nfrom phikit.records.remote import place\n"
        f"print(len(list(folder_documents(Folder(place({str(tmp_path)!r}), 'x')))))\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('fsspec', 'aiohttp')]\n"
    )
    (tmp_path / "a.txt").write_text("text")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_without_fsspec_or_its_helpers_the_error_says_what_to_install(monkeypatch):
    with pytest.raises(ValueError, match=r"s3://bucket/a: fsspec needs another package .*pip install s3fs"):
        files_under(Remote("s3://user:secret@bucket/a"))
    with pytest.raises(ValueError, match=r"nosuch://a: fsspec knows no such protocol"):
        files_under(Remote("nosuch://a"))
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(
        ValueError, match=r"gs://b/c: URLs are read by fsspec: pip install 'phikit\[remote\]'"
    ):
        files_under(Remote("gs://b/c"))
    with pytest.raises(ValueError, match=r"^s3://bucket/a: leave the log-in out of the URL"):
        place("s3://user:secret@bucket/a")
    with pytest.raises(ValueError, match="chained URLs"):
        place("zip://a.txt::s3://b/c.zip")


def test_a_listing_has_the_order_of_a_local_folder(tmp_path):
    names = ["b/a.txt", "b.txt", "a b.txt", "b-c/x.txt", "b/A/z.txt"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        put(f"memory://bucket/in/{name}", name.encode())
    put("memory://bucket/in2/other.txt", b"not under it")
    local = [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*")) if p.is_file()]
    found = files_under(Remote("memory://bucket/in"))
    assert [name for name, _ in found] == local
    assert [f.read_bytes().decode() for _, f in found] == local
    assert str(found[0][1]) == f"memory://bucket/in/{local[0]}"
    (alone,) = files_under(Remote("memory://bucket/in/b.txt"))
    assert alone == ("b.txt", Remote("memory://bucket/in/b.txt"))
    with pytest.raises(ValueError, match="memory://bucket/none: there is no file under this URL"):
        files_under(Remote("memory://bucket/none"))


@pytest.mark.parametrize("ranges", [True, False])
def test_http_files_are_read_in_parts_where_the_server_gives_them(tmp_path, ranges):
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/a.txt").write_bytes(TEXT)
    (tmp_path / "in/sub/b.txt").write_bytes(b"b")
    with serving(tmp_path) as (store, url):
        store.ranges = ranges
        found = files_under(Remote(f"{url}/in"))
        assert [name for name, _ in found] == ["a.txt", "sub/b.txt"]
        file = found[0][1]
        assert (file.stat().st_size, file.ranges) == (len(TEXT), ranges)
        with file.open("rb", 1000) as f:
            assert f.read() == TEXT
        with file.copy() as path:
            assert (path.name, path.read_bytes()) == ("a.txt", TEXT)
        if ranges:
            with file.open() as f:
                f.seek(-7, io.SEEK_END)
                assert f.readline() == TEXT[-7:].partition(b"\n")[0] + b"\n"
            assert file.read_range(10, 20) == TEXT[10:20]
        else:
            with pytest.raises(Unreachable, match=f"bytes 10-19 were asked for, {len(TEXT):,} bytes came"):
                file.read_range(10, 20)


def test_a_request_is_tried_again_and_then_the_url_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT)
    with serving(tmp_path) as (store, url):
        file = Remote(f"{url}/a.txt?key=secret")
        assert file.ranges
        store.fail = remote.TRIES - 1
        assert file.read_range(0, 4) == b"line"
        store.fail = remote.TRIES
        with pytest.raises(Unreachable, match=rf"{url}/a.txt: no answer in 3 tries .*503") as e:
            file.read_range(0, 4)
        assert "secret" not in str(e.value)
        (tmp_path / "a.txt").unlink()
        with pytest.raises(Unreachable, match=r"a\.txt: FileNotFoundError"):
            file.read_range(0, 4)
    with pytest.raises(ValueError, match="check the address"):
        files_under(Remote(f"{url}/in"))  # nobody listens any more


def test_arrays_are_read_by_slices():
    array = np.arange(10_000, dtype=np.uint32) * 7
    buffer = io.BytesIO()
    np.save(buffer, array)
    file = Remote(put("memory://b/tokens.npy", buffer.getvalue()))
    streamed = RemoteArray(file, block=1000, keep=3)
    assert (len(streamed), streamed.dtype) == (10_000, np.uint32)
    for a, b in [(0, 10), (5, 5), (240, 1200), (9_990, 20_000), (0, None), (-3, None)]:
        np.testing.assert_array_equal(streamed[a:b], array[a:b])
    assert len(streamed._blocks) == 3
    put("memory://b/cut.npy", buffer.getvalue()[:-1])
    with pytest.raises(ValueError, match=r"memory://b/cut\.npy: .* cut short"):
        load_array(Remote("memory://b/cut.npy"))
    put("memory://b/no.npy", b"nothing of the kind")
    with pytest.raises(ValueError, match=r"not a \.npy file"):
        load_array(Remote("memory://b/no.npy"))


def test_training_rows_from_a_url_are_those_of_the_local_shards(tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (("text", 60), ("code", 40)):
        encoded = [(rng.integers(0, 1000, k).tolist(), [100] * k) for k in rng.integers(5, 90, n)]
        make_shard(encoded).save(tmp_path / name, [str(i) for i in range(n)])
    phases = [Phase(1000, {"text": 0.7, "code": 0.3})]

    def batches(folder):
        loader = Loader(open_sources(folder, ("text", "code"), 64, 1), phases, 1, 0)
        return [loader.batch(i, 8) for i in (0, 40, 8)]

    with serving(tmp_path) as (_, url):
        mine, streamed = batches(tmp_path), batches(Remote(url + "/"))
        assert isinstance(TokenShard.load(Remote(f"{url}/text")).tokens, RemoteArray)
    for a, b in zip(mine, streamed):
        for name in ("tokens", "targets", "weight", "segment", "position"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
