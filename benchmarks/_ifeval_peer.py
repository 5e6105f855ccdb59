"""Runs in the peer's environment: IFEval's checkers as lm-eval ships them, one JSON line [kind, kwargs, text] in, one
verdict out. lm-eval's package is not imported (it wants datasets and more), only its two files of checkers."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any


def _load(folder: Path) -> Any:
    for name in ("lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval"):
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module
    found = None
    for name in ("instructions_util", "instructions", "instructions_registry"):
        whole = f"lm_eval.tasks.ifeval.{name}"
        spec = importlib.util.spec_from_file_location(whole, folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        sys.modules[whole] = found
        setattr(sys.modules["lm_eval.tasks.ifeval"], name, found)
        spec.loader.exec_module(found)
    return found


def main() -> None:
    import langdetect  # pyright: ignore[reportMissingImports]

    langdetect.DetectorFactory.seed = 0
    kinds = _load(Path(sys.argv[1])).INSTRUCTION_DICT
    for line in sys.stdin:
        kind, args, text = json.loads(line)
        checker = kinds[kind](kind)
        checker.build_description(**args)
        print(json.dumps(bool(text.strip() and checker.check_following(text))))


main()
