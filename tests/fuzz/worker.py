"""One target under atheris: `worker.py TARGET CORPUS SEEDS -runs=N` and other options of libFuzzer.

The process may take `GROWTH` bytes of address space beyond what it has when fuzzing begins. An allocation
beyond that is a MemoryError, which no target may raise.
"""

from __future__ import annotations

import random
import resource
import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
with atheris.instrument_imports(include=["phikit"]):
    import targets
from gguf_mutator import mutate as mutate_gguf
from json_mutator import mutate_safetensors, mutate_tokenizer

GROWTH = 256 << 20
MUTATORS = {"gguf": mutate_gguf, "safetensors": mutate_safetensors, "tokenizer": mutate_tokenizer}
PLAIN = 0.25  # of all mutations are libFuzzer's own, of bytes
FRESH = 0.3  # begin from a sound file: what libFuzzer keeps is mostly refused early


def main() -> None:
    target = sys.argv.pop(1)
    seeds = [p.read_bytes() for p in sorted(Path(sys.argv[2]).iterdir())]

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < FRESH:
            data = rng.choice(seeds)
        if rng.random() < PLAIN:
            return atheris.Mutate(data, max_size)
        return MUTATORS[target](data, rng, max_size)

    def one(data: bytes) -> None:
        targets.run(target, data)

    targets.Tokenizer.train([targets.TEXT], 270).encode(targets.TEXT)  # what is loaded late is loaded now
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + GROWTH
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    atheris.Setup(sys.argv, one, custom_mutator=mutate, internal_libfuzzer=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
