// The tokens view: each token coloured by how likely it was, with what else the model might have said.
import { $, el } from "./dom.js";

const ODDS = [0.9, 0.6, 0.3, 0];
const level = (p) => ODDS.findIndex((x) => p >= x);
const percent = (p) => (p >= 0.9995 ? "100%" : p >= 0.1 ? (100 * p).toFixed(0) + "%" : p >= 0.001 ? (100 * p).toFixed(1) + "%" : "<0.1%");
export const visible = (text) => (text === "" ? "(part of a character)" : text.replace(/ /g, "\u00b7").replace(/\n/g, "\u21b5").replace(/\t/g, "\u21e5"));

// [{t: text, p: probability, top: [[text, p], ...]}] of a row's logprobs.
export const read = (logprobs) => logprobs.map((x) => ({ t: x.token, p: Math.exp(x.logprob), top: (x.top_logprobs || []).map((y) => [y.token, Math.exp(y.logprob)]) }));

// The tokens as spans. `marks` are pivotal tokens by their place: {change, before, after, likely}.
export const stream = (tokens, marks = {}) => {
  const box = el("div", { class: "stream" });
  tokens.forEach((token, i) => {
    const mark = marks[i];
    const span = el("span", { class: "t p" + (level(token.p) + 1) + (mark ? (mark.change > 0 ? " up" : " down") : ""), tabIndex: i ? -1 : 0 }, token.t);
    span.addEventListener("click", () => open(span, token, mark));
    span.addEventListener("focus", () => open(span, token, mark));
    box.append(span);
  });
  box.addEventListener("keydown", (e) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (!step) return;
    const all = [...box.children], to = all[all.indexOf(document.activeElement) + step];
    if (to) { e.preventDefault(); all.forEach((s) => { s.tabIndex = -1; }); to.tabIndex = 0; to.focus(); }
  });
  return box;
};

export const legend = (tokens, marked) => {
  const mean = tokens.reduce((sum, t) => sum + Math.log(Math.max(t.p, 1e-12)), 0) / tokens.length;
  const words = ["90% and more", "60%", "30%", "less"];
  return el("div", { class: "legend" }, ...words.map((w, i) => el("span", { class: "t p" + (i + 1) }, w)),
    el("span", {}, `${tokens.length.toLocaleString("en")} tokens, perplexity ${Math.exp(-mean).toFixed(2)}`),
    marked ? el("span", {}, "underlined: pivotal tokens of this run's search") : null);
};

let at = null;
const open = (span, token, mark) => {
  const card = $("card");
  if (at) at.classList.remove("at");
  at = span;
  span.classList.add("at");
  const rows = token.top.some(([t]) => t === token.t) ? token.top : [[token.t, token.p], ...token.top];
  const shown = rows.reduce((sum, [, p]) => sum + p, 0);
  const table = el("table", {}, ...rows.map(([t, p]) => {
    const meter = el("meter", { min: 0, max: 1, value: p });
    meter.setAttribute("aria-label", percent(p));
    return el("tr", { class: t === token.t ? "own" : "" }, el("td", {}, visible(t)), el("td", {}, meter), el("td", {}, percent(p)));
  }));
  card.replaceChildren(table, ...(shown < 0.995 ? [el("p", {}, `All others together: ${percent(1 - shown)}`)] : []),
    ...(mark ? [el("p", {}, `Pivotal: p(success) went from ${percent(mark.before)} to ${percent(mark.after)} here, in the search of this run.`)] : []));
  card.hidden = false;
  const r = span.getClientRects()[0] || span.getBoundingClientRect(), w = card.offsetWidth, h = card.offsetHeight;
  card.style.left = Math.max(12, Math.min(r.left, innerWidth - w - 12)) + "px";
  card.style.top = (r.bottom + h + 12 < innerHeight ? r.bottom + 6 : Math.max(8, r.top - h - 6)) + "px";
};
export const close = () => {
  $("card").hidden = true;
  if (at) at.classList.remove("at");
  at = null;
};

// Places of the pivotal tokens of a searched answer that begins as this one does, by place; {} where there is none.
export const marksOf = (rows, question, tokens) => {
  const marks = {};
  for (const row of rows) {
    if (row.question.trim() !== question.trim()) continue;
    let same = 0;
    while (same < tokens.length && same < row.tokens.length && tokens[same].t === row.tokens[same]) same++;
    for (const v of row.pivots) if (v.at < same) marks[v.at] = v;
  }
  return marks;
};
