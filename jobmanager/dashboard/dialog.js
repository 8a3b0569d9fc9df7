// Questions before something is done, and what comes of it: the server's words are shown whole.

import { h } from "./dom.js";

/**
 * Asks. `fields` are elements of a form with names; `run(values, tell)` does what was asked for and may tell how far it is; when it returns
 * the dialog closes, or stays with what it returned.
 */
export function ask({ title, text, fields = [], button, grave, run }) {
  const told = h("div", { role: "status" });
  const go = h("button", { type: "submit", class: grave ? "grave" : "main" }, button);
  const leave = h("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const form = h("form", { method: "dialog" }, h("h2", null, title), h("p", null, text), fields, told, h("div", { class: "buttons" }, leave, go));
  const dialog = h("dialog", { "aria-label": title }, form);
  const tell = (words) => told.replaceChildren(h("p", { class: "quiet" }, words));
  form.onsubmit = async (event) => {
    event.preventDefault();
    go.disabled = true;
    tell("Asking …");
    try {
      const result = await run(Object.fromEntries(new FormData(form)), tell);
      if (!result) return dialog.close();
      told.replaceChildren(result);
      go.remove();
      leave.focus();
    } catch (error) {
      told.replaceChildren(problem(error));
      go.disabled = false;
    }
  };
  open(dialog);
}

/** A dialog that only tells. */
export function tell(title, ...body) {
  const form = h("form", { method: "dialog" }, h("h2", null, title), body, h("div", { class: "buttons" }, h("button", { class: "main" }, "Close")));
  open(h("dialog", { "aria-label": title }, form));
}

/** What went wrong, as the server says it. */
export const problem = (error) => h("div", { class: "notice bad-ground", role: "alert" }, h("strong", null, "It was not done."), h("pre", null, error.message));

/** A field with its name above it and a hint below. */
export const field = (name, input, hint) => h("label", null, h("span", null, name), input, hint && h("span", { class: "hint" }, hint));

/** A box to tick. */
export const check = (name, words) => h("label", { class: "check" }, h("input", { type: "checkbox", name, value: "true" }), h("span", null, words));

function open(dialog) {
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.showModal();
}
