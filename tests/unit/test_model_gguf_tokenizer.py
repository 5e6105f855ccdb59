"""The tokenizer inside a GGUF: our ids are those of llama.cpp on the same file, for every pre-split we know."""

from __future__ import annotations

import random
import tarfile
from pathlib import Path

import pytest
from gguf_network import write

from phikit.engine.llama import LlamaEngine
from phikit.model.config import ModelConfig
from phikit.model.gguf_header import read_gguf_header
from phikit.model.gguf_tokenizer import is_known, read_tokenizer
from phikit.model.transformer import build
from phikit.store.teacher import smollm2_path
from phikit.text.splits import PRE
from phikit.text.tokenizer import Tokenizer

DATA = Path(__file__).parents[3] / "shared" / "data" / "corpora"
PIECES = (
    "a", "Zx", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "'s", "'LL", "don't", "1", "42", "123456", "\u00e9",
    "\u65e5\u672c\u8a9e", "\ud55c\uad6d\uc5b4", "\u0939\u093f\u0928\u094d\u0926\u0940", "\U0001f642", "\u2026",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u0e44\u0e17\u0e22", "\u05e2\u05d1\u05e8\u05d9\u05ea",
    "def f(x):\n    return x\n", "<|im_end|>", "<repo_name>", "\u00df", "\u00a0", "\u3000", "\u00bd", "\u0663\u0664",
    "x_1", "http://a.b/c?d=1", "--", "***", "\\", "$x^2$", "\u200d", "e\u0301", "\u2028", "\x00", "\x7f",
)  # fmt: skip

try:
    MODEL = smollm2_path()
except FileNotFoundError as e:
    MODEL, WHY = None, str(e)
else:
    WHY = ""
needs_model = pytest.mark.skipif(MODEL is None, reason=WHY)


def made_up(n: int) -> list[str]:
    rng = random.Random(1)
    return ["".join(rng.choice(PIECES) for _ in range(rng.randint(1, 20))) for _ in range(n)]


def real(sentences: int, files: int) -> list[str]:
    """Sentences of 62 languages and Python sources, where the data are there."""
    found: list[str] = []
    if not DATA.is_dir():
        return found
    with tarfile.open(DATA / "multilingual" / "flores200_dev_62langs.tar.gz") as tar:
        for member in tar:
            if member.isfile():
                text = tar.extractfile(member).read().decode()  # type: ignore[union-attr]
                found += text.splitlines()[:sentences]
    with tarfile.open(DATA / "code" / "python_repos.tar.gz") as tar:
        sources = [m for m in tar if m.isfile()][:files]
        found += [tar.extractfile(m).read().decode("utf-8", "replace")[:3000] for m in sources]  # type: ignore[union-attr]
    return found


@pytest.fixture(scope="module")
def vocabulary() -> dict:
    assert MODEL
    keys = read_gguf_header(MODEL).keys
    return {k: list(keys[f"tokenizer.ggml.{k}"]) for k in ("tokens", "token_type", "merges")}


def in_llama_cpp(path: Path, texts: list[str]) -> list[list[int]]:
    engine = LlamaEngine(path, context=512, threads=1)
    try:
        return [engine.encode(t) for t in texts]
    finally:
        engine.close()


@needs_model
def test_the_real_file():
    tokenizer = read_tokenizer(read_gguf_header(MODEL).keys)
    assert tokenizer.vocab_size == 49_152
    assert tokenizer.special_ids["<|im_end|>"] == tokenizer.im_end == 2
    assert not tokenizer.is_phi4
    with pytest.raises(ValueError, match="im_sep"):
        _ = tokenizer.im_sep
    texts = made_up(200) + real(8, 20)
    for text, theirs in zip(texts, in_llama_cpp(MODEL, texts)):
        ids = tokenizer.encode(text)
        assert ids == theirs, repr(text)
        assert tokenizer.decode(ids) == text


@needs_model
@pytest.mark.parametrize("pre", PRE)
def test_every_pre_split_cuts_as_llama_cpp_does(tmp_path, vocabulary, pre):
    """The merges of the real file under each of the names, in a network that is too small to matter."""
    model = build(ModelConfig(len(vocabulary["tokens"]), 32, 1, 2, 1, 32, 512, tied=True), 0)
    keys = {f"tokenizer.ggml.{k}": v for k, v in vocabulary.items()}
    keys |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.bos_token_id": 1}
    keys |= {"tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.add_bos_token": False}
    path = tmp_path / "m.gguf"
    write(path, model, "llama", keys=keys)
    tokenizer = read_tokenizer(read_gguf_header(path).keys)
    texts = made_up(150) + real(2, 6)
    for text, theirs in zip(texts, in_llama_cpp(path, texts)):
        assert tokenizer.encode(text) == theirs, repr(text)


def small_keys(**changes) -> dict:
    tokens = ["a", "b", "ab", "<end>", "[UNUSED4]", "tool"]
    keys = {
        "model": "gpt2",
        "pre": "qwen2",
        "tokens": tokens,
        "token_type": [1, 1, 1, 3, 5, 4],
        "merges": ["a b"],
    }
    return {f"tokenizer.ggml.{k}": v for k, v in {**keys, **changes}.items() if v is not None}


def test_kinds_of_tokens():
    tokenizer = read_tokenizer(small_keys())
    assert tokenizer.encode("aab<end>") == [0, 2]  # the letters of <end> are no tokens, and it is no text
    assert tokenizer.encode("atoolb") == [0, 5, 1]  # tokens that the user defined are found in text
    assert tokenizer.special_ids == {"<end>": 3}
    assert tokenizer.decode([3, 2, 5]) == "abtool"
    assert isinstance(read_tokenizer(small_keys(token_type=None)), Tokenizer)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model": "llama"}, "'llama' with the pre-split 'qwen2'; only gpt2 with dbrx"),
        ({"pre": "tekken"}, "the pre-split 'tekken'"),
        ({"tokens": None}, "no list of texts tokenizer.ggml.tokens"),
        ({"merges": None}, "no list of texts tokenizer.ggml.merges"),
        ({"tokens": ["a", "a", "ab", "x", "y", "z"]}, "a text twice"),
        ({"token_type": [1]}, "token_type does not fit"),
        ({"token_type": 7}, "token_type does not fit"),
        ({"merges": ["ab"]}, r"merges\[0\] is no pair"),
        ({"merges": ["a z"]}, r"merges\[0\] joins or makes a token"),
    ],
)
def test_what_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        read_tokenizer(small_keys(**changes))
    assert is_known(small_keys(**changes)) == (not {"model", "pre"} & set(changes))


def test_a_pre_split_that_is_no_text_is_another_kind():
    """A list cannot be looked up."""
    keys = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": ["dbrx"]}
    assert not is_known(keys)
    with pytest.raises(ValueError, match=r"the pre-split \"\['dbrx'\]\""):
        read_tokenizer(keys)
