// Small things that several pages show.

import { h } from "./dom.js";
import { duration, percent } from "./format.js";

/** A state, with a mark of its colour. */
export const state = (name) => h("span", { class: `state ${name}` }, name);

/** How a task spends its time: busy, back-pressured, idle. */
export function share(busy, pressed) {
  const part = (name, value) => h("i", { class: `${name} moves`, style: { width: `${(value ?? 0) * 100}%` } });
  return h("span", { class: "share", title: busy === null || busy === undefined ? "not measured" : `busy ${percent(busy)}, back-pressured ${percent(pressed)}, idle ${percent(1 - busy - pressed)}` }, part("busy", busy), part("pressed", pressed));
}

/** The legend of such bars. */
export const legend = () => h("div", { class: "legend" },
  ["busy", "pressed", "idle"].map((name) => h("span", null, h("span", { class: `part ${name}` }), name === "pressed" ? "back-pressured" : name)),
  h("span", null, "the colour of a vertex is its busiest subtask"));

/** A card with a heading. */
export const card = (title, note, ...body) => h("section", { class: "card", "aria-label": title },
  h("header", null, h("h2", null, title), note && h("span", { class: "quiet" }, note)), body);

/** Figures in a row: `[label, value, note]`. */
export const figures = (list) => h("dl", { class: "figures" }, list.filter(Boolean).map(([label, value, note]) =>
  h("div", null, h("dt", null, label), h("dd", { class: "value", style: { margin: "0" } }, value, note && h("small", null, note)))));

/** Facts: `[name, value]`. */
export const facts = (list) => h("dl", { class: "facts" }, list.filter(Boolean).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));

/** Since when a job is there, or how long it took. */
export const lasted = (job, now) => duration((job.end_time_ms ?? now) - job.start_time_ms);

/** Where something is declared, and its name. */
export const code = (text) => h("code", null, text);
