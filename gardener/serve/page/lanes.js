// A lane for each stage, with the segments that move through it.
//
// A state comes five times a second at most. Between two of them a segment goes on at the pace of
// the ring. Where it would pass in less than SHORTEST, nobody could follow: then those that were
// seen are shown slower, and as many of them as there is room for. `slowed` says how much.

import { make, say } from "./dom.js";
import { duration, percent } from "./units.js";

const SHORTEST = 1.6; // seconds once round the ring
const GAP = 0.2; // of a lane, between two that are shown slower
const BLOCK = 8; // pixels that a row takes, at most
const MOST_ROWS = 14; // shown of a segment, in proportion where there are more
const STILL = matchMedia("(prefers-reduced-motion: reduce)");
const KINDS = [
  ["prompt", "prompt"],
  ["root", "root"],
  ["guess", "guesses"],
  ["dead", "dead"],
];

export class Lanes {
  constructor(place) {
    this.place = place;
    this.lanes = [];
    this.chips = new Map();
    this.flight = 0;
    this.frame = 0;
    this.before = 0;
    new ResizeObserver(() => this.resized()).observe(place);
  }

  get slowed() {
    return this.flight && !STILL.matches ? Math.max(SHORTEST / this.flight, 1) : 1;
  }

  show({ stages, segments, flight, request, others }) {
    this.flight = flight;
    this.large = request;
    this.shared = others.length > 0;
    this.build(stages.length);
    stages.forEach((stage, at) => this.describe(stage, this.lanes[at]));
    const now = performance.now();
    const seen = new Set();
    for (const segment of segments) {
      const name = `${segment.request} ${segment.seq}`;
      seen.add(name);
      this.place_segment(name, segment, now);
    }
    for (const [name, chip] of this.chips) chip.gone ||= !seen.has(name);
    if (STILL.matches) this.jump();
    else this.run();
  }

  clear() {
    for (const name of [...this.chips.keys()]) this.remove(name);
    for (const lane of this.lanes) {
      say(lane.figures, "");
    }
  }

  resized() {
    for (const lane of this.lanes) lane.width = lane.track.clientWidth;
  }

  // --- lanes ---------------------------------------------------------------------------------

  build(count) {
    if (this.lanes.length === count) return;
    for (const name of [...this.chips.keys()]) this.remove(name);
    this.lanes = Array.from({ length: count }, () => lane());
    this.place.replaceChildren(...this.lanes.map((each) => each.whole));
    this.resized();
  }

  describe({ stage, layers, name, compute, wait, busy, said }, lane) {
    say(lane.name, `${stage}`);
    say(lane.layers, layers ? `layers ${layers.replace("-", "–")}` : "");
    say(lane.host, name);
    lane.host.title = name;
    say(
      lane.figures,
      compute === null
        ? said
        : `${duration(compute)} compute · ${duration(wait)} wait · ${percent(busy)} busy`,
    );
    lane.gauge.style.transform = `scaleX(${busy.toFixed(3)})`;
  }

  // --- segments ------------------------------------------------------------------------------

  place_segment(name, segment, now) {
    const at = segment.stage - 1 + segment.progress;
    const known = this.chips.get(name);
    if (known) {
      Object.assign(known, { told: at, when: now });
      this.fill(known, segment);
      return;
    }
    const chip = { element: make("div", { class: "chip" }), at, told: at, when: now, lane: null, filled: "" };
    this.fill(chip, segment);
    if (this.slowed > 1 && this.crowded(at, chip.element.childElementCount * BLOCK)) return;
    this.chips.set(name, chip);
  }

  /** Whether one that is so wide, in pixels, would touch another one there. */
  crowded(at, width) {
    const lane = this.lanes[0]?.width || 1;
    return [...this.chips.values()].some((chip) => {
      const room = Math.max(width, chip.width) + BLOCK;
      return Math.abs(chip.at - at) < Math.max(GAP, room / Math.max(lane - room, room));
    });
  }

  /** A block for each row; before them, where there are several requests, the number of theirs. */
  fill(chip, segment) {
    const total = KINDS.reduce((sum, [, field]) => sum + segment[field], 0);
    const scale = Math.min(1, MOST_ROWS / Math.max(total, 1));
    const rows = KINDS.flatMap(([kind, field]) => {
      const many = segment[field] ? Math.max(1, Math.round(segment[field] * scale)) : 0;
      return Array(many).fill(kind);
    });
    const whose = this.shared ? `${segment.request}` : "";
    chip.element.classList.toggle("other", segment.request !== this.large);
    if (`${whose} ${rows}` === chip.filled) return;
    chip.filled = `${whose} ${rows}`;
    chip.element.replaceChildren(
      ...(whose ? [make("b", { class: "whose", text: whose })] : []),
      ...rows.map((kind) => make("i", { class: `row ${kind}` })),
    );
    chip.width = 0;
  }

  put(chip) {
    const last = this.lanes.length - 1;
    const number = Math.min(Math.floor(chip.at), last);
    const lane = this.lanes[number];
    if (chip.lane !== number) {
      lane.track.append(chip.element);
      chip.lane = number;
    }
    chip.width ||= chip.element.offsetWidth;
    const x = (lane.width - chip.width) * Math.min(chip.at - number, 1);
    chip.element.style.transform = `translate(${x.toFixed(1)}px, -50%)`;
  }

  remove(name) {
    this.chips.get(name)?.element.remove();
    this.chips.delete(name);
  }

  // --- motion --------------------------------------------------------------------------------

  run() {
    if (this.frame || !this.chips.size) return;
    this.before = performance.now();
    const step = (now) => {
      this.frame = 0;
      // The first picture may be dated before it was asked for.
      this.move(now, Math.min(Math.max((now - this.before) / 1000, 0), 0.1));
      this.before = now;
      if (this.chips.size) this.frame = requestAnimationFrame(step);
    };
    this.frame = requestAnimationFrame(step);
  }

  move(now, passed) {
    const end = this.lanes.length;
    const pace = end / Math.max(this.flight, SHORTEST); // lanes a second
    for (const [name, chip] of this.chips) {
      if (this.slowed > 1 || chip.gone) {
        // At the end it waits for its verdict: a late one is what all wait for.
        chip.at = Math.min(chip.at + pace * passed * (this.slowed > 1 ? 1 : 3), end);
      } else {
        // Towards where it should be by now, without a jump, and never back.
        const due = Math.min(chip.told + (pace * (now - chip.when)) / 1000, end - 0.001);
        chip.at += Math.max(due - chip.at, 0) * Math.min(8 * passed, 1);
      }
      if (chip.at >= end && chip.gone) this.remove(name);
      else this.put(chip);
    }
  }

  /** For those who want nothing to move: where each one was reported. */
  jump() {
    for (const [name, chip] of this.chips) {
      if (chip.gone) this.remove(name);
      else {
        chip.at = chip.told;
        this.put(chip);
      }
    }
  }
}

function lane() {
  const part = (name) => make("span", { class: name });
  const made = {
    name: part("number"),
    layers: part("layers"),
    host: part("host"),
    figures: part("figures"),
    gauge: part("fill"),
    track: make("div", { class: "track", "aria-hidden": "true" }),
    width: 0,
  };
  made.whole = make(
    "li",
    { class: "lane" },
    make("p", { class: "head" }, made.name, made.layers, made.host, made.figures),
    made.track,
    make("div", { class: "gauge", "aria-hidden": "true" }, made.gauge),
  );
  return made;
}
