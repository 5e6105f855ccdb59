// Markdown as models write it, to elements. No HTML is read: markup in a text is shown as the text it is.
import { el } from "./dom.js";
import { tex } from "./tex.js";
import { tint } from "./tint.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/, ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const HEAD = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/, RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/, ROW = /^\s*\|?.*\|.*$/, LINE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

export const markdown = (text) => el("div", { class: "md" }, ...blocks(text.replace(/\r\n?/g, "\n").split("\n")));

const blocks = (lines, deep = 0) => {
  const out = [];
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    let m;
    if (!line.trim()) { i++; continue; }
    if ((m = FENCE.exec(line))) {
      const body = [], fence = m[1];
      const indent = /^ */.exec(line)[0].length;
      for (i++; i < lines.length && !(lines[i].trim().startsWith(fence) && !lines[i].trim().slice(fence.length).replaceAll(fence[0], "").trim()); i++)
        body.push(lines[i].startsWith(" ".repeat(indent)) ? lines[i].slice(indent) : lines[i]);
      i++;
      out.push(code(body.join("\n"), m[2]));
    } else if ((m = opensMath(line))) {
      const [open, close] = m, body = [];
      let rest = line.trim().slice(open.length), at;
      for (;;) {
        if ((at = rest.indexOf(close)) >= 0 || i + 1 >= lines.length) break;
        body.push(rest);
        rest = lines[++i];
      }
      i++;
      body.push(at >= 0 ? rest.slice(0, at) : rest);
      out.push(el("p", {}, tex(body.join("\n"), true), ...(at >= 0 ? inline(rest.slice(at + close.length)) : [])));
    } else if ((m = HEAD.exec(line))) { out.push(el("h" + Math.min(m[1].length, 4), {}, ...inline(m[2]))); i++; }
    else if (RULE.test(line)) { out.push(el("hr")); i++; }
    else if (/^\s*>/.test(line) && deep < 8) {
      const inner = [];
      for (; i < lines.length && /^\s*>/.test(lines[i]); i++) inner.push(lines[i].replace(/^\s*> ?/, ""));
      out.push(el("blockquote", {}, ...blocks(inner, deep + 1)));
    } else if (ITEM.test(line) && deep < 8) { const [node, next] = list(lines, i, deep); out.push(node); i = next; }
    else if (ROW.test(line) && i + 1 < lines.length && lines[i + 1].includes("-") && LINE.test(lines[i + 1])) {
      const rows = [cells(line)];
      for (i += 2; i < lines.length && lines[i].trim() && lines[i].includes("|"); i++) rows.push(cells(lines[i]));
      const row = (kind) => (r) => el("tr", {}, ...r.map((c) => el(kind, {}, ...inline(c))));
      out.push(el("table", {}, el("thead", {}, row("th")(rows[0])), el("tbody", {}, ...rows.slice(1).map(row("td")))));
    } else {
      const words = [line];
      for (i++; i < lines.length && lines[i].trim() && !begins(lines[i]); i++) words.push(lines[i]);
      out.push(el("p", {}, ...inline(words.join("\n"))));
    }
  }
  return out;
};

const begins = (line) => FENCE.test(line) || HEAD.test(line) || /^\s*>/.test(line) || ITEM.test(line) || opensMath(line);
const opensMath = (line) => { const t = line.trim(); return t.startsWith("$$") ? ["$$", "$$"] : t.startsWith("\\[") ? ["\\[", "\\]"] : null; };
const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((c) => c.trim().replaceAll("\\|", "|"));

const list = (lines, from, deep) => {
  const [, space, mark] = ITEM.exec(lines[from]), indent = space.length, ordered = /\d/.test(mark), items = [];
  let i = from;
  while (i < lines.length) {
    const m = ITEM.exec(lines[i]);
    if (!m || m[1].length < indent || m[1].length > indent + 3 || /\d/.test(m[2]) !== ordered) break;
    const inner = [m[3]], inside = m[1].length + m[2].length + 1;
    for (i++; i < lines.length; i++) {
      const next = lines[i], n = ITEM.exec(next), lead = /^\s*/.exec(next)[0].length;
      if (!next.trim()) { if (i + 1 < lines.length && /^\s{2,}\S/.test(lines[i + 1])) { inner.push(""); continue; } break; }
      if (n && lead <= indent + 1) break;
      if (!n && lead < 2 && (begins(next) || inner.at(-1) === "")) break;
      inner.push(next.slice(Math.min(lead, inside)));
    }
    items.push(el("li", {}, ...loose(blocks(inner, deep + 1))));
    while (i < lines.length && !lines[i].trim() && ITEM.test(lines[i + 1] || "")) i++;
  }
  const node = el(ordered ? "ol" : "ul", {}, ...items);
  if (ordered && parseInt(mark, 10) !== 1) node.start = parseInt(mark, 10);
  return [node, i];
};
// A first paragraph needs no space around it.
const loose = (nodes) => nodes.flatMap((n, k) => (k === 0 && n.tagName === "P" ? [...n.childNodes] : [n]));

const INLINE = /(`+)([\s\S]*?[^`])\1(?!`)|\\\(([\s\S]+?)\\\)|\\\[([\s\S]+?)\\\]|\$\$([\s\S]+?)\$\$|\$(?!\s)((?:\\.|[^$\\\n])+?)(?<!\s)\$(?!\d)|\\([\\`*_{}\[\]()#+.!$|>~-])|\*\*(?=\S)([\s\S]*?\S)\*\*|__(?=\S)([\s\S]*?\S)__(?!\w)|~~(?=\S)([\s\S]*?\S)~~|\*(?=\S)([^*]*?\S)\*|(?<!\w)_(?=\S)([^_]*?\S)_(?!\w)|!?\[([^\]\n]*)\]\(\s*<?([^\s)>]*)>?(?:\s+"[^"]*")?\s*\)|(https?:\/\/[^\s<>()]*[^\s<>().,;:!?"'])/g;

const inline = (text, deep = 0) => {
  const out = [];
  let at = 0;
  if (deep > 6) return [text];
  for (const m of text.matchAll(INLINE)) {
    if (m.index < at) continue;
    if (m.index > at) out.push(...broken(text.slice(at, m.index)));
    at = m.index + m[0].length;
    const again = (name, inner) => el(name, {}, ...inline(inner, deep + 1));
    if (m[2] !== undefined) out.push(el("code", {}, m[2].replace(/^ (.*) $/, "$1")));
    else if (m[3] !== undefined) out.push(tex(m[3], false));
    else if (m[4] !== undefined) out.push(tex(m[4], true));
    else if (m[5] !== undefined) out.push(tex(m[5], true));
    else if (m[6] !== undefined) out.push(tex(m[6], false));
    else if (m[7] !== undefined) out.push(m[7]);
    else if (m[8] ?? m[9]) out.push(again("strong", m[8] ?? m[9]));
    else if (m[10]) out.push(again("del", m[10]));
    else if (m[11] ?? m[12]) out.push(again("em", m[11] ?? m[12]));
    else if (m[14] !== undefined) out.push(link(m[13] || m[14], m[14]));
    else if (m[15]) out.push(link(m[15], m[15]));
  }
  if (at < text.length) out.push(...broken(text.slice(at)));
  return out;
};
const broken = (text) => text.split(/ {2,}\n|\n/).flatMap((part, i) => (i ? [el("br"), part] : [part])).filter((x) => x !== "");
// Pictures and other schemes are not followed: nothing outside this server is ever loaded.
const link = (text, url) => (/^https?:\/\//i.test(url) ? el("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, text) : `${text} (${url})`);

const code = (text, language) => {
  const copy = el("button", { type: "button", onclick: async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1200);
  } }, "Copy");
  return el("div", { class: "block" }, el("div", { class: "bar" }, el("span", {}, language || "text"), copy), el("pre", {}, el("code", {}, ...tint(text, language))));
};
