"""What `phikit synth list` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def lines(rows: Sequence[Mapping[str, Any]], *, as_json: bool = False) -> Iterator[str]:
    """The catalogue as one JSON array, or as a table grouped by use."""
    if as_json:
        yield json.dumps(list(rows), indent=1, ensure_ascii=False)
        return
    for use in dict.fromkeys(r["use"] for r in rows):
        part = [r for r in rows if r["use"] == use]
        yield f"{use}: {len(part)} types, {_tokens(sum(r['quota_tokens'] for r in part))} tokens"
        for r in part:
            what = ", ".join(
                x for x in (r["domain"], r["language"] if r["language"] != "English" else "") if x
            )
            options = " ".join(f"{k}={v}" for k, v in r["options"].items())
            yield (
                f"  {r['name']:<28} {_tokens(r['quota_tokens']):>7}  {r['flow']:<14} {r['seeds']:<14} "
                f"{r['validator']}" + (f"  [{what}]" if what else "") + (f"  {options}" if options else "")
            )
        yield ""
    yield f"{len(rows)} types. `phikit synth run NAME --seeds YOURS --out FOLDER` makes any of them"


def _tokens(n: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)
