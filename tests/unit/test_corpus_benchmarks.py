"""The 20 benchmarks that the report decontaminates against (appendix B.1): each is one more line `against`, whatever
form it is published in. Rows here have the columns of the published files and words of our own."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from phikit.corpus.decontaminate import decontaminate
from phikit.corpus.references import read_references
from phikit.recipe.load import load
from phikit.records.io import write_parquet

SHARED = Path(__file__).parents[3] / "shared/data/benchmarks"
QUESTION = (
    "Which of the four metals that the smith keeps in his shed would melt first if he put equal amounts of each into "
    "one pan over a slow fire?"
)
OPTIONS = ["tin from the mine behind the hill", "old lead of a church roof", "zinc", "a bar of pure silver"]
LETTERS = dict(zip("ABCD", OPTIONS))
FILLER = "Nobody in the village had expected visitors to come before noon on so cold a day as this one was. "

# name -> (file, its row; a list is one of a table without names)
PUBLISHED = {
    "ARC-Easy": ("ARC-Easy-Test.jsonl", {"id": "m_1", "question": {"stem": QUESTION, "choices": [
        {"text": t, "label": k} for k, t in LETTERS.items()]}, "answerKey": "A"}),
    "ARC-Challenge": ("ARC-Challenge-Test.parquet", {"id": "m_2", "question": QUESTION, "choices": {
        "text": OPTIONS, "label": list("ABCD")}, "answerKey": "A"}),
    "MBPP": ("mbpp.jsonl", {"text": QUESTION, "code": "def f(x): return x", "task_id": 1, "test_list": ["assert f"]}),
    "phibench": ("phibench.jsonl", {"prompt": QUESTION, "tests": "assert f(1)"}),
    "mcphi": ("mcphi.json", [{"question": QUESTION, "choices": OPTIONS}]),
    "CommonsenseQA": ("dev_rand_split.jsonl", {"answerKey": "A", "id": "x", "question": {"question_concept": "tin",
        "choices": [{"label": k, "text": t} for k, t in LETTERS.items()], "stem": QUESTION}}),
    "WinoGrande": ("dev.jsonl", {"qID": "a-1", "sentence": QUESTION.replace("he put", "_ put"), "option1": "the smith",
        "option2": "the miller", "answer": "1"}),
    "MedQA": ("US_qbank.jsonl", {"question": QUESTION, "answer": OPTIONS[0], "options": LETTERS, "meta_info": "step1"}),
    "MATH": ("test.parquet", {"problem": QUESTION, "level": "Level 3", "type": "Algebra", "solution": "$x = 1$"}),
    "AGIEval": ("data.tar.gz", {"passage": "", "question": QUESTION, "options": [f"(A){OPTIONS[0]}"], "label": "A",
        "other": {"solution": "none"}}),
    "PIQA": ("valid.jsonl.gz", {"goal": QUESTION, "sol1": OPTIONS[0], "sol2": OPTIONS[1]}),
    "OpenBookQA": ("test.tsv.gz", ["1", f"{QUESTION} (A) {OPTIONS[0]} (B) {OPTIONS[1]}", "A"]),
    "HellaSwag": ("hellaswag_val.jsonl", {"ind": 1, "ctx_a": QUESTION, "ctx_b": "he", "ctx": f"{QUESTION} he",
        "endings": OPTIONS, "label": 1}),
    "GPQA": ("gpqa.zip", ["note", QUESTION, *OPTIONS]),
    "mt-bench": ("question.jsonl", {"question_id": 81, "category": "x", "turns": [QUESTION, "Now in other words."]}),
    "MMLU-Pro": ("test-00000.parquet", {"question_id": 1, "question": QUESTION, "options": OPTIONS, "answer": "A"}),
    "GSM8K": ("test.jsonl", {"question": QUESTION, "answer": "He has 1 + 1 = <<1+1=2>>2 pans.\n#### 2"}),
    "HumanEval": ("HumanEval.jsonl.gz", {"task_id": "HumanEval/0", "prompt": f'def f(x):\n    """{QUESTION}"""\n',
        "canonical_solution": "    return x", "test": "def check(f): pass"}),
    "Arena Hard": ("question.jsonl", {"question_id": "a1", "cluster": "x", "turns": [{"content": QUESTION}]}),
    "MMLU": ("data.tar", [QUESTION, *OPTIONS, "A"]),
}  # fmt: skip


def bytes_of(name: str, row: object) -> bytes:
    if ".csv" in name or ".tsv" in name:
        out = io.StringIO()
        csv.writer(out, delimiter="\t" if ".tsv" in name else ",").writerow(row)
        return out.getvalue().encode()
    return json.dumps(row).encode() + b"\n"


def publish(folder: Path, name: str, row: object) -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        write_parquet(path, [row])
        return path
    inner = (
        "test/metals_test.csv" if isinstance(row, list) and isinstance(row[0], str) else "test/metals.jsonl"
    )
    data = bytes_of(inner if name.endswith((".tar", ".tar.gz", ".zip")) else name, row)
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as z:
            z.writestr(inner, data)
    elif ".tar" in name:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as tar:
            about = tarfile.TarInfo(inner)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    else:
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def test_there_are_twenty():
    assert len(PUBLISHED) == 20


@pytest.mark.parametrize("benchmark", PUBLISHED)
def test_one_line_finds_its_items(tmp_path, benchmark):
    path = publish(tmp_path, *PUBLISHED[benchmark])
    recipe = load("phi4", scale="nano", settings=[f"corpus.decontaminate.against=[{json.dumps(str(path))}]"])
    items = [pair for at in recipe.corpus.decontaminate.against for pair in read_references(Path(at))]
    assert items
    text = FILLER * 4 + "\n".join(QUESTION.upper().split()) + "\n" + FILLER * 4
    hit, clean = decontaminate([text, FILLER * 9], items)
    assert (hit.verdict, clean.verdict) == ("contaminated", "clean")
    if benchmark not in (
        "MBPP",
        "phibench",
        "MATH",
        "GSM8K",
        "HumanEval",
        "WinoGrande",
        "mt-bench",
        "Arena Hard",
    ):
        assert any(OPTIONS[0] in text for _, text in items)  # options belong to the item


@pytest.mark.skipif(not SHARED.is_dir(), reason="no published files at hand")
def test_published_files_are_read_as_they_are():
    names = ("gsm8k/test-200.jsonl.gz", "math/math500.jsonl.gz", "humaneval", "mbpp", "mmlu/dev.tar.gz", "arc",
             "decontamination")  # fmt: skip
    places = [SHARED / name for name in names]
    files = [f for p in places for f in ([p] if p.is_file() else sorted(p.iterdir())) if f.name[0] != "."]
    read = {f.name: sum(1 for _ in read_references(f)) for f in files}
    assert len(read) >= 10
    assert all(read.values()), read
