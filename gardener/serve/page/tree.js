// The token tree: the likeliest branches from the root to the right. A first child goes on in the
// line of its parent, every other one gets a line of its own.

import { shape } from "./dom.js";
import { percent } from "./units.js";

const LINES = 7;
const HEIGHT = 22; // of a line
const JOINT = 26; // between a token and the next one
const PAD = 5; // beside a token, within its box
const ENDING = 40; // for a probability at the end of a branch
const LONGEST = 18; // characters of a token that are shown

const pen = document.createElement("canvas").getContext("2d");

export class TreeView {
  constructor(place) {
    this.place = place;
    this.known = new Set();
  }

  draw(nodes) {
    this.place.replaceChildren(...(nodes.length ? [this.picture(nodes)] : []));
    this.place.classList.toggle("empty", !nodes.length);
  }

  picture(nodes) {
    const style = getComputedStyle(this.place);
    pen.font = `${style.fontSize} ${style.fontFamily}`;
    const width = this.place.clientWidth;
    const root = select(nodes, width);
    const lines = layout(root);
    const picture = shape("svg", { width, height: LINES * HEIGHT });
    const edges = shape("g", { class: "edges" });
    const words = shape("g");
    picture.append(edges, words);
    const known = new Set();
    this.add(root, edges, words, known);
    this.known = known;
    picture.setAttribute("data-lines", lines);
    return picture;
  }

  add(branch, edges, words, known) {
    const { node, x, line, size, children } = branch;
    const y = line * HEIGHT + HEIGHT / 2;
    known.add(node.id);
    const kind = branch.root ? "root" : node.state;
    const fresh = this.known.has(node.id) ? "" : " fresh";
    const group = shape("g", { class: `node ${kind}${fresh}` });
    group.append(
      shape("rect", { x, y: y - 9, width: size, height: 18, rx: 5 }),
      shape("text", { x: x + PAD, y, "dominant-baseline": "central", text: branch.text }),
    );
    if (!children.length && !branch.root) {
      const text = percent(node.probability);
      group.append(shape("text", { class: "chance", x: x + size + 6, y, "dominant-baseline": "central", text }));
    }
    words.append(group);
    for (const child of children) {
      const from = x + size + 2;
      const to = child.x - 2;
      const end = child.line * HEIGHT + HEIGHT / 2;
      const middle = (from + to) / 2;
      edges.append(
        shape("path", {
          d: `M${from} ${y}C${middle} ${y} ${middle} ${end} ${to} ${end}`,
          "stroke-width": (1 + 2 * child.node.probability).toFixed(2),
        }),
      );
      this.add(child, edges, words, known);
    }
  }
}

/** The likeliest nodes that fit, with as many branches as there are lines. Parents come first. */
function select(nodes, width) {
  const root = { ...made(nodes[0], 1), root: true };
  const placed = new Map([[nodes[0].id, root]]);
  let left = LINES - 1;
  const rest = nodes.slice(1).sort((a, b) => b.probability - a.probability || a.id - b.id);
  for (const node of rest) {
    const parent = placed.get(node.parent);
    if (!parent) continue; // it did not fit
    const branch = made(node, parent.x + parent.size + JOINT);
    const another = parent.children.length > 0;
    if (branch.x + branch.size + ENDING > width || (another && !left)) continue;
    left -= another;
    parent.children.push(branch);
    placed.set(node.id, branch);
  }
  return root;
}

function made(node, x) {
  const text = node.text.length > LONGEST ? `${node.text.slice(0, LONGEST - 1)}…` : node.text;
  const shown = text.trim() || "␣";
  return { node, text: shown, x, size: Math.ceil(pen.measureText(shown).width) + 2 * PAD, children: [], line: 0 };
}

/** Gives every branch its line; returns how many there are. */
function layout(root) {
  let next = 0;
  const place = (branch) => {
    branch.line = next;
    branch.children.forEach((child, at) => {
      if (at) next += 1;
      place(child);
    });
  };
  place(root);
  return next + 1;
}
