"""A made-up model of somebody's own with its questions: a tiny Llama with ChatML, which SFT leaves undecided.

Each question has two answers in the dialogs, the right one half of the time: after SFT p(right) is near 1/2, and the
token of the answer is pivotal.
"""

from __future__ import annotations

import json
from pathlib import Path

from phikit.model.config import ModelConfig
from phikit.model.hf_like import write_network
from phikit.model.transformer import build
from phikit.records.io import write_json, write_jsonl
from phikit.text.tokenizer import IM_END, IM_START, Tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ANIMALS = ("bird", "cow", "ant", "crab", "fish", "frog", "goat", "hen", "spider", "worm", "wolf", "eel")
CONTEXT = 128


def questions(count: int = 36) -> list[dict[str, str]]:
    return [
        {
            "question": f"How many legs has the {ANIMALS[i % 12]} number {i}?",
            "answer": f"I count them.\n#### {2 + i % 2}",
        }
        for i in range(count)
    ]


def dialogs() -> list[dict[str, list[dict[str, str]]]]:
    """Both answers to every question, so that it stays open which one is given."""
    return [
        {"messages": [
            {"role": "user", "content": q["question"]}, {"role": "assistant", "content": f"The answer is {n}."},
        ]}
        for q in questions() for n in (2, 3)
    ]  # fmt: skip


def tokenizer() -> Tokenizer:
    """Not Phi-4's: it has no <|im_sep|>."""
    texts = [t["content"] for d in dialogs() for t in d["messages"]] * 4
    spec = json.loads(Tokenizer.train([*texts, "user assistant system\n" * 40], 330).to_json())
    keep = ("<|endoftext|>", IM_START, IM_END)
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] in keep]
    spec["model"]["vocab"] = {k: v for k, v in spec["model"]["vocab"].items() if not k.startswith("<|")}
    top = max(spec["model"]["vocab"].values())
    for n, t in enumerate(spec["added_tokens"], 1):
        t["id"] = top + n
    return Tokenizer(json.dumps(spec))


def write_model(folder: Path, *, template: str | None = CHATML, seed: int = 1) -> Path:
    """The folder of a LlamaForCausalLM."""
    folder.mkdir(parents=True, exist_ok=True)
    t = tokenizer()
    config = ModelConfig(t.vocab_size + 3, 48, 2, 4, 2, 96, CONTEXT, tied=True, init_std=0.05)
    ids = {"bos_token_id": t.special_ids["<|endoftext|>"], "eos_token_id": t.special_ids[IM_END]}
    t.save(folder / "tokenizer.json")
    named = {"bos_token": "<|endoftext|>", "eos_token": IM_END}
    write_json(folder / "tokenizer_config.json", named | ({"chat_template": template} if template else {}))
    write_network(build(config, seed), folder, "llama", ids, dtype="fp32")
    return folder


def write_questions(folder: Path) -> tuple[Path, Path]:
    """(questions, dialogs); files that are there stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "questions.jsonl", folder / "chats.jsonl"
    for path, rows in zip(paths, (questions(), dialogs())):
        if not path.exists():
            write_jsonl(path, rows)
    return paths


# Rates and lengths of a network of 50,000 parameters.
SMALL = (
    "layout.precision=fp32", "sft.context=128", "sft.batch=4", "sft.micro=4", "sft.epochs=30", "sft.lr=4e-3",
    "questions.heldout=30%", "questions.decontaminate={info: 90%, contaminated: 100%}",
    "pivotal.max_tokens=16", "pivotal.rollouts=24", "pivotal.questions=24",
    "dpo1.context=128", "dpo1.batch=8", "dpo1.lr=5e-4", "dpo2.context=128", "dpo2.batch=8", "dpo2.lr=5e-4",
    "judged.prompts=12", "judged.samples=4", "judged.max_tokens=16",
    "eval.samples=2", "eval.max_tokens=16", "export.prompts=4", "export.gguf=[f32]",
)  # fmt: skip
