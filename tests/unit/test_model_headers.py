"""Headers of GGUF and safetensors files: what is wrong is a ValueError, at once, whatever the bytes claim."""

from __future__ import annotations

import json
import random
import struct
import time
import tracemalloc

import pytest
from gguf_bytes import ARRAY, BOOL, FLOAT32, STRING, UINT32, UINT64, Gguf, Tensor, array, text
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phikit.model.gguf_header import MAX_HEADER, MAX_ITEMS, TENSOR_TYPES, check_gguf, read_gguf_header
from phikit.model.safetensors_header import MAX_HEADER as MAX_JSON
from phikit.model.safetensors_header import check_safetensors, read_safetensors_header


def u32(n: int) -> bytes:
    return struct.pack("<I", n)


def u64(n: int) -> bytes:
    return struct.pack("<Q", n)


def sound() -> Gguf:
    keys = [
        ("general.architecture", STRING, text("phi3")),
        ("general.alignment", UINT32, u32(32)),
        ("n", UINT64, u64(2**40)),
        ("yes", BOOL, b"\1"),
        ("half", FLOAT32, struct.pack("<f", 0.5)),
        ("tokens", ARRAY, array(STRING, [text("a"), text("\u00e9"), text("")])),
        ("kinds", ARRAY, array(UINT32, [u32(1), u32(3)])),
        ("bits", ARRAY, array(BOOL, [b"\0", b"\1"])),
    ]
    return Gguf(keys, [Tensor("a.weight", (8, 4)), Tensor("b.weight", (32, 3), 8, 128)], data=128 + 102)


def sound_safetensors(**changes) -> bytes:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [], "data_offsets": [24, 26]},
        "empty": {"dtype": "I64", "shape": [0, 7], "data_offsets": [26, 26]},
    }
    raw = json.dumps({**header, **changes}).encode()
    return u64(len(raw)) + raw + b"\1" * 26


# -- GGUF --------------------------------------------------------------------------------------------------


def test_a_sound_gguf():
    data = sound().bytes()
    header = check_gguf(data)
    assert header.keys["general.architecture"] == "phi3"
    assert (header.keys["n"], header.keys["yes"], header.keys["half"]) == (2**40, True, 0.5)
    assert header.keys["tokens"] == ["a", "\u00e9", ""]
    assert list(header.keys["kinds"]) == [1, 3]
    assert header.keys["bits"] == [False, True]
    a, b = header.tensors["a.weight"], header.tensors["b.weight"]
    assert (a.type, a.shape, a.size) == ("F32", (4, 8), 128)
    assert (b.type, b.shape, b.size) == ("Q8_0", (3, 32), 102)
    assert b.start == a.start + 128
    assert b.start + b.size == len(data)
    assert a.start % 32 == 0
    assert check_gguf(memoryview(data)) == check_gguf(bytearray(data)) == header


def test_block_sizes_are_those_of_the_gguf_package():
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    for number, (name, block, size) in TENSOR_TYPES.items():
        assert GGML_QUANT_SIZES[GGMLQuantizationType(number)] == (block, size), name
        assert GGMLQuantizationType(number).name == name


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [8, 64])
def test_versions_and_alignments(version, alignment):
    g = Gguf(
        [("general.alignment", UINT32, u32(alignment))], [Tensor()], 128, version=version, alignment=alignment
    )
    header = check_gguf(g.bytes())
    assert header.tensors["a.weight"].start % alignment == 0


BAD = {
    "magic": ({"magic": b"GGML"}, "not a GGUF"),
    "version": ({"version": 1}, "GGUF version 1"),
    "big-endian": ({"version": 0x03000000}, "big-endian"),
    "tensor count": ({"n_tensors": 2**64 - 1}, "claims"),
    "key count": ({"n_keys": 2**17}, "claims"),
    "one key too many": ({"n_keys": 99}, "damaged|past the end|bytes"),
    "no data": ({"data": 0}, "the file is cut"),
    "one byte missing": ({"data": 229}, "the file is cut"),
}
BAD_KEYS = {
    "twice": ([("k", UINT32, u32(1)), ("k", UINT32, u32(1))], "'k' is there twice"),
    "no name": ([("", UINT32, u32(1))], "name of a key"),
    "long name": ([("k" * 70_000, UINT32, u32(1))], "name of a key"),
    "no UTF-8": ([("k", STRING, text(b"\xff\xfe"))], "damaged near"),
    "unknown type": ([("k", 13, b"")], "unknown value type 13"),
    "string past the end": ([("k", STRING, u64(2**63) + b"ab")], "past the end"),
    "endless array": ([("k", ARRAY, array(UINT32, [], 2**62))], "past the end"),
    "array of many strings": ([("k", ARRAY, array(STRING, [], 2**40))], "the most of a file"),
    "array of many truths": ([("k", ARRAY, array(BOOL, [], MAX_ITEMS + 1))], "the most of a file"),
    "array of strings past the end": ([("k", ARRAY, array(STRING, [text("a")], 1000))], "past the end"),
    "array of arrays": ([("k", ARRAY, array(ARRAY, [array(UINT32, [])]))], "arrays in an array"),
    "array of unknown": ([("k", ARRAY, array(99, []))], "unknown type 99"),
    "truth": ([("k", BOOL, b"\2")], "neither 0 nor 1"),
    "alignment 0": ([("general.alignment", UINT32, u32(0))], "not a power of two"),
    "alignment 24": ([("general.alignment", UINT32, u32(24))], "not a power of two"),
    "alignment 2^31": ([("general.alignment", UINT32, u32(2**31))], "not a power of two"),
    "alignment of another type": ([("general.alignment", UINT64, u64(32))], "must be a uint32"),
}
BAD_TENSORS = {
    "twice": ([Tensor(), Tensor(offset=128)], "'a.weight' is there twice"),
    "no name": ([Tensor("")], "name of a tensor"),
    "no dimension": ([Tensor(dims=())], "0 dimensions"),
    "five dimensions": ([Tensor(dims=(1, 1, 1, 1, 1))], "5 dimensions"),
    "empty": ([Tensor(dims=(8, 0))], "cannot be right"),
    "product over 64 bits": ([Tensor(dims=(2**32, 2**32, 2**32, 2))], "cannot be right"),
    "one large dimension": ([Tensor(dims=(2**63, 1))], "cannot be right"),
    "unknown type": ([Tensor(kind=4)], "unknown type 4"),
    "only while computing": ([Tensor(dims=(256, 1), kind=15)], "unknown type 15"),
    "broken block": ([Tensor(dims=(33, 2), kind=8)], "Q8_0 blocks of 32"),
    "unaligned": ([Tensor(offset=8)], "not a multiple of the alignment"),
    "outside": ([Tensor(offset=1 << 20)], "the file is cut"),
    "far outside": ([Tensor(offset=2**64 - 32)], "the file is cut"),
    "overlap": ([Tensor(), Tensor("b", offset=96)], "'a.weight' and 'b' overlap"),
    "the same place": ([Tensor("b"), Tensor("a")], "overlap"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_counts_and_sizes(name):
    changes, words = BAD[name]
    g = sound()
    for key, value in changes.items():
        setattr(g, key, value)
    with pytest.raises(ValueError, match=words):
        check_gguf(g.bytes())


@pytest.mark.parametrize("name", BAD_KEYS)
def test_wrong_keys(name):
    keys, words = BAD_KEYS[name]
    with pytest.raises(ValueError, match=words):
        check_gguf(Gguf(keys, [Tensor()], 128).bytes())


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_wrong_tensors(name):
    tensors, words = BAD_TENSORS[name]
    with pytest.raises(ValueError, match=words):
        check_gguf(Gguf([], tensors, 256).bytes())


def test_a_header_beyond_the_limit_is_refused():
    data = Gguf([("k", STRING, u64(MAX_HEADER))]).bytes()
    with pytest.raises(ValueError, match=f"run past {MAX_HEADER} bytes of header"):
        check_gguf(data + bytes(MAX_HEADER))


def test_memory_is_bounded():
    """Short strings cost most for their bytes."""
    data = Gguf([("k", ARRAY, array(STRING, [text("ab") * 50_000], MAX_ITEMS))]).bytes()
    tracemalloc.start()
    with pytest.raises(ValueError, match="past the end"):
        check_gguf(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * len(data)


def test_files_name_themselves(tmp_path):
    path = tmp_path / "m.gguf"
    with pytest.raises(FileNotFoundError, match=r"m\.gguf"):
        read_gguf_header(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"m\.gguf: the file is empty"):
        read_gguf_header(path)
    path.write_bytes(sound().bytes()[:-1])
    with pytest.raises(ValueError, match=r"m\.gguf: tensor 'b\.weight' ends at byte"):
        read_gguf_header(path)
    path.write_bytes(sound().bytes())
    assert set(read_gguf_header(path).tensors) == {"a.weight", "b.weight"}


# -- safetensors -------------------------------------------------------------------------------------------


def test_a_sound_safetensors_file(tmp_path):
    from safetensors.numpy import load

    data = sound_safetensors()
    found = check_safetensors(data)
    assert set(found) == {"a", "b", "empty"}
    assert (found["a"].type, found["a"].shape, found["a"].size) == ("F32", (2, 3), 24)
    assert found["b"].start == found["a"].start + 24
    assert set(load(sound_safetensors(b={"dtype": "I16", "shape": [], "data_offsets": [24, 26]}))) == set(
        found
    )
    path = tmp_path / "m.safetensors"
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match=r"m\.safetensors: not a sound safetensors file: the tensors end"):
        read_safetensors_header(path)


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


BAD_ENTRIES = {
    "dtype": (entry("F33"), "unknown dtype 'F33'"),
    "dtype of another type": ({**entry(), "dtype": ["F32"]}, "unknown dtype"),
    "negative shape": (entry(shape=(-2, -3)), "whole numbers"),
    "a truth as a shape": (entry(shape=(True, 6)), "whole numbers"),
    "many dimensions": (entry(shape=(1,) * 9), "whole numbers"),
    "huge shape": (entry(shape=(2**60, 2**60)), "whole numbers"),
    "product beyond 64 bits": (entry(shape=(2**50, 2**50)), "takes"),
    "shape against size": (entry(shape=(2, 4)), "takes 32 bytes, not 24"),
    "end before begin": (entry(offsets=(24, 0)), "begin and end"),
    "three offsets": (entry(offsets=(0, 24, 24)), "begin and end"),
    "fraction": (entry(offsets=(0, 24.0)), "begin and end"),
    "hole": (entry(offsets=(2, 26)), "begins at byte"),
    "more keys": ({**entry(), "more": 1}, "needs dtype"),
    "no object": ([1], "needs dtype"),
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_wrong_entries(name):
    value, words = BAD_ENTRIES[name]
    with pytest.raises(ValueError, match=words):
        check_safetensors(sound_safetensors(a=value))


def with_header(raw: bytes, n: int | None = None) -> bytes:
    return u64(len(raw) if n is None else n) + raw


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "too short"),
        (b"\1" * 7, "too short"),
        (with_header(b"{}", 2**63), "a header of"),
        (with_header(b"{}", 3), "a header of"),
        (with_header(b"", 0), "a header of"),
        (with_header(b" " * (MAX_JSON + 1)), "are the most"),
        (with_header(b"[]"), "no JSON object"),
        (with_header(b"{1}"), "no sound JSON"),
        (with_header(b"\xff\xff"), "no sound JSON"),
        (with_header(b"[" * 100_000), "too deeply"),
        (with_header(b'{"a":' * 50_000), "too deeply"),
        (with_header(b'{"a":1,"a":2}'), "'a' is there twice"),
        (with_header(b'{"a":NaN}'), "NaN"),
        (with_header(b'{"a":' + b"9" * 5000 + b"}"), "no sound JSON"),
        (with_header(b'{"__metadata__":{"a":1}}'), "__metadata__"),
        (with_header(b"{}") + b"x", "end at byte 10 of 11"),
        (sound_safetensors() + b"x", "the tensors end"),
        (sound_safetensors(c=entry(offsets=(0, 24))), "begins at byte"),
    ],
)
def test_wrong_headers(data, words):
    with pytest.raises(ValueError, match=words):
        check_safetensors(data)


def test_many_repeated_names_take_no_time():
    raw = b"{" + b",".join(b'"%x":0' % i for i in range(200_000)) + b',"7":1}'
    begin = time.process_time()
    with pytest.raises(ValueError, match="'7' is there twice"):
        check_safetensors(with_header(raw))
    assert time.process_time() - begin < 5


# -- any bytes ---------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
@example(b"GGUF" + b"\xff" * 60)
def test_any_bytes_give_a_header_or_a_value_error(data):
    for check in (check_gguf, check_safetensors):
        for begin in (b"", b"GGUF\3\0\0\0"):
            try:
                check(begin + data)
            except ValueError:
                continue


def test_flipped_bits_and_cuts_give_a_header_or_a_value_error():
    rng = random.Random(0)
    for data, check in ((sound().bytes(), check_gguf), (sound_safetensors(), check_safetensors)):
        refused = 0
        for _ in range(4000):
            broken = bytearray(data)
            for _ in range(rng.randint(1, 3)):
                broken[rng.randrange(len(data) - 26)] ^= 1 << rng.randrange(8)
            if rng.random() < 0.2:
                del broken[rng.randrange(len(data)) :]
            try:
                check(broken)
            except ValueError:
                refused += 1
        assert refused > 2000


def test_every_cut_of_a_sound_file_is_refused():
    for data, check in ((sound().bytes(), check_gguf), (sound_safetensors(), check_safetensors)):
        for n in range(len(data)):
            with pytest.raises(ValueError):  # noqa: PT011 (which one depends on the place of the cut)
                check(data[:n])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=6),
    st.integers(0, 24 * 32),
)
def test_tensors_of_a_gguf_lie_inside_and_apart(places, room):
    """Offsets and sizes in units of the alignment: accepted where no byte belongs to two and all are there."""
    tensors = [Tensor(f"t{i}", (8, size), 0, 32 * at) for i, (at, size) in enumerate(places)]
    taken = [u for at, size in places for u in range(at, at + size)]
    data = Gguf([], tensors, room).bytes()
    if len(set(taken)) == len(taken) and 32 * (max(taken) + 1) <= room:
        found = check_gguf(data).tensors
        assert [found[t.name].start % 32 for t in tensors] == [0] * len(tensors)
        assert [found[f"t{i}"].size for i in range(len(places))] == [32 * size for _, size in places]
    else:
        with pytest.raises(ValueError, match=r"overlap|the file is cut"):
            check_gguf(data)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), max_size=5), st.integers(0, 12))
def test_tensors_of_a_safetensors_file_fill_it(places, size):
    header = {f"t{i}": entry("U8", (n,), (at, at + n)) for i, (at, n) in enumerate(places)}
    data = with_header(json.dumps(header).encode()) + bytes(size)
    taken = [u for at, n in places for u in range(at, at + n)]
    ends = {0} | {at + n for at, n in places if n}
    if sorted(taken) == list(range(size)) and all(at in ends for at, _ in places):
        assert {n: t.size for n, t in check_safetensors(data).items()} == {
            f"t{i}": n for i, (_, n) in enumerate(places)
        }
    else:
        with pytest.raises(ValueError, match=r"begins at byte|end at byte"):
            check_safetensors(data)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6))
def test_a_name_is_there_once(names):
    keys = Gguf([(n, UINT32, u32(1)) for n in names]).bytes()
    tensors = Gguf([], [Tensor(n, (8, 1), 0, 32 * i) for i, n in enumerate(names)], 32 * len(names)).bytes()
    spec = ",".join(f'"{n}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for n in names)
    for data, check in (
        (keys, check_gguf),
        (tensors, check_gguf),
        (with_header(f"{{{spec}}}".encode()), check_safetensors),
    ):
        if len(set(names)) == len(names):
            check(data)
        else:
            with pytest.raises(ValueError, match="is there twice"):
                check(data)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 5), st.integers(0, 2**64 - 1) | st.sampled_from([2**k for k in range(64)]))
def test_absurd_numbers_take_neither_time_nor_memory(field, value):
    """One 64-bit number of a sound file replaced: counts of tensors and keys, lengths of a name, a text and an
    array, and the length of a safetensors header."""
    data, check = bytearray(sound().bytes()), check_gguf
    tokens = data.index(b"tokens")
    at = (8, 16, 24, data.index(b"phi3") - 8, tokens + 6 + 8, 0)[field]
    if field == 5:
        data, check = bytearray(sound_safetensors()), check_safetensors
    before = bytes(data[at : at + 8])
    data[at : at + 8] = u64(value)
    tracemalloc.start()
    begin = time.process_time()
    try:
        check(bytes(data))
    except ValueError:
        assert u64(value) != before
    assert time.process_time() - begin < 1
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
