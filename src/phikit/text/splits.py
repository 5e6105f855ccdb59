"""The pre-splits that are known: what cuts a text into the words that BPE merges work in.

llama.cpp knows them by name; the regexes are its own, one applied after the other. A tokenizer.json may only name
one of these: a regex of a stranger's file could run forever.
"""

from __future__ import annotations

# Facts section 2.2: the cl100k pre-split. Digits come in runs of up to three, or one by one at nano.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT = r"\p{N}"

# Name in llama.cpp -> regexes. `default` is what it takes for files that name none.
PRE: dict[str, tuple[str, ...]] = {
    "dbrx": (SPLIT % 3,),
    "llama-bpe": (SPLIT % 3,),
    "qwen2": (SPLIT % 1,),
    "smollm": (DIGIT, GPT2),
    "gpt-2": (GPT2,),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
}
WHOLE_WORDS = {"llama-bpe"}  # a word that is a token is not merged from its letters

# Other spellings and other models' regexes that published tokenizer.json files name.
_PUBLISHED = (
    (SPLIT % 1).replace("{1,1}", ""),
    GPT2.removesuffix(r"|\s+"),
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # o200k
)
KNOWN = frozenset({r for regexes in PRE.values() for r in regexes} | {SPLIT % 2} | set(_PUBLISHED))
