// One answer: how it is asked for, what has come of it, and what is said about it.

import { Refused, ask, events, sentence } from "./server.js";
import { count, percent, rate } from "./units.js";

export class Answer {
  constructor() {
    this.text = "";
    this.reason = null; // as the server says; "stopped" if a person did
    this.error = ""; // a sentence
    this.refused = 0; // status of HTTP, if it was not even begun
    this.usage = null;
    this.account = null; // the field `gardener`
    this.first = this.last = 0; // milliseconds
    this.asked = 0;
    this.controller = new AbortController();
  }

  get done() {
    return this.reason !== null;
  }

  stop() {
    this.controller.abort();
  }

  /** Read it to its end; `changed` is called with everything that comes. Never raises. */
  async read(body, changed) {
    this.asked = performance.now();
    try {
      const response = await ask("/v1/chat/completions", {
        body: { ...body, stream: true, stream_options: { include_usage: true } },
        signal: this.controller.signal,
      });
      for await (const { data } of events(response)) {
        if (data === "[DONE]") break;
        this.hear(JSON.parse(data));
        changed();
      }
      if (!this.done) this.fail("The connection was lost before the answer was complete.");
    } catch (error) {
      if (this.controller.signal.aborted) this.reason = "stopped";
      else if (error instanceof Refused) this.fail(error.message, error.status);
      else this.fail("The connection was lost before the answer was complete.");
    }
    changed();
  }

  hear(chunk) {
    this.usage = chunk.usage ?? this.usage;
    this.account = chunk.gardener ?? this.account;
    if (chunk.error) this.fail(chunk.error.message);
    const choice = chunk.choices?.[0];
    if (!choice) return;
    if (choice.delta?.content) {
      this.last = performance.now();
      this.first ||= this.last;
      this.text += choice.delta.content;
    }
    this.reason = choice.finish_reason ?? this.reason;
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
    const tokens = this.usage?.completion_tokens;
    const seconds = (this.last - this.first) / 1000;
    if (tokens > 1 && seconds > 0) parts.push(`${rate((tokens - 1) / seconds)} tokens/s`);
    if (tokens) parts.push(`${count(tokens)} ${tokens === 1 ? "token" : "tokens"}`);
    const cached = this.usage?.prompt_tokens_details?.cached_tokens;
    if (cached) parts.push(`${count(cached)} of ${count(this.usage.prompt_tokens)} prompt tokens kept`);
    parts.push(...accounted(this.account, tokens));
    return [...this.ending, ...parts].join(" · ");
  }

  get ending() {
    if (this.reason === "stopped") return ["stopped by you"];
    if (this.reason === "length") return ["ended at the most tokens"];
    return [];
  }
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
