// The keyboard: everything that a click does can be done by keys. Nothing is taken from fields that are typed in.

import { h } from "./dom.js";
import { tell } from "./dialog.js";

const PAGES = { j: "#/", s: "#/submit", m: "#/managers", c: "#/settings" };

const KEYS = [
  ["g j", "jobs"], ["g s", "submit a job"], ["g m", "managers"], ["g c", "configuration"],
  ["j  ↓", "next row of a table"], ["k  ↑", "row before"], ["Enter", "open the row"],
  ["[  ]", "tab of a job before, next"], ["/", "filter, where there is one"],
  ["r", "ask now"], ["t", "colours: as the system, light, dark"], ["?", "these keys"], ["Esc", "close"],
];

let isGoing = false;

/** Listens; `refresh` asks anew, `theme` changes colours. */
export function listen({ refresh, theme }) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, textarea, select")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (act(event.key, { refresh, theme })) event.preventDefault();
  });
}

function act(key, { refresh, theme }) {
  if (isGoing) {
    isGoing = false;
    if (PAGES[key]) location.hash = PAGES[key];
    return Boolean(PAGES[key]);
  }
  switch (key) {
    case "g": isGoing = true; return true;
    case "j": case "ArrowDown": return walk(1, key === "j");
    case "k": case "ArrowUp": return walk(-1, key === "k");
    case "[": return turn(-1);
    case "]": return turn(1);
    case "/": document.querySelector("input[type=search]")?.focus(); return true;
    case "r": refresh(); return true;
    case "t": theme(); return true;
    case "?": help(); return true;
    default: return false;
  }
}

/** Moves the focus to a row. Arrows do so only from a row, because they scroll otherwise. */
function walk(step, always) {
  const rows = [...document.querySelectorAll("main tr[tabindex]")];
  const at = rows.indexOf(document.activeElement);
  if (rows.length === 0 || (at < 0 && !always)) return false;
  rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + step))].focus();
  return true;
}

function turn(step) {
  const tabs = [...document.querySelectorAll(".tabs a")];
  const at = tabs.findIndex((tab) => tab.hasAttribute("aria-current"));
  tabs[(at + step + tabs.length) % tabs.length]?.click();
  return tabs.length > 0;
}

/** Shows the keys. */
export function help() {
  tell("Keys", h("table", { class: "keys" }, h("tbody", null, KEYS.map(([keys, words]) =>
    h("tr", null, h("td", null, keys.split(" ").filter(Boolean).map((key) => [h("kbd", null, key), " "])), h("td", null, words))))));
}
