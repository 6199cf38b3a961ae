// How this page asks its server. The browser's EventSource sends no key, so streams are read here.

const KEY = "gardener.key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

/** What a server said was wrong. */
export class Refused extends Error {
  constructor(message, { status = 0, code = null } = {}) {
    super(message);
    Object.assign(this, { status, code });
  }
}

/** A response that is well. Raises Refused, with a sentence. */
export async function ask(path, { body, signal } = {}) {
  const headers = key.get() ? { authorization: `Bearer ${key.get()}` } : {};
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      body: body && JSON.stringify(body),
      headers,
      signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer: it may have ended, or the way to it is broken.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const said = await response.json().catch(() => ({}));
  const message = said?.error?.message ?? `The server says ${response.status}.`;
  return new Refused(sentence(message), { status: response.status, code: said?.error?.code });
}

/** With a capital letter and a full stop. */
export function sentence(text) {
  const trimmed = text.trim();
  const ended = /[.!?…]$/.test(trimmed) ? trimmed : `${trimmed}.`;
  return ended.charAt(0).toUpperCase() + ended.slice(1);
}

/** The server-sent events of a response: {event, data}. Comments are left out. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const found = event(block);
        if (found) yield found;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function event(block) {
  const found = { event: "message", data: [] };
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    const [field, value] = at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)];
    const text = value.startsWith(" ") ? value.slice(1) : value;
    if (field === "data") found.data.push(text);
    else if (field === "event") found.event = text;
  }
  return found.data.length ? { event: found.event, data: found.data.join("\n") } : null;
}
