// The viewer of a pivotal search: which answers are shown, which one and which of its tokens is looked at, and the keys.
(() => {
  const root = document.querySelector(".pv"), view = root && root.querySelector(".pv-viewer");
  if (!view) return;
  const D = pivotDraw, el = D.el, $ = (name) => root.querySelector(".pv-" + name);
  const data = JSON.parse($("data").textContent), ROW = 70;

  const text = (i) => data.texts[i];
  const answers = data.answers.map(([q, right, tokens, probability, p, low, high, n, changed, pivots], i) => {
    const [question, answer, kind] = data.questions[q], changes = {};
    for (let k = 0; k < changed.length; k += 2) changes[changed[k]] = changed[k + 1];
    return {
      i, q, question, answer, kind, right, probability, p, low, high, n, changes, tokens: tokens.map(text),
      pivots: pivots.map(([at, before, after, change, certified, branches]) => ({
        at, before, after, change, certified,
        branches: branches.map(([t, role, p, low, high, n, right, examples]) => ({
          text: text(t), role, p, low, high, n, right, examples: examples.map(([outcome, text, cut]) => ({ outcome, text, cut })),
        })),
      })),
    };
  });
  const lower = data.questions.map((q) => q[0].toLowerCase());
  const list = $("list"), rows = $("rows"), article = $("answer"), body = $("body"), tip = document.getElementById("tip");
  const least = $("least"), floor = least ? Number(least.value) : 0;
  const state = { order: [], at: -1, token: -1, tall: false };
  let shown = null; // the answer on the page: its element of text, layer, spans, map of places
  const size = (v) => Math.abs(v.change);

  // -- filters ----------------------------------------------------------------------------------------------------
  const kinds = [...new Set(answers.map((a) => a.kind))].sort();
  for (const k of kinds) $("kind").append(new Option(k, k));
  $("kind").hidden = kinds.length < 2;

  let wanted = { least: floor, way: 0 };
  const keep = (v) => size(v) >= wanted.least * 1000 - 0.5 && (wanted.way === 0 || v.change * wanted.way > 0);
  const filter = () => {
    const from = least ? Number(least.value) : 0;
    wanted = { least: from > floor + 1e-9 ? from : 0, way: Number($("way").value) };
    const words = $("search").value.trim().toLowerCase(), narrow = wanted.least > 0 || wanted.way !== 0;
    const right = $("right").value, kind = $("kind").value, hit = lower.map((q) => !words || q.includes(words));
    const found = answers.filter((a) => hit[a.q] && (!right || a.right === Number(right)) && (!kind || a.kind === kind));
    const kept = new Map(found.map((a) => [a, a.pivots.filter(keep)]));
    const order = narrow ? found.filter((a) => kept.get(a).length) : found;
    const most = (a) => Math.max(0, ...kept.get(a).map(size));
    const by = {
      change: (a, b) => most(b) - most(a),
      count: (a, b) => kept.get(b).length - kept.get(a).length || most(b) - most(a),
      low: (a, b) => a.p[0] - b.p[0],
      question: (a, b) => (a.question < b.question ? -1 : a.question > b.question ? 1 : 0),
    }[$("sort").value];
    const before = answers[state.order[state.at]];
    state.order = order.sort((a, b) => by(a, b) || a.i - b.i).map((a) => a.i);
    for (const bar of root.querySelectorAll(".pv-bar")) bar.classList.toggle("off", Number(bar.dataset.from) <= from + 1e-6);
    if (least) root.querySelector("output").textContent = from.toFixed(2);
    const all = order.length === answers.length;
    const count = $("count");
    count.textContent = `${order.length.toLocaleString("en")}${all ? "" : ` of ${answers.length.toLocaleString("en")}`} answers. `;
    if (!all || narrow) {
      const reset = el("button", "", "Show all");
      reset.type = "button";
      reset.onclick = () => {
        $("search").value = $("right").value = $("kind").value = "";
        $("way").value = "0";
        if (least) least.value = floor;
        filter();
      };
      count.append(reset);
    }
    const still = before ? state.order.indexOf(before.i) : -1;
    go(still >= 0 ? still : 0, still >= 0 ? state.token : -1);
  };

  // -- list: only the rows in sight are made ------------------------------------------------------------------------
  const row = (at) => {
    const a = answers[state.order[at]], e = el("div", "pv-row"), q = el("div", "q", a.question.replace(/\s+/g, " "));
    const under = el("div", "under"), best = a.pivots.filter(keep).sort((x, y) => size(y) - size(x))[0];
    e.id = "pv-row-" + at;
    e.style.top = at * ROW + "px";
    for (const [k, v] of [["role", "option"], ["aria-selected", at === state.at], ["aria-posinset", at + 1], ["aria-setsize", state.order.length]]) e.setAttribute(k, v);
    const mark = el("span", "best " + (best ? "pv-" + D.way(best.change) : "dim"), best ? D.signed(best.change) : "none");
    mark.append(el("small", "dim", a.right ? "right" : "wrong"));
    under.append(D.spark(a, keep), mark);
    e.append(q, under);
    e.onclick = () => { go(at); body.classList.remove("browsing"); };
    return e;
  };
  const paint = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(state.order.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
    rows.style.height = state.order.length * ROW + "px";
    rows.replaceChildren(...Array.from({ length: Math.max(0, last - first) }, (_, k) => row(first + k)));
    if (state.at >= 0) list.setAttribute("aria-activedescendant", "pv-row-" + state.at);
  };
  let asked = 0;
  list.addEventListener("scroll", () => { if (!asked) asked = requestAnimationFrame(() => { asked = 0; paint(); }); }, { passive: true });

  // -- one answer ---------------------------------------------------------------------------------------------------
  const steps = (label, count, at, move) => {
    const e = el("span", "pv-step");
    for (const [by, sign, name] of [[-1, "\u2039", "Previous"], [1, "\u203a", "Next"]]) {
      const b = el("button", "", sign);
      b.type = "button";
      b.setAttribute("aria-label", `${name} ${label}`);
      b.disabled = at + by < 0 || at + by >= count;
      b.onclick = () => move(at + by);
      e.append(b);
    }
    return e;
  };

  const go = (at, token = -1) => {
    state.at = state.order.length ? Math.max(0, Math.min(at, state.order.length - 1)) : -1;
    const y = state.at * ROW;
    if (state.at >= 0 && (y < list.scrollTop || y + ROW > list.scrollTop + list.clientHeight)) list.scrollTop = y - list.clientHeight / 3;
    paint();
    shown = null;
    article.classList.remove("long");
    article.replaceChildren();
    if (state.at < 0) { article.append(el("p", "absent", "No answer matches.")); return; }
    const a = answers[state.order[state.at]], top = el("div", "pv-top"), browse = el("button", "pv-browse", "All answers");
    browse.type = "button";
    browse.onclick = () => { body.classList.toggle("browsing"); paint(); };
    top.append(steps("answer", state.order.length, state.at, go), el("span", "", `${(state.at + 1).toLocaleString("en")} of ${state.order.length.toLocaleString("en")}`),
      browse, el("span", "mark " + (a.right ? "good" : "bad"), a.right ? "right" : "wrong"));
    const score = el("div", "pv-score"), layer = document.createElementNS("http://www.w3.org/2000/svg", "svg"), words = el("p", "pv-text");
    layer.setAttribute("role", "img");
    layer.setAttribute("aria-label", `p(success) along the answer: ${D.share(a.p[0])} at the begin, ${a.right} at the end, ${a.pivots.length} pivotal tokens`);
    words.dir = "auto";
    const length = a.tokens.reduce((n, t) => n + t.length, 0);
    score.style.setProperty("--size", length < 60 ? "21px" : length < 240 ? "19px" : "17px");
    score.append(layer, words);
    const wants = el("p", "pv-wanted", a.kind === "code" ? "Checked by tests." : "Reference: ");
    if (a.kind !== "code") wants.append(el("b", "", a.answer.length > 300 ? a.answer.slice(0, 300) + " ..." : a.answer));
    article.append(top, el("p", "pv-asked", a.question), wants, score, el("section", "pv-fork"));
    shown = { a, score, layer, words, spans: D.text(words, a, a.kind, keep), map: null };
    wire(shown);
    layout();
    const largest = a.pivots.filter(keep).sort((x, y) => size(y) - size(x))[0] || a.pivots[0];
    look(a.pivots.some((v) => v.at === token) ? token : largest ? largest.at : -1);
  };

  const layout = () => {
    if (!shown) return;
    shown.map = D.plot(shown.score, shown.layer, shown.a, shown.spans, keep);
    state.tall = shown.score.offsetHeight > innerHeight * 0.5;
    if (!state.tall) article.classList.remove("long");
    shade();
  };
  const shade = (hover = -1) => {
    shown.layer.querySelector(".columns").replaceChildren();
    if (state.token >= 0) D.column(shown.layer, shown.map, state.token, "");
    if (hover >= 0 && hover !== state.token) D.column(shown.layer, shown.map, hover, "hover");
  };

  // A person looks at a token. Below a long answer what would have been sticks to the screen from then on.
  const pick = (token, compare) => {
    look(token, compare);
    if (!state.tall) return;
    article.classList.add("long");
    const hidden = shown.spans[token].getBoundingClientRect().bottom + article.querySelector(".pv-fork").offsetHeight + 12 - innerHeight;
    if (hidden > 0) scrollBy({ top: hidden, behavior: "instant" });
  };

  // Looks at a pivotal token: what p would be with another one.
  const look = (token, compare = -1) => {
    const { a, spans } = shown, fork = article.querySelector(".pv-fork"), v = a.pivots.find((v) => v.at === token);
    state.token = v ? token : -1;
    for (const w of a.pivots) {
      spans[w.at].setAttribute("aria-pressed", String(w === v));
      spans[w.at].tabIndex = w === v ? 0 : -1;
    }
    shade();
    fork.classList.toggle("none", !v);
    if (!v) { fork.replaceChildren("No token of this answer moves p(success) by the gap or more."); return; }
    const nth = a.pivots.indexOf(v), head = el("div", "pv-head"), says = el("span", "says");
    says.append(D.chip(a.tokens[v.at], D.way(v.change)), ` ${D.raises(v)} `, el("b", "pv-" + D.way(v.change), D.signed(v.change)));
    const more = `drawn with probability ${D.odds(a.probability[v.at])}${v.certified ? ", certified" : ""}; pivotal token ${nth + 1} of ${a.pivots.length}`;
    head.append(says, el("span", "more", more), steps("pivotal token", a.pivots.length, nth, (k) => pick(a.pivots[k].at)));
    const other = compare >= 0 ? compare : Math.max(v.branches.findIndex((b) => b.role === 1), v.branches.length > 1 ? 1 : 0);
    const order = v.branches.map((b, k) => k).sort((x, y) => v.branches[y].p - v.branches[x].p);
    const ladder = el("div", "pv-branches"), scale = el("div", "pv-scale"), ends = el("span");
    ends.append(el("span", "", "0"), el("span", "", "p(success)"), el("span", "", "1"));
    scale.append(ends);
    scale.setAttribute("aria-hidden", "true");
    for (const k of order) {
      const e = D.branch(v.branches[k], v, k === other || k === 0);
      e.onclick = () => { pick(token, k); article.querySelectorAll(".pv-branch")[order.indexOf(k)].focus(); };
      ladder.append(e);
    }
    const sides = el("div", "pv-sides"), before = a.tokens.slice(0, v.at).join(""), tail = before.slice(-36);
    const context = (tail.length < before.length ? "\u2026" : "") + tail.replace(/^\S*\s/, (s) => (tail.length < before.length ? "" : s));
    for (const k of other > 0 ? [0, other] : [0]) sides.append(D.side(v.branches[k], v, context));
    fork.replaceChildren(head, ladder, scale, sides);
    fork.scrollTop = 0;
    $("said").textContent = `${D.spoken(a.tokens[v.at])}: ${D.raises(v)}. Token ${nth + 1} of ${a.pivots.length}.`;
  };

  // -- pointer ------------------------------------------------------------------------------------------------------
  const wire = (s) => {
    let dwell = 0, last = -1;
    const under = (e) => {
      const b = s.score.getBoundingClientRect(), x = e.clientX - b.left, y = e.clientY - b.top;
      return s.map.boxes.findIndex((parts) => parts.some((p) => x >= p.left && x <= p.right && y >= p.line.high - 6 && y <= p.line.bottom + 4));
    };
    const leave = () => { clearTimeout(dwell); last = -1; tip.hidden = true; if (shown === s) shade(); };
    s.score.addEventListener("pointermove", (e) => {
      if (e.pointerType === "touch") return;
      const i = under(e);
      if (i === last) return;
      leave();
      if ((last = i) < 0) return;
      shade(i);
      // A pivotal token is looked at after a moment, so that one can pass over others on the way down.
      const near = !state.tall || article.classList.contains("long");
      if (near && s.spans[i].hasAttribute("role")) { if (i !== state.token) dwell = setTimeout(() => look(i), 140); } else say(s, i);
    });
    s.score.addEventListener("pointerleave", leave);
    s.score.addEventListener("click", (e) => {
      const i = under(e);
      if (i < 0) return;
      clearTimeout(dwell);
      if (s.spans[i].hasAttribute("role")) { s.spans[i].focus({ preventScroll: true }); pick(i); } else { shade(i); say(s, i); }
    });
    s.words.addEventListener("focusin", (e) => {
      const i = Number(e.target.dataset.i);
      if (e.target.hasAttribute("role") && i !== state.token) look(i);
    });
    s.words.addEventListener("keydown", (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); e.target.click(); } });
  };
  const say = (s, i) => {
    const a = s.a, x = i + 1, p = a.p[x], parts = s.map.boxes[i];
    if (!parts.length) return;
    const range = `${D.share(a.low[x])} to ${D.share(a.high[x])}`;
    const v = a.pivots.find((w) => w.at === i), lines = [];
    if (v) {
      lines.push(`${D.raises(v)[0].toUpperCase()}${D.raises(v).slice(1)} (${D.signed(v.change)})`);
      for (const o of v.branches.slice(1)) lines.push(`instead \u201c${D.spoken(o.text)}\u201d: ${D.share(o.p)}, ${D.share(o.low)} to ${D.share(o.high)}`);
    } else {
      lines.push((p < 0 ? `After it p(success) lies in ${range}` : `p(success) ${D.share(p)} after it, ${range}`) + (a.n[x] && p >= 0 ? `, ${a.n[x]} rollouts` : ""));
      if (a.changes[i]) lines.push(`${D.signed(a.changes[i])}, not sure enough to be listed`);
    }
    tip.textContent = [...lines, `drawn with probability ${D.odds(a.probability[i])}`].join("\n");
    tip.hidden = false;
    const b = s.score.getBoundingClientRect(), w = tip.offsetWidth, room = document.documentElement.clientWidth;
    const left = b.left + (parts[0].left + parts[0].right) / 2 - w / 2, top = b.top + parts[0].line.bottom + 8;
    tip.style.left = Math.max(8, Math.min(left, room - w - 8)) + "px";
    tip.style.top = Math.min(top, innerHeight - tip.offsetHeight - 8) + "px";
  };

  // -- keys ---------------------------------------------------------------------------------------------------------
  const help = $("help");
  const pivot = (by) => {
    if (!shown || !shown.a.pivots.length) return;
    const all = shown.a.pivots, k = all.findIndex((v) => v.at === state.token), next = all[Math.max(0, Math.min(all.length - 1, k + by))];
    shown.spans[next.at].focus({ preventScroll: true });
    if (shown.spans[next.at].getBoundingClientRect().top < 60) shown.spans[next.at].scrollIntoView({ block: "center", behavior: "instant" });
    pick(next.at);
  };
  const answer = (by) => {
    go(state.at + by);
    if (article.getBoundingClientRect().top < 0) article.scrollIntoView();
  };
  // On a page with other parts the keys belong to the viewer while it has the focus or fills the screen.
  const ours = () => {
    const b = body.getBoundingClientRect(), at = document.activeElement;
    return root.contains(at) || ((!at || at === document.body) && b.top < innerHeight * 0.6 && b.bottom > innerHeight * 0.3);
  };
  document.addEventListener("keydown", (e) => {
    if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || help.open || !(e.target instanceof Element) || !ours()) return;
    if (e.target.matches("input, select, textarea")) {
      if (e.key === "Escape") { e.target.blur(); list.focus({ preventScroll: true }); }
      return;
    }
    const inList = e.target === list;
    const act = {
      j: () => answer(1), k: () => answer(-1), ArrowRight: () => pivot(1), ArrowLeft: () => pivot(-1),
      "/": () => $("search").focus(), "?": () => help.showModal(), Escape: () => { tip.hidden = true; },
      ...(inList && { ArrowDown: () => go(state.at + 1), ArrowUp: () => go(state.at - 1), Home: () => go(0), End: () => go(state.order.length - 1),
        Enter: () => pivot(0) }),
    }[e.key];
    if (act) { if (e.key !== "Escape") e.preventDefault(); act(); }
  });
  $("ask").onclick = () => help.showModal();
  help.addEventListener("click", (e) => { if (e.target === help) help.close(); });
  for (const name of ["way", "right", "kind", "sort"]) $(name).addEventListener("change", filter);
  for (const e of [$("search"), least]) if (e) e.addEventListener("input", filter);
  let width = 0;
  new ResizeObserver(() => { if (article.clientWidth !== width) { width = article.clientWidth; layout(); } }).observe(article);
  addEventListener("resize", paint);
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  filter();
})();
