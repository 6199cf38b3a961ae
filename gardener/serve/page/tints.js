// Which parts of an answer had been guessed.

import { make } from "./dom.js";

export class Tints {
  /** `runs`: [end, guessed] one after another, `end` in characters of the text. */
  constructor(runs = []) {
    this.runs = runs;
  }

  /** So many characters more have come. */
  add(length, guessed) {
    const before = this.runs.at(-1) ?? [0, null];
    const end = before[0] + length;
    if (before[1] === guessed) before[0] = end;
    else this.runs.push([end, guessed]);
  }

  /** What a part of the text is made of, which stands at `at`: texts, and elements of guesses. */
  pieces(part, at) {
    const found = [];
    let done = 0;
    for (let here = this.first(at); done < part.length && here < this.runs.length; here += 1) {
      const [end, guessed] = this.runs[here];
      const text = part.slice(done, end - at);
      found.push(guessed && text.trim() ? make("span", { class: "guessed", text }) : text);
      done += text.length;
    }
    if (done < part.length) found.push(part.slice(done)); // nobody has said
    return found;
  }

  /** The number of the run that a place lies in. */
  first(at) {
    let [low, high] = [0, this.runs.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.runs[middle][0] > at) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
