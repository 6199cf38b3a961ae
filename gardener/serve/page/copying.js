// Buttons that copy a text.

import { make, say } from "./dom.js";

const TOLD = 1500; // milliseconds

/** A button that copies what `text` gives. */
export function copier(text, title = "Copy the answer as the model wrote it") {
  const button = make("button", { type: "button", class: "link", text: "Copy", title });
  button.addEventListener("click", async () => {
    say(button, (await copy(text(), button)) ? "Copied" : "Not copied");
    setTimeout(() => say(button, "Copy"), TOLD);
  });
  return button;
}

async function copy(text, button) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  }
  // Over plain HTTP from another machine there is only the old way.
  const field = make("textarea", { class: "hidden" });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  button.focus();
  return done;
}
