"""The model store: names, manifests, blobs, an installed Ollama's folder, models outside the store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phikit.store import local, manifest, names
from phikit.store.blobs import Blobs, DiskFull, WrongDigest
from phikit.store.manifest import Layer, Manifest
from phikit.store.names import BadName, ModelName, parse, parse_digest
from phikit.store.store import ModelNotFound, Store


@pytest.mark.parametrize(
    ("text", "shown", "parts"),
    [
        ("phi4", "phi4:latest", ("registry.ollama.ai", "library", "phi4", "latest")),
        ("vanilj/Phi-4", "vanilj/Phi-4:latest", ("registry.ollama.ai", "vanilj", "Phi-4", "latest")),
        ("phi4:14b-q8_0", "phi4:14b-q8_0", ("registry.ollama.ai", "library", "phi4", "14b-q8_0")),
        ("hf.co/org/Repo.GGUF:Q4_K_M", "hf.co/org/Repo.GGUF:Q4_K_M", ("hf.co", "org", "Repo.GGUF", "Q4_K_M")),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", ("localhost:5000", "a", "b", "c")),
        ("https://example.com/a/b", "example.com/a/b:latest", ("example.com", "a", "b", "latest")),
    ],
)
def test_names(text, shown, parts):
    name = parse(text)
    assert str(name) == shown
    assert name == ModelName(*parts)
    assert parse(str(name)) == name
    assert parse(text.upper().replace("HTTPS://", "")).key == name.key


@pytest.mark.parametrize(
    "text",
    ["", "/", "a/", ":x", "a:", "..", "a/../b", "a//b", "a\\b", "a b", "a\nb", ".a", "-a", "a:b:c", "x" * 81],
)
def test_no_names(text):
    with pytest.raises(BadName, match="invalid model name"):
        parse(text)


@given(st.text(max_size=40))
def test_a_name_never_leaves_its_folder(text):
    try:
        name = parse(text)
    except BadName:
        return
    for part in (name.host, name.namespace, name.model, name.tag):
        assert part not in (".", "..")
        assert not set(part) & set("/\\\0")


def test_digests():
    assert parse_digest("sha256:" + "a" * 64) == parse_digest("sha256-" + "a" * 64)
    for wrong in ("sha256:" + "A" * 64, "a" * 64, "sha256:../x", "sha256:" + "a" * 64 + "\n"):
        with pytest.raises(BadName):
            parse_digest(wrong)


def made(store: Store, name: str, data: bytes, **texts: str):
    digest, size = store.blobs.put([data])
    layers = [Layer("model", digest, size), *(store.text_layer(k, v) for k, v in texts.items())]
    return store.save(parse(name), Manifest(store.config_layer({"model_format": "gguf"}), tuple(layers)))


def test_save_find_copy_remove(tmp_path):
    store = Store(tmp_path)
    entry = made(store, "team/Model", b"weights", system="be kind", params='{"stop": ["x"]}', license="MIT")
    parts = store.parts(store.find("TEAM/model:LATEST"))
    assert parts.weights.read_bytes() == b"weights"
    assert (parts.system, parts.parameters, parts.licenses) == ("be kind", {"stop": ["x"]}, ("MIT",))
    copied = store.copy("team/model", parse("other:v1"))
    assert copied.manifest == entry.manifest
    assert [str(e.name) for e in store.entries()] == ["other:v1", "team/Model:latest"]
    store.remove("team/model")
    assert store.parts(store.find("other:v1")).weights.read_bytes() == b"weights"
    store.remove("other:v1")
    assert not list(store.blobs.folder.iterdir())
    assert not list((tmp_path / "manifests").iterdir())
    with pytest.raises(ModelNotFound, match="model 'other:v1' not found"):
        store.find("other:v1")


def test_another_spelling_takes_the_place_of_the_old(tmp_path):
    store = Store(tmp_path)
    made(store, "Phi", b"1")
    made(store, "PHI", b"2")
    assert [str(e.name) for e in store.entries()] == ["PHI:latest"]


def test_the_layout_is_ollamas(tmp_path):
    store = Store(tmp_path)
    made(store, "vanilj/Phi-4", b"w")
    path = tmp_path / "manifests/registry.ollama.ai/vanilj/Phi-4/latest"
    value = json.loads(path.read_bytes())
    assert value["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert value["layers"][0]["mediaType"] == "application/vnd.ollama.image.model"
    assert (tmp_path / "blobs" / f"sha256-{hashlib.sha256(b'w').hexdigest()}").is_file()
    assert store.find("vanilj/Phi-4").digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_models_of_an_ollama_are_used_where_they_lie(tmp_path):
    theirs, ours = Store(tmp_path / "ollama"), Store(tmp_path / "ours", [tmp_path / "ollama"])
    made(theirs, "phi4", b"theirs", template="{{ .Prompt }}")
    before = sorted(p.name for p in (tmp_path / "ollama").rglob("*"))
    entry = ours.find("phi4")
    assert ours.parts(entry).weights.parent == tmp_path / "ollama" / "blobs"
    assert not (tmp_path / "ours").exists()
    with pytest.raises(ValueError, match="ollama rm phi4:latest"):
        ours.remove("phi4")
    ours.copy("phi4", parse("vanilj/Phi-4"))
    assert ours.parts(ours.find("vanilj/Phi-4")).template == "{{ .Prompt }}"
    assert not list(ours.blobs.folder.glob("*"))
    assert sorted(p.name for p in (tmp_path / "ollama").rglob("*")) == before
    made(ours, "phi4", b"ours")
    assert ours.parts(ours.find("phi4")).weights.read_bytes() == b"ours"
    shutil.rmtree(tmp_path / "ollama")
    with pytest.raises(ValueError, match="was changed or removed"):
        ours.parts(ours.find("vanilj/Phi-4"))


def test_a_file_outside_is_not_copied_and_changes_are_noticed(tmp_path):
    store = Store(tmp_path / "store")
    path = tmp_path / "m.gguf"
    path.write_bytes(b"one")
    entry = store.remember(parse("m"), local.manifest_of(store, path, copy=False))
    assert store.parts(entry).weights == path
    assert not any(p.read_bytes() == b"one" for p in store.blobs.folder.iterdir())
    kept = store.copy("m", parse("kept"))
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match=r"m\.gguf was changed or removed"):
        store.parts(kept)


def test_a_folder_of_safetensors(tmp_path):
    store = Store(tmp_path / "store")
    folder = tmp_path / "hf"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors", "README.md", "training_args.bin"):
        (folder / name).write_text("{}")
    outside = store.remember(parse("a"), local.manifest_of(store, folder, copy=False))
    assert store.parts(outside).weights == folder
    inside = local.import_path(store, parse("b"), folder)
    found = store.parts(inside).weights
    assert sorted(p.name for p in found.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="pickle"):
        local.manifest_of(store, folder, copy=True)


def test_what_a_path_means(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        local.weights_of(tmp_path / "none")
    with pytest.raises(ValueError, match="none of export, dpo2, dpo1, sft"):
        local.weights_of(tmp_path)
    for stage in ("sft", "dpo1"):
        (tmp_path / stage / "hf").mkdir(parents=True)
        (tmp_path / stage / "hf" / "config.json").write_text("{}")
    assert local.weights_of(tmp_path) == tmp_path / "dpo1" / "hf"
    assert local.weights_of(tmp_path / "sft") == tmp_path / "sft" / "hf"
    with pytest.raises(ValueError, match=r"not a \.gguf"):
        local.weights_of(tmp_path / "sft" / "hf" / "config.json")


def test_blobs_appear_whole_or_not_at_all(tmp_path):
    blobs = Blobs(tmp_path)

    def broken():
        yield b"some"
        raise ConnectionError("cut")

    with pytest.raises(ConnectionError):
        blobs.put(broken())
    with pytest.raises(WrongDigest, match="digest mismatch, expected sha256:0000"):
        blobs.put([b"x"], "sha256:" + "0" * 64)
    assert list(blobs.folder.iterdir()) == []
    digest, size = blobs.put([b"a", b"b"])
    assert (digest, size) == (f"sha256:{hashlib.sha256(b'ab').hexdigest()}", 2)
    with pytest.raises(DiskFull, match=r"GB to write, .* GB free"):
        blobs.check_room(1 << 60)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"layers": 5, "config": {}}',
        b'{"layers": [{}], "config": {}}',
        b"\xff",
        b"[" * 5000,
        b'{"layers": [], "config": {"mediaType": "x", "digest": "sha256:../../x", "size": 1}}',
        b'{"layers": [], "config": {"mediaType": "x", "digest": "sha256:' + b"a" * 64 + b'", "size": -1}}',
        b'{"config": {"mediaType": "x", "digest": "sha256:'
        + b"a" * 64
        + b'", "size": 1}, "layers": [{"mediaType":'
        b' "application/vnd.phikit.file", "digest": "sha256:'
        + b"a" * 64
        + b'", "size": 1, "name": "../x"}]}',
        b'{"layers": [], "config": {"mediaType": "x", "digest": "sha256:'
        + b"a" * 64
        + b'", "size": 1, "from": "/etc/passwd",'
        b' "stamp": "1:1"}}',
    ],
)
def test_manifests_of_others_are_not_trusted(data):
    with pytest.raises(ValueError, match="here: not a model manifest"):
        manifest.read(data, "here")


def test_a_manifest_comes_back_as_it_was(tmp_path):
    layer = Layer("file", "sha256:" + "a" * 64, 5, "config.json", "/x/config.json", "5:1")
    whole = Manifest(Layer("config", "sha256:" + "b" * 64, 2), (layer,))
    assert manifest.read(whole.bytes(), "x", own=True) == whole


def test_damaged_manifests_do_not_hide_the_others(tmp_path):
    store = Store(tmp_path)
    made(store, "good", b"w")
    bad = tmp_path / "manifests/registry.ollama.ai/library/bad/latest"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"junk")
    assert [str(e.name) for e in store.entries()] == ["good:latest"]
    with pytest.raises(ValueError, match="not a model manifest"):
        store.find("bad")


def test_a_missing_blob_says_what_to_do(tmp_path):
    store = Store(tmp_path)
    entry = made(store, "m", b"weights")
    store.blobs.path(entry.manifest.layers[0].digest).write_bytes(b"cut")
    with pytest.raises(ValueError, match="3 bytes, 7 expected: pull the model again"):
        store.parts(entry)
    store.blobs.path(entry.manifest.layers[0].digest).unlink()
    with pytest.raises(ValueError, match="is missing: pull the model again"):
        store.parts(entry)


def test_the_hosts_of_the_hub():
    assert parse("hf.co/org.name/repo").namespace == "org.name"
    assert names.HUB == "hf.co"
