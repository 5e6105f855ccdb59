"""The fuzzer's mutations without its guidance: a few inputs of each target in every run of the tests."""

from __future__ import annotations

import random

import pytest
import targets
import templates
from gguf_mutator import mutate as mutate_gguf
from gguf_mutator import parse
from json_mutator import mutate_safetensors, mutate_tokenizer
from seeds import write_seeds

MUTATORS = {"gguf": mutate_gguf, "safetensors": mutate_safetensors, "tokenizer": mutate_tokenizer}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> dict[str, list[bytes]]:
    folder = tmp_path_factory.mktemp("seeds")
    write_seeds(folder)
    return {t: [p.read_bytes() for p in sorted((folder / t).iterdir())] for t in MUTATORS}


@pytest.mark.parametrize("target", MUTATORS)
def test_changed_files_are_read_or_refused(target, seeds):
    rng, accepted, refused = random.Random(0), 0, 0
    assert all(targets.run(target, data) for data in seeds[target])
    for _ in range(300):
        data = rng.choice(seeds[target])
        for _ in range(rng.choice((1, 1, 2, 3))):
            data = MUTATORS[target](data, rng, targets.MAX_SIZE)
        if targets.run(target, data):
            accepted += 1
        else:
            refused += 1
    assert accepted > 10  # what is changed stays sound often enough to get behind the check
    assert refused > 60


def test_a_target_finds_what_it_looks_for(monkeypatch):
    def broken(data: bytes) -> None:
        raise KeyError("x")

    monkeypatch.setitem(targets.TARGETS, "gguf", broken)
    with pytest.raises(KeyError):
        targets.run("gguf", b"")
    monkeypatch.setitem(targets.TARGETS, "gguf", lambda data: sum(range(10**6)))
    monkeypatch.setattr(targets, "SECONDS", 1e-6)
    with pytest.raises(TimeoutError, match="of processor time for 0 bytes"):
        targets.run("gguf", b"")


def test_a_gguf_is_the_same_after_it_was_taken_apart(seeds):
    for data in seeds["gguf"]:
        again = parse(data).bytes()
        assert len(again) == len(data)
        assert targets.check_gguf(again) == targets.check_gguf(data)


def test_templates_end_and_reach_nothing():
    row = templates.fuzz(40, 7, slow=0.0)
    assert not row["findings"]
    assert row["outcomes"]["refused"] + row["outcomes"].get("text", 0) > 30


ESCAPES = ("open('x', 'w')", "__import__('os').system('true')", "__import__('socket').socket()")


@pytest.mark.parametrize("code", ESCAPES)
def test_the_watch_ends_a_process_that_gets_out(code):
    """As a template would that had found a way around the sandbox."""
    child = templates.Child(f"from phikit.engine import template_child as c; c.refuse = lambda m: {code}; ")
    try:
        assert child.ask("{{ 1 }}") is not None
        assert child.ask("{{ raise_exception('x') }}") is None
    finally:
        status, _ = child.close()
    assert status == templates.STATUS
