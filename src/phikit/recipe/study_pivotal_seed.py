"""One seed of `phikit study pivotal`: its SFT model, its search, its pair sets and its arms, each kept as files."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from phikit.recipe.study_pivotal import BY_NAME, EPOCHS, Arm, Setting, chosen
from phikit.recipe.study_runs import nano, run_until
from phikit.records import artifact
from phikit.records.io import read_json, read_jsonl, write_json, write_jsonl

# Held-out problems of a seed: the first are for the test, each answered greedily and SAMPLES times at temperature 1;
# those after them choose settings, by DEV_SAMPLES answers each.
PROBLEMS, SAMPLES = 300, 4
DEV_PROBLEMS, DEV_SAMPLES = 200, 2
QUESTIONS = 120  # searched
JUDGED, JUDGED_SFT = 400, 800  # prompts of the second round, and of one round
PROMPT = 6  # tokens of the chat template around a question
POOL = 4  # answers of the SFT model to every training question
HOLDS = 0.1  # by how much a pair's chosen token must be better in other questions


class Seed:
    """Everything is made when it is first asked for and read from its file afterwards."""

    def __init__(self, seed: int, models: Path, out: Path) -> None:
        """`models`/seed-N is a run of the recipe."""
        self.seed, self.run, self.out = seed, models / f"seed-{seed}", out / f"seed-{seed}"
        self.recipe = nano(seed)

    # -- the model and its search -----------------------------------------------------------------------------------

    @cached_property
    def model(self) -> Path:
        """The folder of the SFT model; the recipe is run up to it where there is none."""
        return run_until(self.recipe, self.run, "sft")

    @cached_property
    def questions(self):
        from phikit.preference.questions import question_of

        assert self.model
        return [question_of(r) for r in read_jsonl(self.run / "synth" / "questions.jsonl.zst")]

    @cached_property
    def search(self):
        """(result, rollouts) of the recipe's own search; its log makes a second look free."""
        from phikit.engine.torch_engine import TorchEngine
        from phikit.preference.pivotal import SearchConfig, search
        from phikit.preference.questions import STOP, is_right
        from phikit.preference.rollouts import Rollouts

        c = self.recipe.pivotal
        assert c is not None
        rollouts = Rollouts(
            TorchEngine.from_folder(self.model), is_right, self.out / "search", temperature=c.temperature,
            top_p=c.top_p, max_tokens=c.max_tokens, budget=c.budget, seed=self.seed, stop=STOP, identity="sft",
        )  # fmt: skip
        config = SearchConfig(c.gap, c.low, c.high, c.trajectories, c.rollouts, c.error)
        result = search(self.questions[:QUESTIONS], rollouts, config)
        return result, rollouts

    @cached_property
    def spent(self) -> int:
        """Tokens that the search processed."""
        path = self.out / "search.json"
        if not path.exists():
            result, rollouts = self.search
            row = {
                "generated": rollouts.generated,
                "prefilled": rollouts.prefilled,
                "pivots": len(result.pivots),
            }
            write_json(path, row)
        row = read_json(path)
        return row["generated"] + row["prefilled"]

    @cached_property
    def sft(self) -> dict[str, Any]:
        """The SFT model on the test problems, as `trained` gives it of an arm."""
        return self._kept(self.out / "measured" / "sft.json", lambda: self._test(self.model))

    @cached_property
    def sft_dev(self) -> dict[str, Any]:
        return self._kept(self.out / "measured" / "sft-dev.json", lambda: self._dev(self.model))

    # -- pair sets --------------------------------------------------------------------------------------------------

    def pairs(self, name: str, make: Callable[[], list] | None = None) -> list:
        """A pair set by its name, from its file where it was made before."""
        from phikit.records import Preference, from_row, to_row

        path = self._pair_file(name)
        if not path.exists():
            made = (make or (lambda: self._make(name)))()
            if not made:
                raise ValueError(f"study pivotal, seed {self.seed}: no pairs of kind {name!r}")
            write_jsonl(path, [to_row(p) for p in made])
        return [from_row(Preference, r) for r in read_jsonl(path)]

    def _pair_file(self, name: str) -> Path:
        return self.out / "pairs" / name.replace(":", "-of-").replace(" ", "_") / "pairs.jsonl.zst"

    def _make(self, name: str) -> list:
        if name.startswith("judged"):
            return self._judged(name.partition(":")[2])
        if name == "pool":
            return self._pool_pairs()
        if name in ("pivotal", "whole", "random"):
            return self._of_search(name)
        rng, all_pairs = random.Random(self.seed), self.pairs("pivotal")
        if name == "whole_few":
            tokens = {a: self.trained(BY_NAME[a])["tokens"] for a in ("pivotal", "whole answer")}
            some = self.pairs("whole")
            count = round(len(some) * tokens["pivotal"] / tokens["whole answer"])
            return rng.sample(some, max(1, min(len(some), count)))
        held = self.held()
        sides = {h: [p for p in all_pairs if held[p.id]["holds"] is h] for h in (True, False)}
        if name == "holds":
            return sides[True]
        few = min(len(s) for s in sides.values())
        return rng.sample(sides[name == "holds_few"], few)

    def _of_search(self, name: str) -> list:
        """Pairs of the searched rollouts; the other two forms have as many of each question as the pivotal one."""
        from phikit.preference import contrast
        from phikit.preference.export import Texts, pairs_of

        result, rollouts = self.search
        texts = Texts(rollouts.engine)
        found = pairs_of(result, texts)
        if name == "pivotal":
            return found
        rng, out, short = random.Random(self.seed), [], 0
        known: dict[str, dict] = {}
        for key, some in rollouts.known.items():
            known.setdefault(key[0], {})[key] = some
        for f in result.found:
            q, count = f.question, sum(p.meta["question"] == f.question.id for p in found)
            if name == "whole":
                made = contrast.whole_answer_pairs(q, rollouts.of(q, ()), count, rng, texts.of)
            else:
                answers = [a.tokens for a in f.answers]
                places = [v.prefix for v in f.pivots]
                made = contrast.random_token_pairs(q, answers, places, known[q.id], count, rng, texts.of)
            short += count - len(made)
            out += made
        write_json(self.out / "pairs" / f"{name}.json", {"pairs": len(out), "fewer_than_pivotal": short})
        return out

    def held(self) -> dict[str, dict[str, Any]]:
        """For each pivotal pair whether it holds in other questions, and what else tells kinds of pivots apart."""
        path = self.out / "pairs" / "kinds.json"
        if not path.exists():
            from phikit.preference import contrast

            moves = contrast.Moves(self.search[1].known)
            rows = {
                p.id: {
                    "holds": contrast.holds_elsewhere(p, moves, HOLDS), "recovers": contrast.recovers(p),
                    "difference": moves.elsewhere(p).difference, "context": moves.elsewhere(p).context,
                    "fact": any(t.strip().isdigit() for t in (p.chosen, p.rejected)),
                }
                for p in self.pairs("pivotal")
            }  # fmt: skip
            write_json(path, rows)
        return read_json(path)

    def _answers(self, name: str, folder: Path, questions, n: int):
        """Answers of a model, kept as a file: {question id: replies}."""
        from phikit.engine.torch_engine import TorchEngine
        from phikit.preference.judged import Reply, answers

        path = self.out / "answers" / f"{name.replace(' ', '_')}.jsonl.zst"
        if not path.exists():
            given = answers(
                TorchEngine.from_folder(folder), questions, responder=name, n=n, temperature=1.0,
                max_tokens=64, seed=self.seed,
            )  # fmt: skip
            write_jsonl(
                path,
                [
                    {"q": q, "text": r.text, "tokens": list(r.tokens), "stopped": r.stopped}
                    for q, some in given.items()
                    for r in some
                ],
            )
        out: dict[str, list[Reply]] = {}
        for r in read_jsonl(path):
            out.setdefault(r["q"], []).append(Reply(r["text"], tuple(r["tokens"]), r["stopped"], name))
        return out

    def _pool_pairs(self) -> list:
        """Right over wrong whole answers of as many questions as the tokens of the search and of the pivotal arm's
        training pay for; an epoch over them costs what is counted."""
        from phikit.preference import contrast
        from phikit.preference.questions import is_right
        from phikit.preference.rollouts import Rollout
        from phikit.text.tokenizer import Tokenizer

        pool, rng = self._answers("sft pool", self.model, self.questions, POOL), random.Random(self.seed)
        tokenizer = Tokenizer.load(self.run / "tokenizer" / "tokenizer.json")
        budget = self.spent + self.trained(BY_NAME["pivotal"])["tokens"]
        out = []
        for q in self.questions:
            replies, prompt = pool[q.id], len(tokenizer.encode(q.question)) + PROMPT
            graded = [
                Rollout(
                    r.tokens,
                    (),
                    "truncated" if not r.stopped else "right" if is_right(q, r.text) else "wrong",
                )
                for r in replies
            ]
            made = contrast.whole_answer_pairs(q, graded, 2, rng, lambda ids: tokenizer.decode(list(ids)))
            budget -= prompt + sum(len(r.tokens) for r in replies)  # sampling, then training
            budget -= prompt + sum(len(p.chosen_ids) + len(p.rejected_ids) for p in made) if made else 0
            if budget < 0:
                break
            out += made
        return out

    def _judged(self, of: str) -> list:
        """Pairs by the recipe's own rubric, from the last questions. Without `of`: of POOL answers of the SFT model to
        JUDGED_SFT questions; else of POOL answers of arm `of` and two of the SFT model to JUDGED questions."""
        from phikit.preference.judged import PairCounts
        from phikit.preference.judging import judged_pairs
        from phikit.recipe.stages.judged import verified

        questions = self.questions[-JUDGED_SFT:]
        replies = self._answers("sft", self.model, questions, POOL)
        if of:
            questions, pool = questions[-JUDGED:], replies
            own = self._answers(of, self.folder(BY_NAME[of]), questions, POOL)
            replies = {q.id: own[q.id] + pool[q.id][:2] for q in questions}
        marks = {q.id: [[verified(r, q) for r in replies[q.id]]] for q in questions}
        return judged_pairs(questions, replies, marks, most=2, counts=PairCounts())

    # -- arms -------------------------------------------------------------------------------------------------------

    def setting(self, arm: Arm) -> Setting:
        return chosen(self, arm)

    def folder(self, arm: Arm, setting: Setting | None = None) -> Path:
        """Where an arm is kept, at `setting` or at what was chosen."""
        c = setting or self.setting(arm)
        return self.out / "arms" / f"{_slug(arm.name)}-lr{c.lr:g}-nll{c.nll:g}"

    def cell(self, arm: Arm, setting: Setting) -> dict[str, Any]:
        """An arm trained at a setting, and its answers to the development problems."""
        folder = self.folder(arm, setting)

        def made() -> dict[str, Any]:
            counts = self._kept(folder / "counts.json", lambda: self._train(arm, setting, folder))
            return self._dev(folder) | counts

        return self._kept(folder / "dev.json", made)

    def trained(self, arm: Arm) -> dict[str, Any]:
        """The arm at its chosen setting, and its answers to the test problems. Networks that were not chosen go."""
        c, folder = self.setting(arm), self.folder(arm)

        def made() -> dict[str, Any]:
            cell = self.cell(arm, c)
            for other in folder.parent.glob(f"{_slug(arm.name)}-lr*"):
                shutil.rmtree(other / artifact.WORK, ignore_errors=True)
                if other != folder:
                    shutil.rmtree(other / "hf", ignore_errors=True)
            counts = {k: cell[k] for k in ("pairs", "steps", "tokens")}
            return self._test(folder) | counts | {"lr": c.lr, "nll": c.nll}

        return self._kept(folder / "result.json", made)

    def finished(self, arm: Arm) -> bool:
        return any((self.out / "arms").glob(f"{_slug(arm.name)}-lr*/result.json"))

    def _kept(self, path: Path, made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if not path.exists():
            write_json(path, made())
        return read_json(path)

    def _train(self, arm: Arm, setting: Setting, folder: Path) -> dict[str, Any]:
        from phikit.recipe.context import StageContext
        from phikit.recipe.dpo import run_dpo
        from phikit.train.reference import FILE

        pairs, config = self.pairs(arm.pairs), self.recipe.dpo1
        assert config is not None
        steps = self._steps(arm, len(pairs))
        batch = min(config.batch, len(pairs))
        update = {"lr": setting.lr, "nll_weight": setting.nll, "epochs": steps * batch / len(pairs)}
        base = self.model if arm.base == "sft" else self.folder(BY_NAME[arm.base])
        beside = self._pair_file(arm.pairs).parent
        inputs = {
            "tokenizer": artifact.load(self.run / "tokenizer"),
            "base": artifact.Artifact(base, artifact.Manifest("base", "", {}, {}, {})),
            "pairs": artifact.Artifact(
                beside, artifact.Manifest("pairs", "", {}, {}, {}, {"pairs.jsonl.zst": artifact.UNHASHED})
            ),
        }
        ctx = StageContext(
            arm.name, self.recipe, config.model_copy(update=update), {k: v for k, v in inputs.items() if v},
            folder, folder / artifact.WORK, self.seed,
        )  # fmt: skip
        # The reference is the same at every setting; the file knows its model and its pairs.
        folder.mkdir(parents=True, exist_ok=True)
        if (beside / FILE).exists():
            shutil.copyfile(beside / FILE, folder / FILE)
        counts = run_dpo(ctx, "base", "pairs")
        shutil.copyfile(folder / FILE, beside / FILE)
        return counts

    def _steps(self, arm: Arm, pairs: int) -> int:
        config = self.recipe.dpo1
        assert config is not None
        steps = arm.times * EPOCHS * len(self.pairs("pivotal")) / config.batch
        if arm.epochs:
            steps = arm.epochs * pairs / min(config.batch, pairs)
        return max(1, round(steps))

    # -- measuring --------------------------------------------------------------------------------------------------

    def held_out(self, test: bool) -> list:
        """The problems of the test, or those that settings are chosen on; no problem is in both. Raises ValueError
        where the run holds too few."""
        from phikit.preference.questions import question_of

        path = self.run / "synth" / "heldout" / "arithmetic.jsonl"
        rows = [
            question_of({k: r[k] for k in ("id", "question", "answer")})
            for r in islice(read_jsonl(path), 2000)
        ]
        tested = rows[:PROBLEMS]
        if test:
            return tested
        words = {q.question for q in tested}
        dev = [q for q in rows[PROBLEMS:] if q.question not in words][:DEV_PROBLEMS]
        if len(dev) < DEV_PROBLEMS:
            raise ValueError(f"study pivotal: {path} holds fewer than {PROBLEMS + DEV_PROBLEMS} problems")
        return dev

    def _dev(self, folder: Path) -> dict[str, Any]:
        return self._answered(folder, self.held_out(False), DEV_SAMPLES, 1.0, "sampled")

    def _test(self, folder: Path) -> dict[str, Any]:
        held = self.held_out(True)
        greedy = self._answered(folder, held, 1, 0.0, "greedy")
        return {"greedy": greedy["greedy"]} | self._answered(folder, held, SAMPLES, 1.0, "sampled")

    def _answered(self, folder: Path, held: list, n: int, temperature: float, name: str) -> dict[str, Any]:
        """By id, whether each answer is right; `cut`: share of answers that did not end. The seed of a sample depends
        on the problem alone, so arms share their randomness."""
        from phikit.engine.torch_engine import TorchEngine
        from phikit.preference.judged import answers
        from phikit.preference.questions import is_right

        engine = TorchEngine.from_folder(folder)
        given = answers(
            engine, held, responder="eval", n=n, temperature=temperature, max_tokens=64, seed=self.seed
        )
        replies = [r for some in given.values() for r in some]
        return {
            name: {
                q.id: [float(r.stopped and is_right(q, r.text) is True) for r in given[q.id]] for q in held
            },
            "cut": sum(not r.stopped for r in replies) / len(replies),
            "length": sum(len(r.tokens) for r in replies) / len(replies),
        }


def _slug(name: str) -> str:
    return name.replace(", ", "--").replace(" ", "_")
