// TeX to MathML: what models write in answers. What is not known here is shown as its source.
import { el } from "./dom.js";

const NS = "http://www.w3.org/1998/Math/MathML";
const ml = (name, attributes = {}, ...children) => {
  const node = document.createElementNS(NS, name);
  for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
  node.append(...children);
  return node;
};
const GREEK = "alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε zeta ζ eta η theta θ vartheta ϑ iota ι kappa κ lambda λ mu μ nu ν xi ξ pi π varpi ϖ rho ρ sigma σ varsigma ς tau τ upsilon υ phi ϕ varphi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π Sigma Σ Upsilon Υ Phi Φ Psi Ψ Omega Ω infty ∞ partial ∂ nabla ∇ hbar ℏ ell ℓ Re ℜ Im ℑ aleph ℵ emptyset ∅ varnothing ∅ imath ı jmath ȷ angle ∠ degree ° dots … ldots … cdots ⋯ vdots ⋮ ddots ⋱ triangle △ square □ top ⊤ bot ⊥ prime ′";
const SIGNS = "pm ± mp ∓ times × div ÷ cdot ⋅ ast ∗ star ⋆ circ ∘ bullet ∙ oplus ⊕ ominus ⊖ otimes ⊗ odot ⊙ cap ∩ cup ∪ setminus ∖ wedge ∧ land ∧ vee ∨ lor ∨ neg ¬ lnot ¬ leq ≤ le ≤ geq ≥ ge ≥ neq ≠ ne ≠ ll ≪ gg ≫ approx ≈ equiv ≡ sim ∼ simeq ≃ cong ≅ propto ∝ prec ≺ succ ≻ in ∈ notin ∉ ni ∋ subset ⊂ subseteq ⊆ supset ⊃ supseteq ⊇ forall ∀ exists ∃ nexists ∄ to → rightarrow → leftarrow ← Rightarrow ⇒ Leftarrow ⇐ leftrightarrow ↔ Leftrightarrow ⇔ iff ⟺ implies ⟹ impliedby ⟸ mapsto ↦ longrightarrow ⟶ uparrow ↑ downarrow ↓ mid ∣ nmid ∤ parallel ∥ perp ⟂ vdash ⊢ models ⊨ colon : therefore ∴ because ∵ lfloor ⌊ rfloor ⌋ lceil ⌈ rceil ⌉ langle ⟨ rangle ⟩ lbrace { rbrace } vert | Vert ‖ backslash \\ lvert | rvert | lVert ‖ rVert ‖ ge ≥ gets ← checkmark ✓ dagger †";
const BIG = "sum ∑ prod ∏ coprod ∐ bigcup ⋃ bigcap ⋂ bigoplus ⨁ bigotimes ⨂ bigvee ⋁ bigwedge ⋀";
const INTEGRAL = "int ∫ iint ∬ iiint ∭ oint ∮";
const table = (s) => { const w = s.split(" "), t = {}; for (let i = 0; i < w.length; i += 2) t[w[i]] = w[i + 1]; return t; };
const greek = table(GREEK), signs = table(SIGNS), big = table(BIG), integral = table(INTEGRAL);
const FUNCTIONS = new Set("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp det dim ker deg gcd hom arg Pr".split(" "));
const LIMITS = new Set("lim limsup liminf max min sup inf".split(" "));
const ACCENTS = { hat: "^", widehat: "^", bar: "¯", overline: "¯", vec: "→", dot: "˙", ddot: "¨", tilde: "~", widetilde: "~" };
const FONTS = { mathbf: "bold", boldsymbol: "bold", mathbb: "double-struck", mathcal: "script", mathscr: "script", mathfrak: "fraktur", mathrm: "normal", mathit: "italic", mathsf: "sans-serif", mathtt: "monospace" };
const SPACES = { ",": "0.17em", ":": "0.22em", ";": "0.28em", "!": "-0.17em", " ": "0.25em", quad: "1em", qquad: "2em", thinspace: "0.17em" };
const FENCES = { matrix: ["", ""], pmatrix: ["(", ")"], bmatrix: ["[", "]"], Bmatrix: ["{", "}"], vmatrix: ["|", "|"], Vmatrix: ["‖", "‖"], cases: ["{", ""], aligned: ["", ""], align: ["", ""], "align*": ["", ""], array: ["", ""], gathered: ["", ""], gather: ["", ""], "gather*": ["", ""], smallmatrix: ["", ""], equation: ["", ""], "equation*": ["", ""] };
const DEEP = 60;

class Unknown extends Error {}

export const tex = (source, display) => {
  try {
    const parser = new Parser(source);
    const row = parser.row(() => parser.at >= parser.tokens.length);
    return ml("math", display ? { display: "block" } : {}, ml("semantics", {}, row, ml("annotation", { encoding: "application/x-tex" }, source)));
  } catch (e) {
    if (!(e instanceof Unknown) && !(e instanceof RangeError)) throw e;
    return el("code", { class: "tex" }, display ? `$$${source}$$` : `$${source}$`);
  }
};

class Parser {
  constructor(source) {
    this.tokens = source.replace(/(^|[^\\])%[^\n]*/g, "$1").match(/\\[A-Za-z]+\*?|\\[\s\S]|[\s\S]/gu) || [];
    this.at = 0;
    this.deep = 0;
  }
  skip() { while (/^\s$/.test(this.tokens[this.at] || "")) this.at++; }
  peek() { this.skip(); return this.tokens[this.at]; }
  next() { const t = this.peek(); if (t === undefined) throw new Unknown("ends early"); this.at++; return t; }

  row(ends) {
    if (++this.deep > DEEP) throw new Unknown("too deep");
    const nodes = [];
    for (this.skip(); this.at < this.tokens.length && !ends(this.peek()); this.skip()) nodes.push(this.scripted());
    this.deep--;
    return nodes.length === 1 ? nodes[0] : ml("mrow", {}, ...nodes);
  }
  group() { // {...} as it stands, or one token
    if (this.peek() !== "{") return this.atom();
    this.next();
    const inner = this.row((t) => t === "}");
    this.close("}");
    return inner;
  }
  close(mark) { if (this.next() !== mark) throw new Unknown("expected " + mark); }
  raw() { // the text of {...}, unread
    this.close("{");
    let text = "", open = 1;
    for (; this.at < this.tokens.length; this.at++) {
      const t = this.tokens[this.at];
      if (t === "{") open++;
      if (t === "}" && --open === 0) { this.at++; return text; }
      text += t;
    }
    throw new Unknown("open {");
  }
  scripted() {
    const base = this.atom();
    let sub = null, sup = null;
    for (;;) {
      const t = this.peek();
      if (t === "_" && !sub) { this.next(); sub = this.group(); }
      else if (t === "^" && !sup) { this.next(); sup = this.group(); }
      else if (t === "'") { let n = 0; while (this.peek() === "'") { this.next(); n++; } const mark = ml("mo", {}, "′".repeat(n)); sup = sup ? ml("mrow", {}, mark, sup) : mark; }
      else break;
    }
    if (!sub && !sup) return base;
    const under = base.limits;
    if (sub && sup) return ml(under ? "munderover" : "msubsup", {}, base, sub, sup);
    return sub ? ml(under ? "munder" : "msub", {}, base, sub) : ml(under ? "mover" : "msup", {}, base, sup);
  }
  atom() {
    const t = this.next();
    if (t === "{") { const inner = this.row((x) => x === "}"); this.close("}"); return inner; }
    if (t.startsWith("\\")) return this.command(t.slice(1));
    if (/[0-9.]/.test(t)) {
      let n = t;
      while (/^[0-9]$/.test(this.tokens[this.at] || "") || (/^[.,]$/.test(this.tokens[this.at] || "") && /^[0-9]$/.test(this.tokens[this.at + 1] || ""))) n += this.tokens[this.at++];
      return n === "." ? ml("mo", {}, n) : ml("mn", {}, n);
    }
    if (/\p{L}/u.test(t)) return ml("mi", {}, t);
    if ("}&^_#".includes(t)) throw new Unknown(t);
    if (t === "~") return ml("mspace", { width: "0.25em" });
    if ("()[]|/".includes(t)) return ml("mo", { stretchy: "false" }, t);
    return ml("mo", {}, t === "-" ? "−" : t === "*" ? "∗" : t);
  }
  command(name) {
    if (name in greek) return /^[A-Z∞∂∇…⋯⋮⋱∅∠°△□⊤⊥′]/u.test(greek[name]) ? ml("mi", { mathvariant: "normal" }, greek[name]) : ml("mi", {}, greek[name]);
    if (name in signs) return ml("mo", {}, signs[name]);
    if (name in big) { const o = ml("mo", { largeop: "true", movablelimits: "true" }, big[name]); o.limits = true; return o; }
    if (name in integral) return ml("mo", { largeop: "true" }, integral[name]);
    if (FUNCTIONS.has(name)) return ml("mrow", {}, ml("mi", {}, name), ml("mspace", { width: "0.17em" }));
    if (LIMITS.has(name)) { const o = ml("mo", { movablelimits: "true" }, name); o.limits = true; return o; }
    if (name in SPACES) return ml("mspace", { width: SPACES[name] });
    if (name in ACCENTS) return ml("mover", { accent: "true" }, this.group(), ml("mo", { stretchy: String(name.startsWith("over") || name.startsWith("wide")) }, ACCENTS[name]));
    if (name in FONTS) { const inner = this.group(); for (const i of [inner, ...inner.querySelectorAll("*")]) if (["mi", "mn"].includes(i.localName)) i.textContent = [...i.textContent].map((c) => styled(c, FONTS[name])).join(""), i.setAttribute("mathvariant", "normal"); return inner; }
    switch (name) {
      case "frac": case "dfrac": case "tfrac": case "cfrac": return ml("mfrac", {}, this.group(), this.group());
      case "binom": case "dbinom": case "tbinom": return ml("mrow", {}, ml("mo", {}, "("), ml("mfrac", { linethickness: "0" }, this.group(), this.group()), ml("mo", {}, ")"));
      case "sqrt": {
        if (this.peek() !== "[") return ml("msqrt", {}, this.group());
        this.next();
        const index = this.row((t) => t === "]");
        this.close("]");
        return ml("mroot", {}, this.group(), index);
      }
      case "text": case "textbf": case "textit": case "mbox": case "textrm": case "texttt": return ml("mtext", {}, this.raw().replace(/^ | $/g, "\u00a0"));
      case "operatorname": case "operatorname*": return ml("mi", {}, this.raw());
      case "boxed": case "fbox": return ml("mrow", { class: "boxed" }, this.group());
      case "underline": return ml("munder", {}, this.group(), ml("mo", {}, "_"));
      case "underbrace": return ml("munder", {}, this.group(), ml("mo", {}, "⏟"));
      case "overbrace": return ml("mover", {}, this.group(), ml("mo", {}, "⏞"));
      case "overset": case "stackrel": { const top = this.group(); return ml("mover", {}, this.group(), top); }
      case "underset": { const low = this.group(); return ml("munder", {}, this.group(), low); }
      case "left": {
        const open = this.fence(), inner = this.row((t) => t === "\\right");
        this.close("\\right");
        return ml("mrow", {}, open, inner, this.fence());
      }
      case "big": case "Big": case "bigg": case "Bigg": case "bigl": case "bigr": case "Bigl": case "Bigr": case "biggl": case "biggr": case "middle": return this.fence();
      case "begin": return this.environment(this.raw());
      case "pmod": return ml("mrow", {}, ml("mspace", { width: "0.5em" }), ml("mo", {}, "("), ml("mi", {}, "mod"), ml("mspace", { width: "0.3em" }), this.group(), ml("mo", {}, ")"));
      case "bmod": case "mod": return ml("mo", {}, "mod");
      case "not": { const o = this.atom(); o.textContent += "\u0338"; return o; }
      case "displaystyle": case "textstyle": case "limits": case "nolimits": case "nonumber": case "notag": case "hfill": return ml("mrow");
      case "tag": return ml("mtext", {}, ` (${this.raw()})`);
      case "\\": case "newline": return ml("mspace", { linebreak: "newline" });
      case "{": case "}": case "%": case "$": case "#": case "&": case "_": return ml("mo", { stretchy: "false" }, name);
      case "|": return ml("mo", { stretchy: "false" }, "‖");
      default: throw new Unknown("\\" + name);
    }
  }
  fence() {
    const t = this.next(), name = t.slice(1);
    const text = t === "." ? "" : t === "\\|" ? "‖" : t.startsWith("\\") ? signs[name] ?? name : t;
    return ml("mo", { stretchy: "true", fence: "true" }, text);
  }
  environment(name) {
    const fences = FENCES[name];
    if (!fences) throw new Unknown(name);
    if (name === "array") this.raw();
    const rows = [[]];
    const ends = (t) => t === "&" || t === "\\\\" || t === "\\end";
    for (;;) {
      rows.at(-1).push(ml("mtd", {}, this.row(ends)));
      const t = this.next();
      if (t === "\\\\") { if (this.peek() === "\\end") { this.next(); break; } rows.push([]); }
      else if (t === "\\end") break;
    }
    if (this.raw() !== name) throw new Unknown("\\end");
    const lined = /align|cases/.test(name);
    const body = ml("mtable", lined ? { columnalign: name === "cases" ? "left left" : "right left", displaystyle: "true" } : {}, ...rows.map((r) => ml("mtr", {}, ...r)));
    return fences[0] || fences[1] ? ml("mrow", {}, ml("mo", { stretchy: "true" }, fences[0]), body, ml("mo", { stretchy: "true" }, fences[1])) : body;
  }
}

// MathML Core knows no mathvariant but normal: the letters of Unicode's mathematical alphabets take its place.
const START = { bold: [0x1d400, 0x1d41a, 0x1d7ce], script: [0x1d49c, 0x1d4b6], fraktur: [0x1d504, 0x1d51e], "double-struck": [0x1d538, 0x1d552, 0x1d7d8], "sans-serif": [0x1d5a0, 0x1d5ba, 0x1d7e2], monospace: [0x1d670, 0x1d68a, 0x1d7f6], italic: [0x1d434, 0x1d44e] };
const HOLES = { "double-struck": { C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ" }, script: { B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ", e: "ℯ", g: "ℊ", o: "ℴ" }, fraktur: { C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ" }, italic: { h: "ℎ" } };
const styled = (c, font) => {
  if (font === "normal") return c;
  const hole = (HOLES[font] || {})[c], [upper, lower, digit] = START[font];
  if (hole) return hole;
  if (/[A-Z]/.test(c)) return String.fromCodePoint(upper + c.charCodeAt(0) - 65);
  if (/[a-z]/.test(c)) return String.fromCodePoint(lower + c.charCodeAt(0) - 97);
  if (/[0-9]/.test(c) && digit) return String.fromCodePoint(digit + c.charCodeAt(0) - 48);
  return c;
};
