"""Unicode's mathematical characters and the TeX commands for them."""

from __future__ import annotations

_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi _ pi rho _ sigma tau upsilon " \
         "phi chi psi omega"  # fmt: skip
SYMBOLS: dict[str, str] = {
    chr(0x3B1 + i): "\\" + name for i, name in enumerate(_GREEK.split()) if name != "_"
}
SYMBOLS |= {
    chr(0x391 + i): "\\" + name.capitalize()
    for i, name in enumerate(_GREEK.split())
    if name in ["gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "upsilon", "phi", "psi", "omega"]
}
SYMBOLS |= {
    "ϵ": "\\epsilon", "ε": "\\varepsilon", "ϕ": "\\phi", "φ": "\\varphi", "ϑ": "\\vartheta", "ϖ": "\\varpi",
    "ϱ": "\\varrho", "ς": "\\varsigma", "∞": "\\infty", "∂": "\\partial", "∇": "\\nabla", "ℓ": "\\ell",
    "ℏ": "\\hbar", "ℝ": "\\mathbb{R}", "ℕ": "\\mathbb{N}", "ℤ": "\\mathbb{Z}", "ℚ": "\\mathbb{Q}",
    "ℂ": "\\mathbb{C}", "ℙ": "\\mathbb{P}", "ℑ": "\\Im", "ℜ": "\\Re", "ℵ": "\\aleph", "∀": "\\forall",
    "∃": "\\exists", "∄": "\\nexists", "∅": "\\emptyset", "∈": "\\in", "∉": "\\notin", "∋": "\\ni",
    "⊂": "\\subset", "⊆": "\\subseteq", "⊃": "\\supset", "⊇": "\\supseteq", "∪": "\\cup", "∩": "\\cap",
    "∖": "\\setminus", "∧": "\\wedge", "∨": "\\vee", "¬": "\\neg", "⊕": "\\oplus", "⊗": "\\otimes",
    "⊥": "\\perp", "⊢": "\\vdash", "⊨": "\\models", "≤": "\\le", "≥": "\\ge", "≪": "\\ll", "≫": "\\gg",
    "≠": "\\ne", "≈": "\\approx", "≡": "\\equiv", "∼": "\\sim", "≃": "\\simeq", "≅": "\\cong", "∝": "\\propto",
    "±": "\\pm", "∓": "\\mp", "×": "\\times", "÷": "\\div", "⋅": "\\cdot", "·": "\\cdot", "∗": "*",
    "∘": "\\circ", "∙": "\\bullet", "−": "-", "∑": "\\sum", "∏": "\\prod", "∐": "\\coprod", "∫": "\\int",
    "∬": "\\iint", "∭": "\\iiint", "∮": "\\oint", "⋃": "\\bigcup", "⋂": "\\bigcap", "⋁": "\\bigvee",
    "⋀": "\\bigwedge", "√": "\\sqrt", "→": "\\to", "←": "\\leftarrow", "↔": "\\leftrightarrow",
    "⇒": "\\Rightarrow", "⇐": "\\Leftarrow", "⇔": "\\Leftrightarrow", "↦": "\\mapsto", "↑": "\\uparrow",
    "↓": "\\downarrow", "⟶": "\\longrightarrow", "⟹": "\\implies", "⟺": "\\iff", "↪": "\\hookrightarrow",
    "⟨": "\\langle", "⟩": "\\rangle", "⌊": "\\lfloor", "⌋": "\\rfloor", "⌈": "\\lceil", "⌉": "\\rceil",
    "‖": "\\|", "∥": "\\parallel", "∣": "\\mid", "…": "\\ldots", "⋯": "\\cdots", "⋮": "\\vdots", "⋱": "\\ddots",
    "′": "'", "″": "''", "°": "^\\circ", "†": "\\dagger", "‡": "\\ddagger", "⋆": "\\star", "△": "\\triangle",
    "∠": "\\angle", "□": "\\square", "∴": "\\therefore", "∵": "\\because", "≺": "\\prec", "≻": "\\succ",
    "\u00a0": "\\ ", "\u2003": "\\quad",
}  # fmt: skip
FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "log",
        "ln",
        "lg",
        "exp",
        "lim",
        "limsup",
        "liminf",
        "max",
        "min",
        "sup",
        "inf",
        "det",
        "dim",
        "ker",
        "deg",
        "gcd",
        "arg",
        "hom",
        "Pr",
    ]
)
