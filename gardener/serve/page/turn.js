// One turn of the conversation, as it is seen: what was asked, and the answer as it grows.

import { copier } from "./copying.js";
import { make, say } from "./dom.js";
import { Writing } from "./writing.js";

export class Turn {
  constructor(asked, answer) {
    Object.assign(this, { asked, answer });
    this.instead = null; // the turn that this one takes the place of, until something has come
    this.said = make("div", { class: "said" });
    this.note = make("p", { class: "broken", hidden: true });
    this.line = make("p", { class: "line" });
    this.doing = make("div", { class: "doing" });
    this.reply = make(
      "article",
      { class: "reply", "aria-busy": "true" },
      make("h3", { class: "hidden", text: "The model" }),
      this.said,
      this.note,
      make("div", { class: "under" }, this.line, this.doing),
    );
    this.whole = make(
      "div",
      { class: "turn" },
      make(
        "article",
        { class: "asked" },
        make("h3", { class: "hidden", text: "You" }),
        make("p", { text: asked }),
      ),
      this.reply,
    );
    this.writing = new Writing(this.said);
  }

  /** As the answer stands now. */
  show() {
    const { answer } = this;
    this.reply.classList.toggle("writing", !answer.done);
    this.reply.setAttribute("aria-busy", String(!answer.done));
    this.remark(answer.trouble);
    say(this.line, answer.done ? answer.line : answer.text ? "" : "reading the prompt");
    this.write(answer);
  }

  /** Whatever a model writes is shown, as plain text at the least. */
  write({ text, tints }) {
    try {
      this.writing.show(text, (part, at) => tints.pieces(part, at));
    } catch (error) {
      reportError(error);
      this.said.replaceChildren(make("p", { text }));
      this.writing = new Writing(this.said);
    }
  }

  /** Say what went wrong. */
  remark(text) {
    this.note.hidden = !text;
    say(this.note, text);
  }

  /** It may be replaced soon. */
  fade(faded) {
    this.whole.classList.toggle("edited", faded);
  }

  /** What may be done with it: copied where there is something, and `more`, a name and a function
   * each. */
  offer(more) {
    const buttons = more.map(([text, click]) =>
      make("button", { type: "button", class: "link", text, on: { click } }),
    );
    if (this.answer.text && this.answer.done) buttons.unshift(copier(() => this.answer.text));
    this.doing.replaceChildren(...buttons);
  }
}
