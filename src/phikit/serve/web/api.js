// The server's API (Ollama's routes). One function a request; errors carry the server's own words.
let key = sessionStorage.getItem("phikit-key") || "";
export const setKey = (value) => { key = value; sessionStorage.setItem("phikit-key", value); };

export class ApiError extends Error {
  constructor(message, status) { super(message); this.status = status; }
}

const call = async (path, body, signal) => {
  const headers = key ? { authorization: "Bearer " + key } : {};
  if (body) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new ApiError("The server cannot be reached. Is `phikit serve` still running?", 0);
  }
  if (answer.ok) return answer;
  let words = answer.statusText;
  try {
    const found = (await answer.json()).error;
    words = (found && found.message) || found || words;
  } catch { /* no JSON: the status text stands */ }
  throw new ApiError(words || "error " + answer.status, answer.status);
};

export const models = async () => (await (await call("/api/tags")).json()).models;
export const show = async (model) => (await call("/api/show", { model })).json();
export const pivots = async (model) => (await call("/pivots?model=" + encodeURIComponent(model))).json();

// Calls `each` with every object of the stream; ends when the stream does, or when `signal` is aborted.
export const chat = async (request, each, signal) => {
  const answer = await call("/api/chat", { ...request, stream: true }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    rest += value || "";
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.trim()) continue;
      const row = JSON.parse(line);
      if (row.error) throw new ApiError(row.error, 500);
      each(row);
    }
    if (done) return;
  }
};
