"""Data packs: benchmark files in their original formats, found by name in folders of the user's. Nothing is
downloaded; a pack says where its files come from and under which licence."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phikit.evals import readers, readers_chat, readers_long
from phikit.evals.task import Row

VARIABLE = "PHIKIT_BENCHMARKS"
Reader = Callable[[Path, str], Iterator[dict[str, Any]]]


class NoData(ValueError):
    """A pack's files are not there; the message says which and where they come from."""


@dataclass(frozen=True, slots=True)
class Pack:
    """`files`: split -> file names, of which each pattern's matches are read in order of their names (all matching
    patterns of the first line that matches). `read(path, split)` gives rows. `known`: first 16 digits of the sha256
    of a file's content (uncompressed) -> what it is; other files are read too, and the report says that they are not
    known."""

    name: str
    title: str
    licence: str
    origin: str
    files: Mapping[str, Sequence[str]]
    read: Reader
    known: Mapping[str, str] = field(default_factory=dict)
    places: tuple[str, ...] = ()  # folders other than its name


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows of one split, and the files they came from: {file, sha256, known}."""

    split: str
    rows: tuple[Row, ...]
    files: tuple[Mapping[str, str], ...]


PACKS = {
    p.name: p
    for p in (
        Pack(
            "mmlu", "MMLU", "MIT", "github.com/hendrycks/test (data.tar, or its dev, val and test folders)",
            {s: (f"{s}.tar*", "data.tar*", f"{s}/*.csv", f"data/{s}/*.csv") for s in ("dev", "val", "test")},
            readers.mmlu, {"b79db18af422fd63": "MMLU dev, 57 subjects", "8a19ed2210e40c16": "MMLU val, 57 subjects"},
        ),
        Pack(
            "mmlu_pro", "MMLU-Pro", "MIT", "huggingface.co/datasets/TIGER-Lab/MMLU-Pro",
            {"test": ("test*.jsonl", "test*.parquet"), "validation": ("validation*.jsonl", "validation*.parquet")},
            readers.mmlu_pro,
        ),
        Pack(
            "arc", "ARC-Challenge", "CC BY-SA 4.0", "allenai.org/data/arc (ARC-V1-Feb2018)",
            {s.lower(): (f"ARC-Challenge-{s}.jsonl",) for s in ("Train", "Dev", "Test")},
            readers.arc, {"6606c063fc6c3b0a": "ARC-Challenge dev, 294 of 299 rows"},
        ),
        Pack(
            "triviaqa", "TriviaQA", "Apache-2.0", "nlp.cs.washington.edu/triviaqa (unfiltered, no context)",
            {
                "train": ("unfiltered-web-train.json", "train*.jsonl", "train*.parquet"),
                "dev": ("unfiltered-web-dev.json", "dev*.jsonl", "validation*.jsonl", "validation*.parquet"),
            },
            readers.triviaqa,
        ),
        Pack(
            "nq_open", "NQ-open", "Apache-2.0", "github.com/google-research-datasets/natural-questions (nq_open)",
            {"train": ("NQ-open.train.jsonl",), "dev": ("NQ-open.dev.jsonl", "NQ-open.efficientqa.dev*.jsonl")},
            readers.nq_open, {"f15567f38099f361": "NQ-open dev"}, ("rag",),
        ),
        Pack(
            "gsm8k", "GSM8K", "MIT", "github.com/openai/grade-school-math",
            {"train": ("train.jsonl",), "test": ("test.jsonl", "test-*.jsonl")},
            readers.gsm8k, {"17f347dc51477c50": "GSM8K train", "9c323ea9eab59f16": "GSM8K test, 200 of 1319 rows"},
        ),
        Pack(
            "math", "MATH", "MIT", "github.com/hendrycks/math (MATH/test/*/*.json), or MATH-500",
            {"train": ("train/*/*.json", "train.jsonl"), "test": ("test/*/*.json", "math500.jsonl", "test.jsonl")},
            readers.math, {"35dc41080a368085": "MATH-500"},
        ),
        Pack(
            "humaneval", "HumanEval", "MIT", "github.com/openai/human-eval", {"test": ("HumanEval.jsonl",)},
            readers.humaneval, {"1d49078ba3e2b196": "HumanEval"},
        ),
        Pack(
            "humaneval_plus", "HumanEval+", "Apache-2.0", "github.com/evalplus/humanevalplus_release",
            {"test": ("HumanEvalPlus*.jsonl",)}, readers.humaneval,
        ),
        Pack(
            "mbpp", "MBPP", "CC BY 4.0", "github.com/google-research/google-research (mbpp)",
            dict.fromkeys(("prompt", "test", "validation", "train"), ("mbpp.jsonl",)),
            readers.mbpp, {"ccf64ceae9c5403b": "MBPP, 974 rows"},
        ),
        Pack(
            "mbpp_plus", "MBPP+", "Apache-2.0", "github.com/evalplus/mbppplus_release",
            {"test": ("MbppPlus*.jsonl",)}, readers.mbpp_plus,
        ),
        Pack(
            "mgsm", "MGSM", "CC BY 4.0", "github.com/google-research/url-nlp (mgsm)", {"test": ("mgsm_??.tsv",)},
            readers.mgsm,
            {
                "4dfea30fede44b81": "MGSM de", "50021d0f28cc957e": "MGSM en", "5bd27ebdf0014cec": "MGSM es",
                "36207c1c03fd7cd3": "MGSM fr", "59a2b50debe77981": "MGSM ja", "b2fa63151022370a": "MGSM zh",
            },
        ),
        Pack(
            "gpqa", "GPQA diamond", "CC BY 4.0; its authors ask not to publish the questions as plain text",
            "github.com/idavidrein/gpqa (gpqa_diamond.csv)", {"test": ("gpqa_diamond.csv",)}, readers.gpqa,
        ),
        Pack(
            "simpleqa", "SimpleQA", "MIT", "github.com/openai/simple-evals (simple_qa_test_set.csv)",
            {"test": ("simple_qa_test_set.csv",)}, readers.simpleqa,
        ),
        Pack(
            "drop", "DROP", "CC BY-SA 4.0", "github.com/openai/simple-evals (drop_v0_train, drop_v0_dev .jsonl.gz)",
            {"train": ("drop_v0_train.jsonl",), "dev": ("drop_v0_dev.jsonl", "dev-*.jsonl")},
            readers.drop, {"aa216e2e3d21b124": "DROP dev, 1000 of 9536 rows"},
        ),
        Pack(
            "ifeval", "IFEval", "Apache-2.0", "github.com/google-research/google-research (instruction_following_eval)",
            {"test": ("input_data*.jsonl",)}, readers_chat.ifeval, {"2ee6bdc6c9493d38": "IFEval, 274 of 541 rows"},
        ),
        Pack(
            "hotpotqa", "HotpotQA with paragraphs", "CC BY-SA 4.0", "hotpotqa.github.io (dev, distractor setting)",
            {"dev": ("hotpot_dev_distractor*.json", "hotpotqa*.jsonl")}, readers_long.hotpotqa,
            {"c0ffa04c4ec2ef84": "HotpotQA, 500 rows"}, places=("rag",),
        ),
        Pack(
            "trec", "TREC question classes", "none stated", "cogcomp.seas.upenn.edu/Data/QA/QC",
            {"train": ("train_5500.label",), "test": ("TREC_10.label",)}, readers_long.trec,
            {"f96f211c9d180d3f": "TREC train, 5452 rows", "033f22c028c2bbba": "TREC test"}, ("icl/trec",),
        ),
        Pack(
            "banking77", "Banking77", "CC BY 4.0", "github.com/PolyAI-LDN/task-specific-datasets (banking_data)",
            {"train": ("train.csv",), "test": ("test.csv",)}, readers_long.banking77,
            {"b06e26ac67551395": "Banking77 train", "d12d6e3bc4c31039": "Banking77 test"}, ("icl/banking77",),
        ),
        Pack(
            "clinc150", "CLINC150", "CC BY 3.0", "github.com/clinc/oos-eval (data_full.json)",
            dict.fromkeys(("train", "test"), ("data_full.json",)), readers_long.clinc150,
            {"36923c3705a59e08": "CLINC150"}, ("icl/clinc150",),
        ),
        Pack(
            "nlu", "NLU evaluation data", "CC BY 4.0", "github.com/xliuhw/NLU-Evaluation-Data (AnnotatedData)",
            dict.fromkeys(("train", "test"), ("NLU-Data-Home-Domain-Annotated-All.csv",)), readers_long.nlu,
            places=("icl/nlu",),
        ),
        Pack(
            "amc", "AMC questions of the user's", "the user's", "written by the user; see docs/evals.md",
            {"test": ("*.jsonl",)}, readers_chat.contest,
        ),
        Pack(
            "arena_hard", "Arena-Hard v0.1", "Apache-2.0", "github.com/lmarena/arena-hard-auto (question.jsonl)",
            {"test": ("question*.jsonl", "arena_hard*.jsonl"), "baseline": ("baseline*.jsonl", "baseline*.parquet")},
            readers_chat.arena_hard, {"2650242d2883f22b": "Arena-Hard v0.1 questions"}, places=("decontamination",),
        ),
        Pack(
            "livebench", "LiveBench", "CC BY-SA 4.0", "huggingface.co/livebench (question files)",
            {"test": ("question*.jsonl", "test*.parquet", "*.jsonl")}, readers_chat.livebench,
        ),
        Pack(
            "llmbar", "LLMBar natural", "MIT", "github.com/princeton-nlp/LLMBar (Dataset/LLMBar/Natural)",
            {"test": ("llmbar-natural.json", "dataset.json")}, readers_chat.llmbar,
            {"f7127b7aa78104cb": "LLMBar natural"}, ("preferences",),
        ),
        Pack(
            "simple_safety_tests", "SimpleSafetyTests", "CC BY 4.0", "github.com/bertiev/SimpleSafetyTests",
            {"test": ("simple_safety_tests.csv", "sst_test_cases.csv")}, readers_chat.simple_safety_tests,
            places=("safety",),
        ),
        Pack(
            "harmbench", "HarmBench behaviours", "MIT", "github.com/centerforaisafety/HarmBench (behavior_datasets)",
            {"val": ("harmbench_behaviors_text_val.csv",), "test": ("harmbench_behaviors_text_test.csv",)},
            readers_chat.harmbench, places=("safety",),
        ),
        Pack(
            "xstest", "XSTest", "CC BY 4.0", "github.com/paul-rottger/xstest (xstest_prompts.csv)",
            {"test": ("xstest*.csv",)}, readers_chat.xstest, places=("safety",),
        ),
    )
}  # fmt: skip


def roots(given: Sequence[Path] = ()) -> list[Path]:
    """Folders that packs are looked for in: those given, else $PHIKIT_BENCHMARKS (several joined by ":")."""
    found = list(given) or [Path(p) for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]
    for path in found:
        if not path.is_dir():
            raise ValueError(f"{path}: no such folder of benchmark data")
    return found


def load(pack: Pack, splits: str, folders: Sequence[Path]) -> Loaded:
    """Rows of the first of `splits` (joined by "|") that is there. Raises NoData, or RowError for a bad file."""
    for split in splits.split("|"):
        if split not in pack.files:
            raise ValueError(f"pack {pack.name} has no split {split!r}; it has {', '.join(pack.files)}")
        if paths := find(pack, split, folders):
            rows = [r for p in paths for r in pack.read(p, split)]
            if not rows:
                raise ValueError(f"{paths[0]}: no rows of split {split} in it")
            ids = [r["id"] for r in rows]
            if len(set(ids)) < len(ids):
                twice = next(i for i in ids if ids.count(i) > 1)
                raise ValueError(f"{paths[0]}: two rows have the id {twice!r}")
            return Loaded(split, tuple(rows), tuple(_file(p, pack) for p in paths))
    names = [n for s in splits.split("|") for n in pack.files[s]]
    raise NoData(
        f"no data for {pack.title} ({splits}): looked for {', '.join(names)} in "
        f"{', '.join(str(f / pack.name) for f in folders) or 'no folder'}; they come from {pack.origin}. Give the "
        f"folder that holds {pack.name}/ with --data or ${VARIABLE}"
    )


def find(pack: Pack, split: str, folders: Sequence[Path]) -> list[Path]:
    """The files of the first pattern that matches in `FOLDER/pack/`; .gz ones too."""
    for folder in folders:
        for home in (folder / name for name in (pack.name, *pack.places)):
            for pattern in pack.files[split]:
                found = sorted({*home.glob(pattern), *home.glob(pattern + ".gz")})
                plain = {p.name for p in found}
                found = [p for p in found if p.suffix != ".gz" or p.stem not in plain]  # a file and its .gz
                if found:
                    return found
    return []


def _file(path: Path, pack: Pack) -> dict[str, str]:
    data = path.read_bytes()
    digest = hashlib.sha256(gzip.decompress(data) if path.suffix == ".gz" else data).hexdigest()
    return {"file": path.name, "sha256": digest, "known": pack.known.get(digest[:16], "")}
