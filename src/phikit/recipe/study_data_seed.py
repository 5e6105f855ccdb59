"""One seed of a data study: its world, its web model and teacher, its arms. Each is a file, so a killed one goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phikit.recipe import data_world
from phikit.recipe.study_data import ANSWERS, TEACHER, TEACHER_TOKENS, WEB, WEB_TOKENS, Arm, Part, Study
from phikit.records import from_row, to_row
from phikit.records.ids import seed_of
from phikit.records.io import read_json, read_jsonl, write_json, write_jsonl
from phikit.records.types import Document

if TYPE_CHECKING:
    from phikit.engine.torch_engine import TorchEngine
    from phikit.model.transformer import Transformer
    from phikit.text.tokenizer import Tokenizer

VOCAB, CONTEXT, BATCH = 512, 256, 4
PEOPLE = 100
PROBLEMS, SAMPLES, MAX_TOKENS = 200, 2, 48
PAGES = 100  # held-out texts of each kind whose bits are counted
LEAD = "\nStep by step:"  # begins a worked answer, as the examples of a few-shot prompt do
OTHER = 0.3  # loss weight of what is no answer, as in the nano recipe
LR, MATRIX_LR = 3e-3, 0.02  # those of nano pretraining


class DataSeed:
    """`shared` holds what the studies have in common; its parts are made when they are first asked for."""

    def __init__(self, seed: int, study: Study, out: Path, shared: Path) -> None:
        self.seed, self.study, self.out, self.shared = seed, study, out, shared
        self.world = data_world.make(seed, PEOPLE)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        from phikit.text.tokenizer import Tokenizer

        path = self.shared / "tokenizer.json"
        if not path.exists():
            Tokenizer.train(data_world.tokenizer_texts(self.world), VOCAB).save(path)
        return Tokenizer.load(path)

    # -- models -----------------------------------------------------------------------------------------------------

    @cached_property
    def web(self) -> Path:
        return self._trained(WEB, WEB_TOKENS, self.shared / "web")

    @cached_property
    def teacher(self) -> Path:
        return self._trained(TEACHER, TEACHER_TOKENS, self.shared / "teacher")

    def _trained(self, arm: Arm, tokens: int, folder: Path) -> Path:
        """The checkpoint folder of an arm; `counts.json` in it tells what was seen how often."""
        if (folder / "counts.json").exists():
            return folder
        from phikit.mixture.loader import Loader
        from phikit.mixture.order import Phase
        from phikit.model.hf import save_hf
        from phikit.train.objectives import LanguageModeling
        from phikit.train.optim import OptimConfig
        from phikit.train.trainer import TrainConfig, Trainer

        steps = round(tokens / (BATCH * CONTEXT))
        # Arms share their fresh text; what they begin with was trained on other pages.
        fresh = "fresh" if arm in self.study.arms else arm.name
        sources = {name: self._packed(name, part, tokens, fresh) for name, part in arm.parts.items()}
        phase = Phase(steps * BATCH, {name: part.share for name, part in arm.parts.items()})
        loader = Loader(sources, [phase], seed_of(self.seed, "order"), self.tokenizer.pad)
        optim = OptimConfig("muon", LR, MATRIX_LR)
        config = TrainConfig(steps, BATCH, BATCH, optim, warmup=0.05, decay=0.6, final_lr=0.05)
        trainer = Trainer(self._network(arm.base), LanguageModeling(), loader, config, folder / "work")
        trainer.run(f"{self.study.name} {self.seed} {arm.name}")
        network = trainer.network()
        assert network is not None  # of one rank
        save_hf(network, self.tokenizer, folder / "hf")
        seen = {n: round(e, 2) for n, e in loader.order.epochs(steps * BATCH).items()}
        unique = {n: int(sum(p.shard.lengths)) for n, p in sources.items()}
        write_json(
            folder / "counts.json",
            {"steps": steps, "tokens": trainer.tokens, "seen": seen, "unique": unique},
        )
        return folder

    def _network(self, base: str) -> Transformer:
        from phikit.model.config import ModelConfig
        from phikit.model.hf_read import load_hf
        from phikit.model.transformer import build

        if base == "web":
            return load_hf(self.web / "hf")[0]
        config = ModelConfig(
            vocab=VOCAB, width=96, layers=3, heads=4, kv_heads=2, ffn=288, context=CONTEXT, tied=True
        )
        return build(config, self.seed)

    def _packed(self, name: str, part: Part, tokens: int, fresh: str) -> Any:
        """Rows of a source; a fixed set is the same in every arm that repeats it."""
        from phikit.mixture.loader import PackedSource
        from phikit.mixture.shards import encode_documents, make_shard

        if part.unique == ANSWERS:
            documents = self.answers(name)
        else:
            # A fresh source is packed once and never repeated: 5 % more than its share pays for the padding.
            need = part.unique or round(1.05 * part.share * tokens) + 2 * CONTEXT
            stream = "set" if part.unique else fresh
            documents = list(self._upto(data_world.SOURCES[name](self.world, stream), need))
        encoded = encode_documents(
            self.tokenizer, documents, [(1.0, OTHER if d.meta else 1.0) for d in documents]
        )
        return PackedSource(make_shard(encoded), CONTEXT, seed_of(self.seed, "pack", name))

    def _upto(self, stream: Iterator[Document], tokens: int) -> Iterator[Document]:
        while tokens > 0:
            some = list(islice(stream, 64))
            for document, ids in zip(some, self.tokenizer.encode_batch([d.text for d in some])):
                if tokens > 0:
                    yield document
                tokens -= len(ids) + 1

    # -- answers of the teacher (study revision) ------------------------------------------------------------------

    def answers(self, name: str) -> list[Document]:
        """A set of answers to the same questions; see `recipe/teacher_answers.py`."""
        path = self.shared / "answers.jsonl.zst"
        if not path.exists():
            from phikit.recipe.teacher_answers import answer_sets

            sets, counts = answer_sets(self.world, self._engine(self.teacher), self.seed)
            write_json(self.shared / "answers.json", counts)
            write_jsonl(path, [{"set": n, "row": to_row(d)} for n, some in sets.items() for d in some])
        return [from_row(Document, r["row"]) for r in read_jsonl(path) if r["set"] == name]

    # -- measuring --------------------------------------------------------------------------------------------------

    def measured(self, arm: Arm) -> dict[str, Any]:
        """Counts of the arm, and by metric the rows (item, value, weight) of its answers to the held-out items."""
        slug = arm.name.replace(", ", "--").replace(" ", "_")
        path = self.out / f"{slug}.json"
        if not path.exists():
            folder = self._trained(arm, self.study.tokens, self.out / "arms" / slug)
            rows = {"counts": read_json(folder / "counts.json"), "rows": self._measure(folder, arm)}
            write_json(path, rows)
        return read_json(path)

    def _engine(self, folder: Path) -> TorchEngine:
        from phikit.engine.torch_engine import TorchEngine

        return TorchEngine.from_folder(folder)

    def _measure(self, folder: Path, arm: Arm) -> dict[str, list[tuple[str, float, float]]]:
        from phikit.evals.world import arithmetic, bits, choice, recall
        from phikit.evals.world.plan import Generated, Plan, Prompter, Settings
        from phikit.evals.world.run import run_plans

        engine, held = self._engine(folder), data_world.held_out(self.world, PROBLEMS)
        ask = Prompter(engine, "base")
        settings = Settings(samples=SAMPLES, max_tokens=MAX_TOKENS, seed=self.seed)
        problems = held["arithmetic"]
        greedy = arithmetic.greedy(problems, ask, settings)
        led = [
            replace(r, prompt=tuple(engine.encode(i["question"] + LEAD)))
            for i, r in zip(problems, greedy.requests)
        ]
        plans: dict[str, Plan] = {
            "greedy": greedy,
            "sampled": arithmetic.sampled(problems, ask, settings),
            "led": Generated(led, greedy.rows),
            "people": recall.exact("people", held["people"], ask, settings),
            "choice": choice.acc("choice", held["choice"], ask, settings),
        }
        plans |= {f"bits of {n}": bits.bits(self._texts(n), ask, settings) for n in ("web", "synthetic")}
        plans |= {
            f"bits of the {n} set": bits.bits(self._texts(n, "set"), ask, settings)
            for n, p in arm.parts.items()
            if p.unique > 0
        }
        rows = {name: run_plans(engine, arm.name, [(name, plan)]) for name, plan in plans.items()}
        return {name: [(r.id, r.value, r.weight) for r in some] for name, some in rows.items()}

    def _texts(self, name: str, stream: str = "held out") -> list[dict[str, Any]]:
        """The first texts of a fixed set, or held-out ones: their problems have held-out numbers."""
        made = data_world.SOURCES[name](self.world, stream, "heldout" if stream == "held out" else "train")
        return [{"id": d.id, "text": d.text, "source": name} for d in islice(made, PAGES)]
