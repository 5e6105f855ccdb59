// Draws searched answers: the text with p(success) above each of its lines, a small line for the list, and what would have
// been with another token. Text from models goes through textContent only.
const pivotDraw = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const ROLES = ["taken", "pair", "other"], OUTCOMES = ["right", "wrong", "unparsed", "truncated"];
  // Characters that would show nothing, or turn what follows round; joiners stay, scripts and emoji need them.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/;
  const LTR = /[A-Za-z\u00aa-\u02b8\u0370-\u058f\u3040-\uabff]/, RTL = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

  const el = (name, cls, text) => {
    const e = document.createElement(name);
    if (cls) e.className = cls;
    if (text !== undefined) e.textContent = text;
    return e;
  };
  const svg = (name, attributes) => {
    const e = document.createElementNS(SVG, name);
    for (const k in attributes) e.setAttribute(k, attributes[k]);
    return e;
  };
  const share = (x) => (x / 1000).toFixed(2);
  const odds = (x) => (x >= 1000 ? "over 0.999" : x < 1 ? "under 0.001" : (x / 1000).toFixed(x < 100 || x > 990 ? 3 : 2));
  const signed = (x) => (x > 0 ? "+" : "\u2212") + share(Math.abs(x));
  const way = (change) => (change > 0 ? "up" : "down");
  const raises = (v) => `${v.change > 0 ? "raises" : "lowers"} p(success) from ${share(v.before)} to ${share(v.after)}`;

  // Text in which hidden characters, line ends and (`ends`) blanks at its ends can be seen. Empty lines take no room: `open`
  // says that another line end follows.
  const visible = (into, text, ends, open) => {
    let run = "";
    const flush = () => { if (run) into.append(run); run = ""; };
    const sign = (s) => { flush(); into.append(el("span", "sign", s)); };
    if (text === "") sign("\u00b7");
    [...text].forEach((c, i, all) => {
      if (c === "\n") { sign("\u21b5"); if (!ends && (i + 1 < all.length ? all[i + 1] !== "\n" : !open)) run += c; }
      else if (c === "\t") { sign("\u21e5"); if (!ends) run += c; }
      else if (c === " " && ends && (i === 0 || i === all.length - 1)) sign("\u00b7");
      else if (HIDDEN.test(c)) sign("U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0"));
      else run += c;
    });
    flush();
    return into;
  };
  const special = (text) => /^<[|a-z/][^<>]{0,30}>$/i.test(text);
  const chip = (text, cls) => {
    const c = el("b", "pv-chip " + (cls || ""));
    if (special(text)) c.append(el("span", "sign", text)); else visible(c, text, true);
    return c;
  };
  const spoken = (text) => text.trim() || { "\n": "line end", "": "part of a character" }[text] || "blank";

  // p at both ends of every token: estimates, and between them a line that moves as far as other tokens were likely.
  const course = (a) => {
    if (a.course) return a.course;
    const T = a.tokens.length, left = a.p.slice(), right = a.p.slice();
    for (const v of a.pivots) { right[v.at] = v.before; left[v.at + 1] = v.after; }
    const begin = new Array(T), end = new Array(T), pivot = new Array(T);
    for (const v of a.pivots) pivot[v.at] = v;
    for (let x = 0; x < T;) {
      let y = x + 1;
      while (y < T && left[y] < 0 && !pivot[y]) y++;
      let from = right[x], to = left[y];
      if (from < 0) from = x ? end[x - 1] : to < 0 ? 500 : to;
      if (to < 0) to = from;
      let weight = 1e-9, done = 0;
      for (let i = x; i < y; i++) weight += 1000 - a.probability[i] + 0.01;
      for (let i = x; i < y; i++) {
        begin[i] = from + (to - from) * done / weight;
        done += 1000 - a.probability[i] + 0.01;
        end[i] = from + (to - from) * Math.min(1, done / weight);
      }
      x = y;
    }
    return (a.course = { begin, end, pivot });
  };

  // The whole answer as one small line; pivotal tokens in colour.
  const spark = (a, keep) => {
    const { begin, end, pivot } = course(a), T = a.tokens.length, y = (p) => (23 - p * 0.022).toFixed(1);
    const s = svg("svg", { class: "pv-spark", viewBox: `0 0 ${T} 24`, preserveAspectRatio: "none", "aria-hidden": "true" });
    let d = "";
    for (let i = 0; i < T; i++) d += `${i ? "L" : "M"}${i},${y(begin[i])}L${i + 1},${y(end[i])}`;
    s.append(svg("line", { x1: 0, x2: T, y1: 23, y2: 23 }), svg("path", { d }));
    for (const v of a.pivots) {
      if (keep(v)) s.append(svg("path", { class: way(v.change), d: `M${v.at},${y(begin[v.at])}L${v.at + 1},${y(end[v.at])}` }));
    }
    return s;
  };

  // Tokens as spans, those that are pivotal as buttons. Returns the spans.
  const text = (into, a, kind, keep) => {
    const { pivot } = course(a), spans = [];
    into.classList.toggle("code", kind === "code");
    a.tokens.forEach((t, i) => {
      const e = el("span", "pv-tok"), v = pivot[i], change = v ? v.change : a.changes[i];
      e.dataset.i = i;
      if (special(t)) { e.classList.add("end"); e.textContent = t; } else visible(e, t, false, (a.tokens[i + 1] || "").startsWith("\n"));
      if (change) {
        e.classList.add(way(change), v ? "pivotal" : "tint");
        e.style.setProperty("--d", Math.min(100, Math.round(Math.abs(change) / 8)) + "%");
      }
      if (v) {
        e.classList.toggle("other", !keep(v));
        e.tabIndex = -1;
        e.setAttribute("role", "button");
        e.setAttribute("aria-pressed", "false");
        e.setAttribute("aria-label", `${spoken(t)}: ${raises(v)}`);
      }
      spans.push(e);
    });
    into.replaceChildren(...spans);
    return spans;
  };

  // Where each token stands: boxes of its parts, and the lines of text with room for p above them.
  const measure = (score, spans, height) => {
    const origin = score.getBoundingClientRect(), lines = [], boxes = [];
    const turned = spans.length && getComputedStyle(spans[0].parentElement).direction === "rtl";
    for (const e of spans) {
      const parts = [];
      const rtl = turned ? !LTR.test(e.textContent) : RTL.test(e.textContent);
      for (const r of e.getClientRects()) {
        const right = Math.min(r.right, origin.right); // a blank at the end of a line hangs over
        if (right - r.left < 0.4) continue;
        let line = lines.find((l) => Math.abs(l.bottom - (r.bottom - origin.top)) < 9);
        if (!line) lines.push(line = { bottom: r.bottom - origin.top, top: Infinity, right: 0 });
        line.top = Math.min(line.top, r.top - origin.top);
        line.right = Math.max(line.right, right - origin.left);
        parts.push({ line, left: r.left - origin.left, right: right - origin.left, rtl });
      }
      boxes.push(parts);
    }
    for (const l of lines) { l.low = l.top - 5; l.high = l.low - height; }
    return { lines, boxes };
  };

  // The height of the plots: large for a short answer, small for a long one.
  const heightFor = (lines) => Math.max(38, Math.min(132, Math.round(300 / lines)));

  const plot = (score, layer, a, spans, keep) => {
    score.style.setProperty("--h", "40px");
    const height = heightFor(measure(score, spans, 40).lines.length || 1);
    score.style.setProperty("--h", height + "px");
    const { lines, boxes } = measure(score, spans, height);
    const { begin, end, pivot } = course(a);
    const y = (line, p) => (line.low - (line.low - line.high) * p / 1000).toFixed(1);
    layer.replaceChildren(svg("g", { class: "columns" }));
    for (const l of lines) {
      for (const [cls, p] of [["rule", 0], ["half", 500], ["rule", 1000]]) {
        layer.append(svg("line", { class: cls, x1: 16, x2: l.right.toFixed(1), y1: y(l, p), y2: y(l, p) }));
      }
      for (const p of [0, 1000]) {
        const t = svg("text", { class: "axis", x: 11, y: Number(y(l, p)) + 4, "text-anchor": "end" });
        t.textContent = p / 1000;
        layer.append(t);
      }
    }
    const band = { known: "", carried: "" }, jumps = [], spots = [], labels = [];
    let curve = "";
    boxes.forEach((parts, i) => {
      const width = parts.reduce((n, b) => n + b.right - b.left, 0);
      let done = 0;
      parts.forEach((b, k) => {
        const u = done / width, w = (done += b.right - b.left) / width, at = (from, to, x) => from + (to - from) * x;
        const [x0, x1] = (b.rtl ? [b.right, b.left] : [b.left, b.right]).map((x) => x.toFixed(1));
        const p0 = y(b.line, at(begin[i], end[i], u)), p1 = y(b.line, at(begin[i], end[i], w));
        const edge = (name, x) => y(b.line, at(a[name][i], a[name][i + 1], x));
        const known = a.p[i] >= 0 && a.p[i + 1] >= 0;
        band[known ? "known" : "carried"] += `M${x0},${edge("low", u)}L${x1},${edge("low", w)}L${x1},${edge("high", w)}L${x0},${edge("high", u)}Z`;
        if (pivot[i]) jumps.push(svg("path", { class: `jump ${way(pivot[i].change)}${keep(pivot[i]) ? "" : " other"}`, d: `M${x0},${p0}L${x1},${p1}` }));
        else curve += `M${x0},${p0}L${x1},${p1}`;
        // Places that the same rollouts pass through have one dot.
        const fresh = (x) => a.p[x] >= 0 && (x === 0 || a.p[x] !== a.p[x - 1] || a.n[x] !== a.n[x - 1]);
        if (k === 0 && fresh(i)) spots.push([x0, p0]);
        if (k === parts.length - 1) {
          if (i + 1 === boxes.length && fresh(i + 1)) spots.push([x1, p1]);
          const v = pivot[i];
          if (v && keep(v)) labels.push({ v, x: (Number(x0) + Number(x1)) / 2, y: Math.min(Number(p1), Number(y(b.line, v.before))) - 6 });
        }
      });
    });
    for (const k of ["carried", "known"]) layer.append(svg("path", { class: `band ${k}`, d: band[k] }));
    layer.append(svg("path", { class: "curve", d: curve }));
    for (const [cx, cy] of spots) layer.append(svg("circle", { class: "spot", cx, cy, r: 2 }));
    layer.append(...jumps);
    const placed = [];
    for (const l of labels.sort((a, b) => Math.abs(b.v.change) - Math.abs(a.v.change))) {
      if (placed.some((o) => Math.abs(o.x - l.x) < 38 && Math.abs(o.y - l.y) < 13)) continue;
      placed.push(l);
      const t = svg("text", { class: way(l.v.change), x: Math.max(16, l.x).toFixed(1), y: l.y.toFixed(1), "text-anchor": "middle" });
      t.textContent = signed(l.v.change);
      layer.append(t);
    }
    return { lines, boxes };
  };

  // Shades the column of token i: its text and its part of the plot.
  const column = (layer, map, i, cls) => {
    for (const b of map.boxes[i] || []) {
      layer.querySelector(".columns").append(svg("rect", {
        class: "column " + cls, x: b.left - 1, width: b.right - b.left + 2, y: b.line.high - 4, height: b.line.bottom - b.line.high + 7, rx: 4,
      }));
    }
  };

  const branch = (b, v, chosen) => {
    const e = el("button", "pv-branch " + (b.role === 0 ? way(v.change) : "")), name = el("span", "name"), axis = el("span", "pv-axis");
    e.type = "button";
    e.setAttribute("aria-pressed", String(chosen));
    name.append(chip(b.text));
    for (const [cls, left, width] of [["was", v.before], ["range", b.low, b.high - b.low], ["dot", b.p]]) {
      const i = el("i", cls);
      i.style.left = left / 10 + "%";
      if (width !== undefined) i.style.width = width / 10 + "%";
      axis.append(i);
    }
    const numbers = el("span", "numbers"), n = `${b.right} of ${b.n} right`;
    numbers.append(el("b", "", share(b.p)), " ", el("small", "", `${share(b.low)}\u2013${share(b.high)}`), " ", el("small", "", n));
    e.append(name, axis, numbers);
    const role = { taken: "the token of this answer", pair: "the token it is paired with", other: "another token" }[ROLES[b.role]];
    e.title = role;
    e.setAttribute("aria-label", `${spoken(b.text)}, ${role}: p ${share(b.p)}, ${share(b.low)} to ${share(b.high)}, ${n}`);
    return e;
  };

  // Rollouts after one token: a right and a wrong one, marked where they part.
  const side = (b, v, context) => {
    const box = el("div"), head = el("h4");
    head.append("With ", chip(b.text, b.role === 0 ? way(v.change) : ""), b.role === 0 ? "" : " instead");
    box.append(head);
    const [x, y] = b.examples.map((e) => [...e.text]);
    let same = 0;
    if (y) while (same < x.length && same < y.length && x[same] === y[same]) same++;
    const parts = y && (same < x.length || same < y.length);
    for (const e of b.examples) {
      const row = el("div", "pv-example"), p = el("p"), chars = [...e.text];
      row.append(el("span", "mark " + (e.outcome === 0 ? "good" : "bad"), OUTCOMES[e.outcome]), p);
      const say = (cls, text) => { if (text) p.append(visible(el("span", cls), text, false)); };
      say("same", context);
      p.append(chip(b.text, b.role === 0 ? way(v.change) : ""));
      say(parts ? "same" : "", chars.slice(0, parts ? same : chars.length).join(""));
      if (parts) say("part", chars.slice(same).join("") || " ");
      if (e.cut) p.append(el("small", "", ` ... ${e.cut.toLocaleString("en")} more characters`));
      box.append(row);
    }
    if (!b.examples.length) box.append(el("p", "dim", "No rollout of its own."));
    return box;
  };

  return { el, text, plot, column, spark, branch, side, chip, share, odds, signed, raises, spoken, way };
})();
