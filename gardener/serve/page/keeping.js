// The conversation is kept until the tab is closed, so that it outlives a reload of the page.

import { Answer } from "./answer.js";
import { Turn } from "./turn.js";

const PLACE = "gardener.conversation";
const MOST = 500_000; // characters: far more than any context, and less than browsers take

/** Keep the newest turns, as many as there is room for. */
export function keep(turns) {
  const kept = [];
  let length = 0;
  for (const turn of [...turns].reverse()) {
    // One that has brought nothing yet gives way to the one whose place it would take.
    const { asked, answer } = turn.instead && !turn.answer.came ? turn.instead : turn;
    const text = JSON.stringify({ asked, ...answer.kept });
    length += text.length;
    if (length > MOST) break;
    kept.unshift(text);
  }
  try {
    sessionStorage.setItem(PLACE, `[${kept}]`);
  } catch {
    forget(); // no room: rather nothing than an older state of it
  }
}

export function forget() {
  sessionStorage.removeItem(PLACE);
}

/** The turns that were kept. */
export function kept() {
  try {
    const found = JSON.parse(sessionStorage.getItem(PLACE)) ?? [];
    return found.map((each) => new Turn(each.asked, Answer.again(each)));
  } catch {
    return [];
  }
}
