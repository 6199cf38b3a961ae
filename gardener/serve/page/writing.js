// The text of a model, block by block. Elements are built from it, never parsed out of it; links,
// pictures and tables stay the text that they are.

import { copier } from "./copying.js";
import { make } from "./dom.js";
import { blocks } from "./markdown.js";

const CODE = /(?<!`)(?<ticks>`+)(?!`)(?<code>.+?)(?<!`)\k<ticks>(?!`)/;
const STRESS = /(?<![\w*])(?<stars>\*{1,3})(?![\s*])(?<stressed>[^*]+?)(?<!\s)\k<stars>(?![\w*])/;
const OUTER = "ul, ol, li, .code, .code > pre";
const INLINE = new RegExp(`${CODE.source}|${STRESS.source}`, "g");

/** Shows a text that grows: only the blocks that changed are made anew. */
export class Writing {
  constructor(place) {
    this.place = place;
    this.shown = [];
  }

  /** `pieces`: gives what a part of the text is made of, see `Tints.pieces`. */
  show(text, pieces = (part) => [part]) {
    const found = blocks(text);
    let same = 0;
    while (same < found.length && equal(found[same], this.shown[same])) same += 1;
    while (this.place.children.length > same) this.place.lastElementChild.remove();
    for (const block of found.slice(same)) this.place.append(element(block, pieces));
    this.shown = found;
    this.mark();
  }

  /** Where it ends, within lists and code as well: there it goes on. */
  mark() {
    for (const before of this.place.querySelectorAll(".end")) before.classList.remove("end");
    let end = this.place.lastElementChild;
    while (end?.matches(OUTER) && end.lastElementChild) end = end.lastElementChild;
    end?.classList.add("end");
  }
}

const equal = (one, other) => other && one.kind === other.kind && one.source === other.source;

function element({ kind, level, language, lines, start, items }, pieces) {
  switch (kind) {
    case "code":
      return code(lines, language, pieces);
    case "table":
      return make("pre", { class: "table", tabindex: "0" }, ...plain(lines, pieces));
    case "rule":
      return make("hr");
    case "heading":
      return make(
        "p",
        { class: `heading level-${level}`, role: "heading", "aria-level": Math.min(level + 3, 6) },
        ...written(lines, pieces),
      );
    case "text":
      return make("p", {}, ...written(lines, pieces));
  }
  const made = items.map((inside) => make("li", {}, ...inside.map((each) => element(each, pieces))));
  return make(kind, kind === "ol" && start !== 1 ? { start } : {}, ...made);
}

function code(lines, language, pieces) {
  const text = lines.map((line) => line.text).join("\n");
  return make(
    "div",
    { class: "code" },
    make(
      "div",
      { class: "code-bar" },
      make("span", { text: language }),
      copier(() => text, "Copy the code"),
    ),
    make("pre", { tabindex: "0" }, make("code", {}, ...plain(lines, pieces))),
  );
}

/** Lines as they are. */
function plain(lines, pieces) {
  return lines.flatMap(({ text, at }, number) => [...(number ? ["\n"] : []), ...pieces(text, at)]);
}

/** Lines with stressed words and bits of code. */
function written(lines, pieces) {
  return lines.flatMap(({ text, at }, number) => [...(number ? ["\n"] : []), ...inline(text, at, pieces)]);
}

function inline(text, start, pieces) {
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    const { ticks, code: bit, stars, stressed } = found.groups;
    parts.push(...pieces(text.slice(at, found.index), start + at));
    const inside = start + found.index + (ticks ?? stars).length;
    if (ticks) parts.push(make("code", {}, ...bitOfCode(bit, inside, pieces)));
    else parts.push(stress(stars.length, inline(stressed, inside, pieces)));
    at = found.index + found[0].length;
  }
  parts.push(...pieces(text.slice(at), start + at));
  return parts;
}

/** One blank on both sides is there to keep ticks apart. */
function bitOfCode(bit, at, pieces) {
  const padded = /^ .*\S.* $/.test(bit);
  return padded ? pieces(bit.slice(1, -1), at + 1) : pieces(bit, at);
}

function stress(stars, inside) {
  if (stars === 1) return make("em", {}, ...inside);
  return make("strong", {}, ...(stars === 2 ? inside : [make("em", {}, ...inside)]));
}
