"""LlamaEngine's child process: threads that share it, its crashes, its end, its memory."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from gguf_bytes import ARRAY, STRING, UINT32, Gguf, Tensor, array, text
from tiny_gguf import TEXT, write_tiny

from phikit.engine import llama_c
from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.llama import EngineCrashed, LlamaEngine


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_tiny(path)
    return path


@pytest.fixture(scope="module")
def engine(path):
    engine = LlamaEngine(path, parallel=4, threads=1)
    yield engine
    engine.close()


def ids(rng: random.Random, n: int) -> tuple[int, ...]:
    return tuple(rng.randrange(300) for _ in range(n))


def test_many_threads_share_the_engine(engine):
    prompts = [tuple(engine.encode(TEXT[i : i + 30])) for i in range(12)]
    alone = [next(engine.generate([GenRequest(p, 8, temperature=0.0)]))[1][0].tokens for p in prompts]
    scores = engine.score([ScoreRequest(p, (5, 6)) for p in prompts])
    wrong: list[object] = []

    def work(i: int) -> None:
        try:
            for _ in range(3):
                said = tuple(
                    t for p in engine.stream(GenRequest(prompts[i], 8, temperature=0.0)) for t in p.tokens
                )
                ((_, (c,)),) = engine.generate([GenRequest(prompts[i], 8, temperature=0.0)])
                if engine.score([ScoreRequest(prompts[i], (5, 6))]) != [scores[i]]:
                    wrong.append(("score", i))
                if engine.decode(engine.encode(TEXT)) != TEXT:
                    wrong.append(("text", i))
                wrong.extend((i, x) for x in (said, c.tokens) if x[:4] != alone[i][:4])
        except Exception as e:
            wrong.append(e)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not wrong
    assert not engine._child.waiting


def test_a_killed_child_is_an_error_and_the_next_call_starts_it_again(path):
    engine = LlamaEngine(path, threads=1)
    try:
        prompt = tuple(engine.encode(TEXT[:20]))
        stream = engine.stream(GenRequest(prompt, 200))
        next(stream)
        first = engine.pid
        os.kill(first, signal.SIGKILL)
        with pytest.raises(EngineCrashed, match=r"tiny\.gguf.*signal 9"):
            list(stream)
        assert engine.decode(prompt) == TEXT[:20]
        assert engine.pid != first
        os.kill(engine.pid, signal.SIGKILL)
        time.sleep(0.3)
        assert engine.score([ScoreRequest(prompt, (5,))])[0].tokens == 1
    finally:
        engine.close()


PARENT = """
import os, sys, time
from pathlib import Path
from phikit.engine.llama import LlamaEngine
engine = LlamaEngine(Path(sys.argv[1]), threads=1)
holder = os.fork()  # has the write end of the child's stdin too, so that the child sees no end of it
if holder == 0:
    time.sleep(60)
    os._exit(0)
print(engine.pid, holder, flush=True)
time.sleep(60)
"""


def test_the_child_ends_when_its_parent_is_killed(path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child, holder = map(int, parent.stdout.readline().split())
    assert running(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    try:
        end = time.monotonic() + 15
        while running(child) and time.monotonic() < end:
            time.sleep(0.1)
        assert not running(child)
    finally:
        os.kill(holder, signal.SIGKILL)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_close_leaves_no_process_and_can_be_called_twice(path):
    engine = LlamaEngine(path, threads=1)
    pid = engine.pid
    stream = engine.stream(GenRequest(tuple(engine.encode(TEXT[:20])), 200))
    next(stream)
    engine.close()
    engine.close()
    assert not running(pid)
    with pytest.raises(EngineCrashed, match="closed"):
        list(stream)


@pytest.mark.parametrize(
    "name, value, said",
    [
        (b"phi3.rope.dimension_count", 3, r"signal 6.*GGML_ASSERT"),
        (b"phi3.attention.head_count", 3, "wrong shape"),
        (b"phi3.block_count", 99, "not found"),
    ],
)
def test_a_file_that_llama_cpp_chokes_on_is_a_value_error(path, tmp_path, name, value, said):
    """Keys that make it abort or miss tensors. The header itself is well formed."""
    data = bytearray(path.read_bytes())
    at = data.index(len(name).to_bytes(8, "little") + name) + 8 + len(name)
    assert data[at : at + 4] == (4).to_bytes(4, "little")  # a uint32
    data[at + 4 : at + 8] = value.to_bytes(4, "little")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(data)
    with pytest.raises(ValueError, match=rf"broken\.gguf.*cannot load this model: .*{said}"):
        LlamaEngine(broken, threads=1)


KEYS = [
    ("general.architecture", STRING, text("phi3")),
    ("phi3.context_length", UINT32, b"\1\1\0\0"),
    ("tokenizer.ggml.tokens", ARRAY, array(STRING, [text("a")])),
]


def test_llama_cpp_never_sees_a_file_that_the_check_refuses(path, tmp_path, monkeypatch):
    def library():
        raise AssertionError("llama.cpp was asked")

    monkeypatch.setattr(llama_c, "_library", library)
    raw = path.read_bytes()
    with pytest.raises(AssertionError, match="was asked"):
        llama_c.Model(str(path), 1)
    for name, data, words in (
        ("cut", raw[:-1], "the file is cut"),
        ("magic", b"GGML" + raw[4:], "not a GGUF file"),
        ("overlap", Gguf(KEYS, [Tensor(), Tensor("b", offset=96)], 256).bytes(), "overlap"),
        ("split", Gguf([*KEYS, ("split.count", UINT32, b"\2\0\0\0")]).bytes(), "one part of a split GGUF"),
    ):
        (tmp_path / f"{name}.gguf").write_bytes(data)
        with pytest.raises(ValueError, match=words):
            llama_c.Model(str(tmp_path / f"{name}.gguf"), 1)
    with pytest.raises(FileNotFoundError):
        llama_c.Model(str(tmp_path / "none.gguf"), 1)


def test_a_file_that_changed_is_checked_again_when_the_child_starts_again(path, tmp_path):
    own = tmp_path / "m.gguf"
    own.write_bytes(path.read_bytes())
    engine = LlamaEngine(own, threads=1)
    try:
        os.kill(engine.pid, signal.SIGKILL)
        own.unlink()
        own.write_bytes(path.read_bytes()[:-1])
        for _ in range(2):  # the first call may still find the old child
            with pytest.raises((EngineCrashed, ValueError)) as e:
                engine.encode("the cat")
        assert "the file is cut" in str(e.value)
    finally:
        engine.close()


def test_nothing_else_opens_llama_cpp():
    """So that the check stands before it. corpus/sources.py reads its description, serve/doctor.py asks whether it is
    there."""
    source = Path(llama_c.__file__).parents[1]
    named = [p.relative_to(source).as_posix() for p in source.rglob("*.py") if "xllamacpp" in p.read_text()]
    assert sorted(named) == ["corpus/sources.py", "engine/llama_c.py", "serve/doctor.py"]
    loads = [p.name for p in source.rglob("*.py") if "llama_model_load" in p.read_text()]
    assert loads == ["llama_c.py"]


def test_memory_stays_flat(engine):
    rng = random.Random(3)

    def pages() -> int:
        return int(Path(f"/proc/{engine.pid}/statm").read_text().split()[1])

    def load() -> None:
        list(engine.generate([GenRequest(ids(rng, 150), 20, n=3) for _ in range(4)]))
        engine.score([ScoreRequest(ids(rng, 100), ids(rng, 40)) for _ in range(3)])
        list(engine.generate([GenRequest(ids(rng, 9), 9, json_schema='{"type": "object"}')]))

    for _ in range(3):
        load()
    before = pages()
    for _ in range(10):
        load()
    assert (pages() - before) * 4096 < 8e6


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prompt": ()}, "empty"),
        ({"prompt": (1, 10**6)}, "0 to 319"),
        ({"prompt": (-1,)}, "0 to 319"),
        ({"n": 0}, "at least 1"),
        ({"max_tokens": -5}, "at least 1"),
        ({"grammar": "root ::= ("}, "GBNF"),
        ({"grammar": 'root ::= "a"', "json_schema": "{}"}, "not both"),
        ({"json_schema": '{"type": "nonsense"}'}, "schema"),
        ({"json_schema": "not json"}, "schema"),
    ],
)
def test_bad_requests_are_refused_and_the_child_lives_on(engine, change, message):
    fields = {"prompt": (1, 2), "max_tokens": 3, **change}
    pid = engine.pid
    with pytest.raises(ValueError, match=message):
        list(engine.generate([GenRequest(**fields)]))
    assert engine.decode(engine.encode("still here")) == "still here"
    assert engine.pid == pid
