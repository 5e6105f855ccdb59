"""A whole search, from questions to a folder of pairs: what `phikit pts` and the stage `pivotal` run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phikit.engine.base import Engine
from phikit.engine.open import split_kind, weights_of
from phikit.preference import export
from phikit.preference.card import card, write_card
from phikit.preference.pivotal import SearchConfig, SearchResult, search
from phikit.preference.questions import STOP, is_right
from phikit.preference.rollouts import Question, Rollouts

WEIGHTS = ("*.safetensors", "*.gguf")


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled. `budget` bounds processed tokens (generated and prefilled), 0 for none; `stop`: strings
    that close an answer, by kind of question."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    budget: int = 0
    seed: int = 0
    stop: Mapping[str, Sequence[str]] = field(default_factory=lambda: STOP)


def run(
    engine: Engine,
    questions: Iterable[Question],
    out: Path,
    config: SearchConfig,
    sampling: Sampling,
    *,
    work: Path | None = None,
    identity: str = "",
    check: Callable[[Question, str], bool | None] = is_right,
) -> tuple[SearchResult, dict[str, Any]]:
    """Searches and writes all files of `export` and the card into `out`; the log of rollouts lies in `work` (without it
    `out/.work`) and serves again after a kill or when a setting of the search is changed. Returns (result, card)."""
    rollouts = Rollouts(
        engine, check, work or out / ".work", temperature=sampling.temperature, top_p=sampling.top_p,
        max_tokens=sampling.max_tokens, budget=sampling.budget, seed=sampling.seed, stop=sampling.stop,
        identity=identity,
    )  # fmt: skip
    result = search(questions, rollouts, config)
    pairs = export.write(result, rollouts, out)
    value = card(result, pairs, rollouts, config)
    write_card(out, value)
    return result, value


def identity(spec: str) -> str:
    """What tells a model from another under the same name: the sizes and times of its weight files."""
    _, model = split_kind(spec)
    path = Path(model)
    if not path.exists() and not model.startswith(("http://", "https://")):
        path = weights_of(model)  # of a model in the store
    folder = path / "hf" if (path / "hf").is_dir() else path
    files = [path] if path.is_file() else sorted(f for w in WEIGHTS for f in folder.glob(w))
    stats = [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
    return "; ".join([spec, *stats])
