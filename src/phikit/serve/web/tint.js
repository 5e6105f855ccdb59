// Colours for code: comments, strings, numbers and the words that most languages share.
import { el } from "./dom.js";

const WORDS = new Set(("and as assert async await bool break case catch char class const continue def del do double elif else enum except export extends "
  + "false final finally float fn for from func function global if impl import in include int interface is lambda let long match module mut new nil none not "
  + "null of or package pass private protected public raise return self static string struct super switch this throw throws trait true try type typeof union use using "
  + "val var void while with yield SELECT FROM WHERE JOIN GROUP ORDER BY INSERT UPDATE DELETE None True False").split(" "));
const HASH = new Set(["python", "py", "bash", "sh", "shell", "ruby", "rb", "yaml", "yml", "toml", "r", "perl", "make", "dockerfile", ""]);
const MOST = 60000; // characters; longer code stays plain

export const tint = (text, language) => {
  const name = (language || "").toLowerCase();
  if (text.length > MOST || ["text", "txt", "markdown", "md"].includes(name)) return [text];
  const comment = HASH.has(name) ? "#[^\\n]*" : name === "sql" || name === "lua" || name === "haskell" ? "--[^\\n]*" : "//[^\\n]*|/\\*[\\s\\S]*?\\*/";
  const rule = new RegExp(`(${comment})|("""[\\s\\S]*?"""|'''[\\s\\S]*?'''|"(?:\\\\.|[^"\\\\\\n])*"|'(?:\\\\.|[^'\\\\\\n])*'|\`(?:\\\\.|[^\`\\\\])*\`)|(\\b\\d[\\w.]*\\b)|([A-Za-z_]\\w*)`, "g");
  const out = [];
  let at = 0;
  for (const m of text.matchAll(rule)) {
    const kind = m[1] ? "c" : m[2] ? "s" : m[3] ? "n" : WORDS.has(m[4]) ? "k" : "";
    if (!kind) continue;
    out.push(text.slice(at, m.index), el("span", { class: kind }, m[0]));
    at = m.index + m[0].length;
  }
  out.push(text.slice(at));
  return out;
};
