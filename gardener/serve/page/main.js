// What the page is made of, put together.

import { Chat } from "./chat.js";
import { $, say } from "./dom.js";
import { watch } from "./feed.js";
import { RingView } from "./ring.js";
import { Refused, ask } from "./server.js";
import * as settings from "./settings.js";

let model = "";
const ring = new RingView();
new Chat(() => model);

/** What the model is called, which every request has to name. */
async function learn() {
  try {
    const listed = await (await ask("/v1/models")).json();
    model = listed.data[0].id;
    say($("model"), model);
    document.title = `${model} · Gardener`;
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return; // the feed asks for a key
    setTimeout(learn, 2000);
  }
}

const again = watch((told) => {
  if (told.key) settings.open(told.why);
  ring.show(told);
});
settings.prepare(() => {
  again();
  learn();
});
learn();

for (const button of document.querySelectorAll(".views button")) {
  button.addEventListener("click", () => {
    document.body.dataset.view = button.dataset.view;
    for (const each of document.querySelectorAll(".views button")) {
      each.setAttribute("aria-pressed", String(each === button));
    }
    ring.resized();
  });
}
