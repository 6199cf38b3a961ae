// One answer: how it is asked for, what has come of it, and what is said about it.

import { Refused, ask, events, sentence } from "./server.js";
import { Tints } from "./tints.js";
import { count, percent, rate } from "./units.js";

const LOST = "The connection was lost before the answer was complete.";
const NO_PART = "The server sent something that is no part of an answer.";
const KEPT = ["text", "reason", "error", "usage", "account", "tokens", "seconds"];

export class Answer {
  constructor() {
    this.text = "";
    this.tints = new Tints();
    this.reason = null; // as the server says; "stopped" by a person, "left" with the page
    this.error = ""; // a sentence
    this.refused = 0; // status of HTTP, if it was not even begun
    this.usage = null;
    this.account = null; // the field `gardener`
    this.tokens = 0; // that have come, as far as it was told
    this.seconds = 0; // from the first text to the last
    this.controller = new AbortController();
  }

  /** One that was kept, see `kept`. */
  static again(kept) {
    const answer = new Answer();
    for (const name of KEPT) answer[name] = kept[name];
    answer.tints = new Tints(kept.runs);
    return answer;
  }

  /** What is worth keeping of it, as plain values. */
  get kept() {
    const values = Object.fromEntries(KEPT.map((name) => [name, this[name]]));
    return { ...values, reason: this.reason ?? "left", runs: this.tints.runs };
  }

  get done() {
    return this.reason !== null;
  }

  /** Whether it may take the place of another one: there is text, or it ended as it should. */
  get came() {
    return Boolean(this.text) || (this.done && !["error", "stopped"].includes(this.reason));
  }

  stop() {
    this.controller.abort();
  }

  /** Read it to its end; `changed` is called with everything that comes. Never raises. */
  async read(body, changed) {
    const tell = () => {
      try {
        changed();
      } catch (error) {
        reportError(error); // a fault of the page, and none of the answer
      }
    };
    try {
      const response = await ask("/v1/chat/completions", {
        body: {
          ...body,
          stream: true,
          stream_options: { include_usage: true },
          gardener_pieces: true,
        },
        signal: this.controller.signal,
      });
      for await (const { data } of events(response)) {
        if (data === "[DONE]") break;
        this.hear(JSON.parse(data));
        tell();
      }
      if (!this.done) this.fail(LOST);
    } catch (error) {
      if (this.controller.signal.aborted) this.reason = "stopped";
      else if (error instanceof Refused) this.fail(refusal(error), error.status);
      else this.fail(error instanceof SyntaxError ? NO_PART : LOST);
    }
    tell();
  }

  hear(chunk) {
    this.usage = chunk.usage ?? this.usage;
    if (chunk.error) this.fail(chunk.error.message);
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const said = chunk.gardener ?? {};
    if (said.policy) this.account = said;
    if (choice.delta?.content) this.take(choice.delta.content, said);
    this.reason = choice.finish_reason ?? this.reason;
  }

  take(text, { missed, tokens }) {
    const now = performance.now();
    this.began ??= now;
    this.seconds = (now - this.began) / 1000;
    this.text += text;
    this.tokens = tokens ?? this.tokens;
    this.tints.add(text.length, missed === false);
  }

  fail(message, status = 0) {
    this.error = sentence(message);
    this.reason = "error";
    this.refused = status;
  }

  /** What is wrong with it, in words; empty if nothing is. */
  get trouble() {
    if (this.reason !== "error") return "";
    const why = this.error || "The server did not say why.";
    return this.text ? `The answer broke off here. ${why}` : why;
  }

  /** What it took, in a line. */
  get line() {
    const parts = [];
    const tokens = this.usage?.completion_tokens ?? this.tokens;
    if (tokens > 1 && this.seconds > 0) {
      parts.push(`${rate((tokens - 1) / this.seconds)} tokens/s`);
    }
    if (tokens) parts.push(`${count(tokens)} ${tokens === 1 ? "token" : "tokens"}`);
    const prompt = this.usage?.prompt_tokens_details;
    if (prompt?.cached_tokens) {
      const all = count(this.usage.prompt_tokens);
      parts.push(`${count(prompt.cached_tokens)} of ${all} prompt tokens computed before`);
    }
    parts.push(...accounted(this.account, tokens));
    return [...this.ending, ...parts].join(" · ");
  }

  get ending() {
    const parts = [];
    if (this.reason === "stopped") parts.push("stopped by you");
    if (this.reason === "left") parts.push("the page was left before the end");
    if (this.reason === "length") parts.push("ended at the most tokens");
    if (!this.text && this.reason === "stop") parts.push("the model says nothing");
    if (!this.text) parts.push("without an answer, so not sent again with what follows");
    return parts;
  }
}

/** Why the server did not begin. What broke the ring has been said already. */
function refusal({ message, code }) {
  if (code !== "ring_not_ready" || !message.includes("; ")) return message;
  const [, now] = message.split("; now: ");
  return now ? `There is no ring yet. Now: ${now}` : "There is no ring now; it is opened again.";
}

/** What speculation did, from the field `gardener` of an answer. */
function accounted(account, tokens) {
  if (!account) return [];
  const parts = [];
  if (account.drafted) {
    const share = tokens ? ` (${percent(account.accepted / tokens)} of the text)` : "";
    parts.push(`${count(account.accepted)} of ${count(account.drafted)} guesses accepted${share}`);
  }
  if (account.tokens_per_segment) {
    parts.push(`${account.tokens_per_segment.toFixed(2)} tokens a segment`);
  }
  if (account.policy) parts.push(`policy ${account.policy}`);
  if (account.exactness) parts.push(account.exactness.split(":")[0]);
  for (const more of [account.guessing, account.note]) if (more) parts.push(more);
  return parts;
}
