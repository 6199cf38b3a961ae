// The conversation: turns, and what may be done with them.

import { Answer } from "./answer.js";
import { $, make, say } from "./dom.js";
import * as settings from "./settings.js";
import { Writing } from "./writing.js";

const SAMPLES = [
  "Why is the sky blue?",
  "Write a short story about a gardener and a stubborn oak.",
  "List five facts about bees.",
];
const NEAR = 80; // pixels from the end within which the newest text is kept in sight

export class Chat {
  /** `model`: gives the name of the model. */
  constructor(model) {
    this.model = model;
    this.turns = []; // {asked, answer, element}
    this.editing = false;
    this.field = $("ask");
    this.log = $("turns");
    this.follows = true; // the newest text is kept in sight
    this.prepare();
  }

  prepare() {
    for (const text of SAMPLES) {
      const button = make("button", { type: "button", text, on: { click: () => this.send(text) } });
      $("samples").append(make("li", {}, button));
    }
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(this.field.value);
    });
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send(this.field.value);
      }
    });
    this.field.addEventListener("input", () => this.fit());
    this.log.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.log;
      this.follows = scrollHeight - scrollTop - clientHeight < NEAR;
    });
    new ResizeObserver(() => this.follow()).observe(this.log);
    $("stop").addEventListener("click", () => this.stop());
    $("fresh").addEventListener("click", () => this.clear());
    $("cancel-edit").addEventListener("click", () => this.leaveEdit());
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || $("settings").open) return;
      if (this.running) this.stop();
      else if (this.editing) this.leaveEdit();
    });
  }

  get newest() {
    return this.turns.at(-1);
  }

  get running() {
    return this.newest && !this.newest.answer.done ? this.newest.answer : null;
  }

  /** All that was said before, without turns that got no answer. */
  messages() {
    const said = this.turns.flatMap(({ asked, answer }) =>
      answer.text
        ? [
            { role: "user", content: asked },
            { role: "assistant", content: answer.text },
          ]
        : [],
    );
    return [...settings.before(), ...said];
  }

  send(text) {
    if (!text.trim() || this.running) return;
    if (this.editing) this.drop();
    this.leaveEdit("");
    this.ask(text);
  }

  ask(text) {
    $("welcome").hidden = true;
    const answer = new Answer();
    const messages = [...this.messages(), { role: "user", content: text }];
    const element = this.element(text);
    this.turns.push({ asked: text, answer, element });
    this.log.append(element.whole);
    this.follows = true;
    this.follow();
    this.buttons();
    const body = { model: this.model(), messages, ...settings.wanted() };
    let due = false;
    const show = () => {
      due = false;
      this.show(answer, element);
    };
    answer.read(body, () => {
      // As often as there are pictures, however fast tokens come.
      if (answer.done) show();
      else if (!due) due = Boolean(requestAnimationFrame(show)) || true;
    });
    this.show(answer, element);
  }

  /** A turn before anything has come. */
  element(text) {
    const said = make("div", { class: "said" });
    const note = make("p", { class: "broken", hidden: true });
    const line = make("p", { class: "line" });
    const doing = make("div", { class: "doing" });
    const reply = make(
      "article",
      { class: "reply", "aria-busy": "true" },
      make("h3", { class: "hidden", text: "The model" }),
      said,
      note,
      make("div", { class: "under" }, line, doing),
    );
    const whole = make(
      "div",
      { class: "turn" },
      make("article", { class: "asked" }, make("h3", { class: "hidden", text: "You" }), make("p", { text })),
      reply,
    );
    return { whole, reply, said, note, line, doing, writing: new Writing(said) };
  }

  show(answer, { reply, note, line, writing }) {
    writing.show(answer.text);
    reply.classList.toggle("writing", !answer.done);
    reply.setAttribute("aria-busy", String(!answer.done));
    note.hidden = !answer.trouble;
    say(note, answer.trouble);
    say(line, answer.done ? answer.line : answer.text ? "" : "reading the prompt");
    if (answer.done) this.ended(answer);
    this.follow();
  }

  follow() {
    if (this.follows) this.log.scrollTop = this.log.scrollHeight;
  }

  ended(answer) {
    this.buttons();
    say($("told"), answer.trouble || (answer.reason === "stopped" ? "Stopped." : "The answer is complete."));
    if (answer.refused === 401) settings.open("The server wants its API key, or has another one.");
  }

  /** Which buttons there are now. */
  buttons() {
    const running = Boolean(this.running);
    const had = document.activeElement;
    $("send").hidden = running;
    $("stop").hidden = !running;
    if (had?.id === "send" || had?.id === "stop") (running ? $("stop") : this.field).focus();
    for (const { element } of this.turns) element.doing.replaceChildren();
    if (running || !this.newest) return;
    this.newest.element.doing.append(
      make("button", { type: "button", class: "link", text: "Retry", on: { click: () => this.retry() } }),
      make("button", { type: "button", class: "link", text: "Edit", on: { click: () => this.edit() } }),
    );
  }

  stop() {
    this.running?.stop();
    this.field.focus();
  }

  drop() {
    this.turns.pop()?.element.whole.remove();
    this.buttons();
  }

  retry() {
    const { asked } = this.newest;
    this.drop();
    this.ask(asked);
    this.field.focus();
  }

  edit() {
    this.editing = true;
    $("editing").hidden = false;
    this.newest.element.whole.classList.add("edited");
    this.write(this.newest.asked);
  }

  /** The field is for the next message again. */
  leaveEdit(text = "") {
    this.editing = false;
    $("editing").hidden = true;
    this.newest?.element.whole.classList.remove("edited");
    this.write(text);
  }

  write(text) {
    this.field.value = text;
    this.fit();
    this.field.focus();
  }

  /** As high as its text. */
  fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(this.field.scrollHeight, 200)}px`;
  }

  clear() {
    this.stop();
    for (const { element } of this.turns) element.whole.remove();
    this.turns = [];
    $("welcome").hidden = false;
    this.leaveEdit();
    this.buttons();
  }
}
