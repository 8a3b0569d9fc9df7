// The configuration of the job manager that leads.

import { get } from "./api.js";
import { h } from "./dom.js";
import { count } from "./format.js";
import { draw } from "./live.js";
import { card, code } from "./parts.js";
import { table } from "./table.js";

let filter = "";
let all = false;

/** The page. */
export const settings = () => ({
  key: "settings",
  title: () => "Configuration · Thalweg",
  load: (signal) => get("/thalweg/configuration", signal),
  render,
});

function render({ settings }) {
  const words = filter.toLowerCase();
  const rows = settings.filter((setting) => (all || setting.is_set) && `${setting.key} ${setting.value ?? ""} ${setting.help}`.toLowerCase().includes(words));
  return h("div", { class: "stack" },
    h("h1", null, "Configuration"),
    h("div", { class: "row" },
      h("input", { type: "search", "aria-label": "Filter", placeholder: "filter (/)", oninput: (event) => { filter = event.target.value; draw(); } }),
      h("label", { class: "check" }, h("input", { type: "checkbox", onchange: (event) => { all = event.target.checked; draw(); } }), h("span", null, "with defaults")),
      h("span", { class: "quiet" }, `${count(rows.length)} of ${count(settings.length)} keys`)),
    card("Of the job manager that leads", "where a value comes from: thalweg config show", table({
      name: "settings",
      label: "Settings",
      rows,
      key: (setting) => setting.key,
      empty: all || words ? "No key fits." : "Nothing is set: all keys have their defaults.",
      columns: [
        { name: "Key", value: (setting) => setting.key, cell: (setting) => code(setting.key) },
        { name: "Value", value: (setting) => setting.value ?? "", cell: (setting) => (setting.value === null ? h("span", { class: "quiet" }, "none") : code(setting.value)), class: "wide" },
        { name: "", cell: (setting) => (setting.is_set ? "set" : h("span", { class: "quiet" }, "default")) },
        { name: "Meaning", cell: (setting) => h("span", { class: "quiet" }, setting.help), class: "wide" },
      ],
    })));
}
