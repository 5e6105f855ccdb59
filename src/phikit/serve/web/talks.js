// Conversations, kept in this browser: one entry of localStorage each, the newest first.
const PREFIX = "phikit-talk-";
const read = (key) => { try { return JSON.parse(localStorage.getItem(key)); } catch { return null; } };

export const all = () => Object.keys(localStorage).filter((k) => k.startsWith(PREFIX)).map(read).filter((t) => t && t.id && Array.isArray(t.messages))
  .sort((a, b) => b.time - a.time);

export const fresh = () => ({ id: crypto.randomUUID ? crypto.randomUUID() : String(Date.now()), time: Date.now(), name: "", messages: [] });

// False where the browser has no room: the talk goes on, but will not be there after a reload.
export const keep = (talk) => {
  talk.time = Date.now();
  const first = talk.messages.find((m) => m.role === "user");
  talk.name = first ? first.content.trim().slice(0, 80) : "";
  try { localStorage.setItem(PREFIX + talk.id, JSON.stringify(talk)); return true; } catch { /* full */ }
  // The probabilities of tokens are what is large.
  const lean = { ...talk, messages: talk.messages.map(({ tokens, ...m }) => m) };
  try { localStorage.setItem(PREFIX + talk.id, JSON.stringify(lean)); return true; } catch { return false; }
};
export const drop = (id) => localStorage.removeItem(PREFIX + id);

export const setting = (name, value) => {
  if (value === undefined) return localStorage.getItem("phikit-" + name) || "";
  localStorage.setItem("phikit-" + name, value);
  return value;
};
