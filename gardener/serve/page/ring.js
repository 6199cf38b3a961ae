// The ring as it works: everything beside the chat.

import { depths, spark } from "./charts.js";
import { $, describe, make, say } from "./dom.js";
import { Lanes } from "./lanes.js";
import { sentence } from "./server.js";
import { TreeView } from "./tree.js";
import { bytes, count, duration, percent, rate } from "./units.js";

const TAIL = 260; // characters of the newest text
const MOST_ROWS = 8; // of requests
const RUNNING = / for [\d.]+ s$/; // seconds that a state counts
const GOES_ON = "Once the ring stands again, answers go on where they were, and this page by itself.";
const GIVE = "Give the key under Settings.";
const OFTEN = 350; // milliseconds between two trees: words that change faster cannot be read

export class RingView {
  constructor() {
    this.lanes = new Lanes($("lanes"));
    this.tree = new TreeView($("tree"));
    this.status = null;
    this.written = 0; // when text and tree were drawn
    this.later = 0;
    this.down = ""; // why there is no ring
    this.key = false; // the server wants one first
  }

  /** `told`: {status} or {why, key}, see feed.js. */
  show({ status, why, key = false }) {
    this.down = why ?? "";
    this.key = key;
    if (status) this.status = status;
    this.state();
    if (status) this.all(status);
    else this.still();
  }

  resized() {
    this.lanes.resized();
    if (this.status && !this.down) this.text(this.status);
  }

  state() {
    const { status, down } = this;
    const trouble = down || (status.trouble ? status.state : "");
    const idle = status && !status.running;
    $("state").dataset.tone = trouble ? "trouble" : idle ? "ready" : "busy";
    const none = this.key ? "no key" : "no ring";
    const broken = trouble && !trouble.startsWith("no verdict");
    const sentence = broken ? "the ring is broken" : idle && !trouble ? "ready" : status?.state;
    say($("sentence"), down ? none : sentence);
    // What is read aloud: neither counts nor seconds that run.
    say($("ring-told"), trouble ? "" : idle ? "The ring is ready." : "The ring is at work.");
    this.alarm(trouble.replace(RUNNING, ""));
  }

  /** An alert is read aloud with every change, so there is one only where its words are others. */
  alarm(trouble) {
    const place = $("trouble");
    place.hidden = !trouble;
    if (!trouble) {
      place.dataset.said = "";
      return;
    }
    const [first, ...rest] = sentences(trouble);
    const parts = [first, rest.join(" "), this.key ? GIVE : GOES_ON];
    if (place.dataset.said === parts.join()) return;
    place.dataset.said = parts.join();
    place.replaceChildren(
      make("strong", { text: parts[0] }),
      ...(parts[1] ? [make("p", { text: parts[1] })] : []),
      make("p", { class: "what", text: parts[2] }),
    );
  }

  /** There is no ring: nothing moves. */
  still() {
    document.body.classList.add("down");
    clearTimeout(this.later);
    this.lanes.clear();
    this.tree.draw([]);
    $("now").classList.add("past");
    say($("rate"), "–");
    say($("unit"), "tokens/s");
    say($("tab-rate"), "");
    say($("pace"), "");
    for (const place of ["tail", "cuttings", "grown"]) $(place).replaceChildren();
    $("pruned").hidden = true;
  }

  all(status) {
    document.body.classList.remove("down");
    document.body.classList.toggle("idle", !status.running);
    document.body.classList.toggle("shared", status.others.length > 0);
    this.lanes.show(status);
    this.headline(status);
    this.pace(status);
    this.textSoon();
    depths($("depths").tBodies[0], status.figures.depths);
    say($("unsent"), unsent(status.figures));
    this.links(status);
    this.requests(status);
  }

  headline({ figures, running }) {
    const writes = running && figures.counts.emitted > 0;
    const past = !running && figures.mean > 0;
    const shown = writes ? figures.rate : figures.mean;
    $("now").classList.toggle("past", past);
    say($("rate"), shown ? rate(shown) : "–");
    say($("unit"), past ? "tokens/s, last answer" : "tokens/s");
    say($("tab-rate"), writes ? `${rate(shown)}/s` : "");
    spark($("spark"), figures.rates, figures.plain);
    // Those that share a ring get less each; plain is what one alone should get.
    const gain = figures.plain && figures.alone ? figures.mean / figures.plain : 0;
    const counts = figures.counts;
    describe($("summary"), [
      ["mean", figures.mean ? rate(figures.mean) : "–", "Tokens a second since the first one"],
      [
        "plain",
        figures.plain && counts.emitted ? `≈ ${rate(figures.plain)}` : "–",
        "What a request alone should get without guesses, as the passes of this ring tell",
      ],
      [
        "gain",
        gain ? `${gain.toFixed(2)} ×` : "–",
        figures.alone ? "Mean against plain" : "Not for a request that shared the ring with others",
      ],
      [
        "guessed",
        counts.emitted ? percent(counts.accepted / counts.emitted) : "–",
        "Share of the text that had been guessed",
      ],
      [
        "a segment",
        counts.segments ? (counts.emitted / counts.segments).toFixed(2) : "–",
        "Tokens written for each segment sent",
      ],
      [
        "first after",
        figures.first_token === null ? "–" : duration(figures.first_token),
        "From the question to the first token",
      ],
    ]);
  }

  pace({ flight, segments, running }) {
    const parts = [];
    if (running) parts.push(`${segments.length} under way`);
    if (flight) parts.push(`${duration(flight)} a round`);
    if (running && this.lanes.slowed > 1) parts.push(`shown ${Math.round(this.lanes.slowed)} × slower`);
    say($("pace"), parts.join(" · "));
  }

  /** Text and tree belong together, so they are drawn together. */
  textSoon() {
    clearTimeout(this.later);
    const left = this.written + OFTEN - performance.now();
    if (left > 0) this.later = setTimeout(() => this.textSoon(), left);
    else this.text(this.status);
  }

  text({ text, tree, figures, pruned, running }) {
    this.written = performance.now();
    let left = TAIL;
    const pieces = [];
    for (const [words, guessed] of [...text].reverse()) {
      if (left <= 0) break;
      pieces.unshift(make("span", guessed ? { class: "guessed", text: words.slice(-left) } : { text: words.slice(-left) }));
      left -= words.length;
    }
    $("tail").replaceChildren(make("span", {}, ...pieces));
    this.tree.draw(running ? tree : []);
    const dead = Math.max(figures.counts.drafted - figures.counts.accepted - Math.max(figures.nodes - 1, 0), 0);
    say(
      $("grown"),
      figures.counts.drafted
        ? `${running ? `${count(figures.nodes)} nodes · ` : ""}${count(figures.counts.drafted)} grown · ${count(dead)} pruned`
        : "",
    );
    $("pruned").hidden = !figures.counts.drafted;
    if (pruned.length) $("cuttings").replaceChildren(...pruned.map((words) => make("s", { text: words })));
  }

  links({ stages, round_trips: [down, up], memory, exact, flight }) {
    const trip = (seconds) => (seconds === null ? "–" : duration(seconds));
    const share = memory.room ? ` (${percent(memory.used / memory.room)})` : "";
    const room = memory.room ? ` of ${count(memory.room)}` : "";
    describe($("links"), [
      ["to stage 1 and back", trip(down), "Round trip of the first link"],
      ...hops(stages),
      ["last stage and back", trip(up), "Round trip of the last link"],
      ["once round the ring", flight ? duration(flight) : "–", "From sending a segment to its verdict, lately"],
      [
        "keys and values",
        memory.slot ? bytes(memory.used * memory.slot) + share : "–",
        `Of ${count(memory.used)}${room} tokens: for requests that run, or kept for those to come`,
      ],
      ["text", exact ? exact : "–", "Whether it is that of the model alone"],
    ]);
  }

  requests({ request, state, trouble, policy, figures, others, running, stages }) {
    const rows = [];
    if (policy) {
      const done = !running && state.startsWith("done");
      const doing = trouble ? "waits for the ring" : done ? "done" : state;
      rows.push([request, doing, policy, figures.counts.emitted, running ? figures.rate : figures.mean, true]);
    }
    for (const each of others) {
      rows.push([each.number, each.state, each.policy, each.tokens, each.rate, false]);
    }
    const body = $("requests").tBodies[0];
    const cells = ([number, doing, how, tokens, speed, large]) => [
      number ? `${number}` : "–",
      doing + (large && others.length ? ", shown above" : ""),
      how,
      tokens ? count(tokens) : "–",
      speed ? rate(speed) : "–",
    ];
    const left = rows.splice(MOST_ROWS).length;
    const shown = rows.length ? rows.map(cells) : [["–", stages.length ? "nobody has asked yet" : "–", "", "", ""]];
    while (body.rows.length > shown.length) body.deleteRow(-1);
    shown.forEach((values, at) => {
      const row = body.rows[at] ?? body.insertRow();
      values.forEach((value, column) => {
        const cell = row.cells[column] ?? row.insertCell();
        if (column > 2) cell.className = "n";
        say(cell, value);
      });
    });
    const waiting = others.filter((each) => each.state === "waiting").length;
    const parts = [`${running} running`];
    if (waiting) parts.push(`${waiting} waiting`);
    if (left) parts.push(`${left} not shown`);
    say($("queue"), running ? parts.join(", ") : "");
  }
}

/** Links from stage to stage, as these have measured them. */
function hops(stages) {
  const known = stages.slice(0, -1).filter((stage) => stage.to_next !== null);
  if (!known.length) return [];
  const each = known.map(({ stage, to_next }) => `${stage}→${stage + 1} ${duration(to_next)}`);
  const speeds = known
    .filter((stage) => stage.bandwidth)
    .map(({ stage, bandwidth }) => `${stage}→${stage + 1} ${bytes(bandwidth)}/s`);
  const help = ["One way from stage to stage, as these have measured it", ...speeds].join("; ");
  return [["hops", each.join(" · "), help]];
}

/** Guesses may be accepted before they are sent, so those of all depths are fewer than all. */
function unsent({ counts, depths: pairs }) {
  const sent = pairs.reduce((sum, [, accepted]) => sum + accepted, 0);
  const more = counts.accepted - sent;
  return more > 0 ? `${count(more)} more unsent` : "of those sent";
}

/** What a server says in one line, as the sentences that it is. */
function sentences(text) {
  return text.split(/;\s+/).filter((each) => each.trim()).map(sentence);
}
