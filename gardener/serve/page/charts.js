// Tokens per second over time, and acceptance by depth.

import { make, say, shape } from "./dom.js";
import { count, percent, rate } from "./units.js";

const BARS = 60; // of half a second
const WIDTH = 240;
const HEIGHT = 48;
const DEEPEST = 6;

/** An area under tokens per second, with a line for what plain decoding should do. */
export function spark(place, rates, plain) {
  place.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  const shown = rates.slice(-BARS);
  const top = Math.max(...shown, plain, 1) * 1.15;
  const y = (value) => (HEIGHT - (value / top) * HEIGHT).toFixed(1);
  const step = WIDTH / (BARS - 1);
  const start = WIDTH - (shown.length - 1) * step;
  const points = shown.map((value, at) => `${(start + at * step).toFixed(1)} ${y(value)}`);
  const parts = [];
  if (points.length > 1) {
    const line = `M${points.join("L")}`;
    parts.push(
      shape("path", { class: "area", d: `${line}L${WIDTH} ${HEIGHT}L${start.toFixed(1)} ${HEIGHT}Z` }),
      shape("path", { class: "line", d: line }),
    );
  }
  if (plain) parts.push(shape("path", { class: "plain", d: `M0 ${y(plain)}H${WIDTH}` }));
  place.replaceChildren(...parts);
  const said = shown.length ? `, now ${rate(shown.at(-1))}` : "";
  const against = plain ? `; plain decoding should do ${rate(plain)}` : "";
  place.setAttribute("aria-label", `Tokens per second over the last half minute${said}${against}`);
}

/** A line for each depth, the deepest ones together. `pairs`: guesses sent and accepted. */
export function depths(body, pairs) {
  const shown = pairs.slice(0, DEEPEST - 1).map((pair, at) => [`${at + 1}`, ...pair]);
  if (pairs.length >= DEEPEST) {
    const rest = pairs.slice(DEEPEST - 1);
    const sum = (which) => rest.reduce((total, pair) => total + pair[which], 0);
    shown.push([pairs.length > DEEPEST ? `${DEEPEST}+` : `${DEEPEST}`, sum(0), sum(1)]);
  }
  while (body.rows.length < DEEPEST) body.append(row());
  [...body.rows].forEach((line, at) => {
    const [depth, sent, accepted] = shown[at] ?? [`${at + 1}`, 0, 0];
    const share = sent ? accepted / sent : 0;
    line.classList.toggle("none", !sent);
    say(line.cells[0], depth);
    line.cells[1].querySelector(".fill").style.transform = `scaleX(${share.toFixed(3)})`;
    say(line.cells[1].querySelector(".share"), sent ? percent(share) : "");
    say(line.cells[2], sent ? `${count(accepted)} / ${count(sent)}` : "–");
    line.title = sent ? `${count(accepted)} of ${count(sent)} guesses sent at depth ${depth} were accepted` : "";
  });
}

function row() {
  return make(
    "tr",
    {},
    make("th", { scope: "row" }),
    make("td", {}, make("span", { class: "meter", "aria-hidden": "true" }, make("span", { class: "fill" })), make("span", { class: "share" })),
    make("td", { class: "n" }),
  );
}
