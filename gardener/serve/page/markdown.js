// The blocks of a text in Markdown, as models write it: headings, lists in lists, code, tables and
// paragraphs. What is no such thing stays text. Every line knows where it stands in the whole.

const FENCE = /^\s*(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const ITEM = /^(\s*)([-*+]|\d{1,3}[.)])(\s+)(.*)$/;
const HEADING = /^(#{1,6}\s+)(.*)$/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
const ROW = /^\s*\|/;
const DEEPEST = 8; // lists in lists; what lies deeper is text

/**
 * All blocks: {kind, source}, and what the kind has: `lines` {text, at} of heading, text, table and
 * code, `level` of a heading, `language` of code, `items` (blocks each) and `start` of ul and ol.
 */
export function blocks(text) {
  let at = 0;
  const lines = text.split("\n").map((each) => {
    const line = { text: each, at };
    at += each.length + 1;
    return line;
  });
  return read(lines, 0);
}

function read(lines, depth) {
  const found = [];
  let here = 0;
  while (here < lines.length) {
    if (blank(lines[here])) {
      here += 1;
      continue;
    }
    const [block, next] = begin(lines, here, depth);
    const source = lines.slice(here, next).map((line) => line.text);
    found.push({ ...block, source: source.join("\n") });
    here = next;
  }
  return found;
}

/** The block that begins at a line that is not blank, and the line after it. */
function begin(lines, here, depth) {
  const line = lines[here];
  const heading = HEADING.exec(line.text);
  if (FENCE.test(line.text)) return code(lines, here);
  if (RULE.test(line.text)) return [{ kind: "rule" }, here + 1];
  if (heading) {
    const level = heading[1].trim().length;
    return [{ kind: "heading", level, lines: [after(line, heading[1].length)] }, here + 1];
  }
  if (ITEM.test(line.text) && depth < DEEPEST) return list(lines, here, depth);
  const kind = ROW.test(line.text) ? "table" : "text";
  let next = here + 1;
  while (next < lines.length && goesOn(lines[next], kind, depth)) next += 1;
  const taken = lines.slice(here, next);
  return [{ kind, lines: depth ? taken.map((each) => indented(each, Infinity)) : taken }, next];
}

function goesOn(line, kind, depth) {
  const { text } = line;
  if (blank(line) || ROW.test(text) !== (kind === "table")) return false;
  const begins = FENCE.test(text) || RULE.test(text) || HEADING.test(text);
  return !begins && !(ITEM.test(text) && depth < DEEPEST);
}

function code(lines, here) {
  const [, fence, language] = FENCE.exec(lines[here].text);
  const indent = margin(lines[here]);
  let end = here + 1;
  while (end < lines.length && !closes(lines[end], fence)) end += 1;
  const inside = lines.slice(here + 1, end).map((line) => indented(line, indent));
  return [{ kind: "code", language, lines: inside }, Math.min(end + 1, lines.length)];
}

/** A fence is closed by one of its own kind that is as long, at least. */
function closes({ text }, fence) {
  const found = text.trim();
  return found.length >= fence.length && [...found].every((each) => each === fence[0]);
}

function list(lines, first, depth) {
  const [, , marker] = ITEM.exec(lines[first].text);
  const kind = kindOf(marker);
  const items = [];
  let here = first;
  let end = first;
  while (here < lines.length) {
    const found = RULE.test(lines[here].text) ? null : ITEM.exec(lines[here].text);
    if (!found || kindOf(found[2]) !== kind) break;
    const [inside, next] = item(lines, here, found);
    items.push(read(inside, depth + 1));
    here = end = next;
    while (here < lines.length && blank(lines[here])) here += 1;
  }
  return [{ kind, start: parseInt(marker, 10) || 1, items }, end];
}

const kindOf = (marker) => (/\d/.test(marker) ? "ol" : "ul");

/** The lines of an item, without its margin, and the line after it: all that stands further right
 * than its marker is its own, and so is all code that begins in it. */
function item(lines, first, [, before, marker, space]) {
  const width = before.length + marker.length + (space.length > 4 ? 1 : space.length);
  const inside = [after(lines[first], width)];
  let fence = FENCE.exec(inside[0].text)?.[1];
  let next = first + 1;
  for (let here = next; here < lines.length; here += 1) {
    const line = lines[here];
    if (!fence && blank(line)) continue; // its own if something after it is
    if (!fence && margin(line) <= before.length) break;
    while (next <= here) inside.push(indented(lines[next++], width));
    if (!fence) fence = FENCE.exec(line.text)?.[1];
    else if (closes(line, fence)) fence = undefined;
  }
  return [inside, next];
}

const blank = ({ text }) => !text.trim();

const margin = ({ text }) => text.length - text.trimStart().length;

const after = ({ text, at }, count) => ({ text: text.slice(count), at: at + count });

/** Without so much of its margin as it has. */
const indented = (line, most) => after(line, Math.min(margin(line), most));
