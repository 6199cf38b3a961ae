// The conversation: turns, and what may be done with them.

import { Answer } from "./answer.js";
import { $, make, say } from "./dom.js";
import { forget, keep, kept } from "./keeping.js";
import * as settings from "./settings.js";
import { Turn } from "./turn.js";

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
    this.turns = [];
    this.editing = false;
    this.draft = ""; // what stood in the field before the last message was edited
    this.field = $("ask");
    this.log = $("turns");
    this.left = false; // the page, for another one
    this.follows = true; // the newest text is kept in sight
    this.prepare();
    this.restore();
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
    addEventListener("pagehide", () => {
      keep(this.turns);
      this.left = true;
    });
    addEventListener("pageshow", () => (this.left = false));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || $("settings").open) return;
      if (this.running) this.stop();
      else if (this.editing) this.leaveEdit();
    });
  }

  /** What was said before the page was loaded anew. */
  restore() {
    this.turns = kept();
    for (const turn of this.turns) {
      this.log.append(turn.whole);
      turn.show();
    }
    $("welcome").hidden = this.turns.length > 0;
    this.buttons();
  }

  get newest() {
    return this.turns.at(-1);
  }

  get running() {
    return this.newest && !this.newest.answer.done ? this.newest.answer : null;
  }

  /** All that was said before, without turns that got no answer: these say so themselves. */
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
    const old = this.editing ? this.aside() : null;
    if (this.editing) this.leaveEdit();
    else if (text === this.field.value) this.write("");
    this.ask(text, old);
  }

  /** `old`: the turn that this one takes the place of, once something has come. */
  ask(text, old = null) {
    $("welcome").hidden = true;
    const turn = new Turn(text, new Answer());
    const messages = [...this.messages(), { role: "user", content: text }];
    turn.instead = old;
    this.turns.push(turn);
    this.log.append(turn.whole);
    this.follows = true;
    this.buttons();
    const body = { model: this.model(), messages, ...settings.wanted() };
    let due = false;
    const draw = () => {
      due = false;
      if (!turn.answer.done) this.show(turn);
    };
    turn.answer.read(body, () => {
      // As often as there are pictures, however fast tokens come.
      if (turn.answer.done) this.show(turn);
      else if (!due) due = Boolean(requestAnimationFrame(draw)) || true;
    });
    this.show(turn);
  }

  show(turn) {
    if (!this.turns.includes(turn)) return; // there is another chat now, or it has ended
    if (turn.instead && turn.answer.came) {
      turn.instead.whole.remove();
      turn.instead = null;
    }
    turn.show();
    if (turn.answer.done) this.ended(turn);
    this.follow();
  }

  follow() {
    if (this.follows) this.log.scrollTop = this.log.scrollHeight;
  }

  ended(turn) {
    const { answer } = turn;
    const stopped = answer.reason === "stopped";
    say($("told"), answer.trouble || (stopped ? "Stopped." : "The answer is complete."));
    if (turn.instead) this.putBack(turn);
    this.buttons();
    if (!this.left) keep(this.turns); // a browser that leaves breaks what is under way
    if (answer.refused === 401) settings.open(answer.error);
  }

  /** Nothing came: the turn whose place it would have taken stays, and what was asked in its place
   * can be sent again. */
  putBack({ asked, answer, instead, whole }) {
    this.turns.splice(-1, 1, instead);
    whole.remove();
    instead.fade(false);
    if (answer.trouble) instead.remark(`Asked again, there was no other answer. ${answer.trouble}`);
    if (asked !== instead.asked) this.edit(asked);
  }

  /** Which buttons there are now. */
  buttons() {
    const running = Boolean(this.running);
    const had = document.activeElement;
    $("send").hidden = running;
    $("stop").hidden = !running;
    if (had?.id === "send" || had?.id === "stop") (running ? $("stop") : this.field).focus();
    const more = [
      ["Retry", () => this.retry()],
      ["Edit", () => this.edit()],
    ];
    for (const turn of this.turns) turn.offer(turn === this.newest && !running ? more : []);
  }

  stop() {
    this.running?.stop();
    this.field.focus();
  }

  /** Take the last turn out of the conversation. It is seen until another one takes its place, if
   * it has an answer; else it is gone, and this gives null. */
  aside() {
    const turn = this.turns.pop();
    if (!turn.answer.text) {
      turn.whole.remove();
      return null;
    }
    turn.fade(true);
    turn.offer([]);
    return turn;
  }

  retry() {
    if (this.editing) this.leaveEdit();
    const { asked } = this.newest;
    this.ask(asked, this.aside());
    this.field.focus();
  }

  /** Change the last message, which is `text` until now. */
  edit(text = this.newest.asked) {
    if (!this.editing) this.draft = this.field.value;
    this.editing = true;
    $("editing").hidden = false;
    this.newest.fade(true);
    this.write(text);
  }

  /** The field is for the next message again, and has what was begun of it. */
  leaveEdit() {
    this.editing = false;
    $("editing").hidden = true;
    this.newest?.fade(false);
    this.write(this.draft);
    this.draft = "";
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
    for (const turn of this.turns) {
      turn.instead?.whole.remove();
      turn.whole.remove();
    }
    this.turns = [];
    forget();
    $("welcome").hidden = false;
    if (this.editing) this.leaveEdit();
    this.buttons();
    this.field.focus();
  }
}
