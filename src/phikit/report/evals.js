// Browses and searches the answers of an evaluation. Everything a model wrote goes in as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [task, outcome, search, found, list, more] = ["task", "outcome", "search", "found", "list", "more"].map((id) => document.getElementById(id));
  const STEP = 20;
  let rows = [], shown = 0;

  const el = (name, text, cls) => {
    const e = document.createElement(name);
    if (text !== undefined) e.textContent = text;
    if (cls) e.className = cls;
    return e;
  };
  const option = (select, value, text) => { const o = el("option", text); o.value = value; select.append(o); };
  // Text with the searched words marked.
  const marked = (name, text, cls) => {
    const e = el(name, undefined, cls), q = search.value.trim().toLowerCase();
    if (!q) { e.textContent = text; return e; }
    const low = text.toLowerCase();
    let at = 0;
    for (let i = low.indexOf(q); i >= 0; i = low.indexOf(q, at)) {
      e.append(text.slice(at, i), el("mark", text.slice(i, i + q.length)));
      at = i + q.length;
    }
    e.append(text.slice(at));
    return e;
  };

  const choices = (row, logprobs) => {
    const table = el("table"), best = Math.max(...logprobs);
    row.choices.forEach((c, i) => {
      const tr = el("tr", undefined, i === row.gold ? "gold" : "");
      tr.append(el("td", (logprobs[i] === best ? "\u25b8 " : "\u2007 ") + c), el("td", logprobs[i].toFixed(3), "num"), el("td", i === row.gold ? "right" : ""));
      table.append(tr);
    });
    return table;
  };
  const answer = (row, part, title) => {
    const box = el("div");
    const name = el("h4", title + " "), state = el("span", undefined, "outcome");
    state.append(el("i", undefined, "o-" + part.outcome), data.words[part.outcome] || part.outcome);
    name.append(state);
    box.append(name, part.logprobs.length ? choices(row, part.logprobs) : marked("pre", part.answer || "(empty)", "answer"));
    if (part.said && !part.logprobs.length) box.append(el("p", "read as: " + part.said, "dim"));
    if (part.detail) box.append(el("p", part.detail, "dim"));
    return box;
  };
  // A long text that begins scrolled to its end: there the question is.
  const tail = (text) => { const box = el("div", undefined, "tail"); box.append(marked("pre", text)); return box; };
  const item = (row) => {
    const box = el("article", undefined, "item"), top = el("div", undefined, "top");
    top.append(el("b", row.id));
    if (row.group) top.append(el("span", row.group.replaceAll("_", " ")));
    if (row.run > 0) top.append(el("span", "run " + (row.run + 1)));
    top.append(el("span", row.prompt_tokens + " prompt tokens"), el("span", "sha " + row.sha.slice(0, 8)));
    if (row.clean === false) top.append(el("span", "in the training text"));
    box.append(top);
    if (row.system) box.append(el("h4", "System"), tail(row.system));
    box.append(tail(row.prompt));
    if (row.other) {
      const two = el("div", undefined, "two");
      two.append(answer(row, row, data.names[0]), answer(row, row.other, data.names[1]));
      box.append(two);
    } else box.append(answer(row, row, "Answer"));
    if (row.reference) box.append(el("h4", "Reference"), tail(row.reference));
    return box;
  };

  const grow = () => {
    for (const row of rows.slice(shown, shown + STEP)) list.append(item(row));
    shown = Math.min(rows.length, shown + STEP);
    more.hidden = shown === rows.length;
  };
  const filter = () => {
    const q = search.value.trim().toLowerCase();
    rows = data.tasks[task.value].filter((r) => (!outcome.value || r.outcome === outcome.value || (r.other && r.other.outcome === outcome.value))
      && (!q || [r.id, r.prompt, r.answer, r.reference, r.other ? r.other.answer : "", ...r.choices].some((t) => t.toLowerCase().includes(q))));
    list.replaceChildren();
    shown = 0;
    found.textContent = rows.length + " of " + data.tasks[task.value].length;
    grow();
  };
  const outcomes = () => {
    const kept = outcome.value, there = new Set(data.tasks[task.value].flatMap((r) => [r.outcome, ...(r.other ? [r.other.outcome] : [])]));
    outcome.replaceChildren();
    option(outcome, "", "every outcome");
    for (const o of Object.keys(data.words)) if (there.has(o)) option(outcome, o, data.words[o]);
    outcome.value = there.has(kept) ? kept : "";
    filter();
  };
  for (const name of Object.keys(data.tasks)) option(task, name, name + " (" + data.tasks[name].length + ")");
  if (!task.options.length) return;
  task.addEventListener("change", outcomes);
  outcome.addEventListener("change", filter);
  search.addEventListener("input", filter);
  more.addEventListener("click", grow);
  outcomes();
})();
