// The text of a model as paragraphs, lists and code. Elements are built from it, never parsed out
// of it; links and pictures stay the text that they are.

import { make } from "./dom.js";

const FENCE = /^\s*(```|~~~)\s*([\w+#.-]*)/;
const ITEM = /^(\s*)([-*+]|\d{1,3}[.)])\s+(.*)$/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const INLINE = /(`+)([^`]+)\1|\*\*([^*]+)\*\*|__([^_]+)__/g;

/** Shows a text that grows: only the blocks that changed are made anew. */
export class Writing {
  constructor(place) {
    this.place = place;
    this.shown = [];
  }

  show(text) {
    const blocks = split(text);
    let same = 0;
    while (same < blocks.length && equal(blocks[same], this.shown[same])) same += 1;
    while (this.place.children.length > same) this.place.lastElementChild.remove();
    for (const block of blocks.slice(same)) this.place.append(element(block));
    this.shown = blocks;
  }
}

const equal = (one, other) =>
  other && one.kind === other.kind && one.lines.join("\n") === other.lines.join("\n");

/** Blocks of lines: {kind: text | code | ul | ol | heading, lines}. */
export function split(text) {
  const blocks = [];
  let block = null;
  let fence = null;
  const begin = (kind, more = {}) => {
    block = { kind, lines: [], ...more };
    blocks.push(block);
    return block;
  };
  for (const line of text.split("\n")) {
    const opened = FENCE.exec(line);
    if (fence) {
      if (opened?.[1] === fence && !opened[2]) [fence, block] = [null, null];
      else block.lines.push(line);
      continue;
    }
    const item = ITEM.exec(line);
    const heading = HEADING.exec(line);
    if (opened) {
      fence = opened[1];
      begin("code", { language: opened[2] });
    } else if (!line.trim()) {
      if (block?.kind !== "ul" && block?.kind !== "ol") block = null;
    } else if (heading) {
      begin("heading").lines.push(heading[2]);
      block = null;
    } else if (item) {
      const kind = /\d/.test(item[2]) ? "ol" : "ul";
      if (block?.kind !== kind) begin(kind, { start: parseInt(item[2], 10) || 1 });
      block.lines.push(item[3]);
    } else if (block && block.kind !== "text" && /^\s/.test(line)) {
      block.lines[block.lines.length - 1] += `\n${line.trim()}`;
    } else {
      if (block?.kind !== "text") begin("text");
      block.lines.push(line);
    }
  }
  return blocks;
}

function element({ kind, lines, start }) {
  if (kind === "code") {
    return make("pre", { tabindex: "0" }, make("code", { text: lines.join("\n") }));
  }
  if (kind === "ul" || kind === "ol") {
    const list = make(kind, kind === "ol" && start !== 1 ? { start } : {});
    list.append(...lines.map((line) => make("li", {}, ...inline(line))));
    return list;
  }
  return make("p", kind === "heading" ? { class: "heading" } : {}, ...inline(lines.join("\n")));
}

/** Text with bold words and bits of code. */
function inline(text) {
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    if (found.index > at) parts.push(text.slice(at, found.index));
    const [all, , code, bold, other] = found;
    parts.push(code ? make("code", { text: code }) : make("strong", { text: bold ?? other }));
    at = found.index + all.length;
  }
  parts.push(text.slice(at));
  return parts;
}
