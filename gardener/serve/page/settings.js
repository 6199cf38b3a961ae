// What a person sets, kept until the tab is closed.

import { $, say } from "./dom.js";
import { key } from "./server.js";

const PLACE = "gardener.settings";
const FIELDS = ["system", "temperature", "most"];

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(PLACE)) ?? {};
  } catch {
    return {};
  }
}

/** The fields of a request that follow from them. */
export function wanted() {
  const { temperature, most } = kept();
  return {
    ...(temperature ? { temperature: Number(temperature) } : {}),
    ...(most ? { max_completion_tokens: Number(most) } : {}),
  };
}

/** The messages that go before all others. */
export function before() {
  const { system } = kept();
  return system?.trim() ? [{ role: "system", content: system }] : [];
}

/** Guesses are tinted in answers, unless somebody does not want it. */
function tint() {
  document.body.classList.toggle("tinted", kept().tint ?? true);
}

/** Ask for settings, and why. `saved` is called after they were changed. */
export function open(why = "") {
  const dialog = $("settings");
  if (dialog.open) return;
  $("settings-note").hidden = !why;
  say($("settings-note"), why);
  $("key").value = key.get();
  const values = kept();
  for (const name of FIELDS) $(name).value = values[name] ?? "";
  $("tint").checked = values.tint ?? true;
  dialog.returnValue = "cancel";
  dialog.showModal();
  $(why ? "key" : "system").focus();
}

/** Make the dialog work. */
export function prepare(saved) {
  const dialog = $("settings");
  tint();
  $("open-settings").addEventListener("click", () => open());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close("cancel"); // beside it
  });
  dialog.querySelector("form").addEventListener("keydown", (event) => {
    // Enter in a field saves; the first button of the form would cancel.
    if (event.key === "Enter" && event.target.matches("input:not([type=checkbox])")) {
      event.preventDefault();
      dialog.querySelector("[value=save]").click();
    }
  });
  dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "save") return;
    key.set($("key").value.trim());
    const values = Object.fromEntries(FIELDS.map((name) => [name, $(name).value]));
    values.tint = $("tint").checked;
    sessionStorage.setItem(PLACE, JSON.stringify(values));
    tint();
    saved();
  });
}
