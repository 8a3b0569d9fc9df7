// The beginning: which page the address names, colours, keys. Addresses stand behind the `#`, so that the page of every job
// manager has the same ones.

import { help, listen } from "./keys.js";
import { refresh, show } from "./live.js";
import { job } from "./job.js";
import { jobs } from "./jobs.js";
import { managers } from "./managers.js";
import { settings } from "./settings.js";
import { submit } from "./submit.js";

const THEMES = ["system", "light", "dark"];
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

/** The page of an address: `#/jobs/ID/TAB?vertex=2`. */
function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = path.split("/");
  const pages = { "": jobs, jobs: () => job(rest[0], rest[1] ?? "graph", new URLSearchParams(query)), managers, settings, submit };
  const name = pages[page] ? page : "";
  const shown = name === "" || name === "jobs" ? "jobs" : name;
  for (const link of document.querySelectorAll(".top nav a")) {
    if (link.dataset.page === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  show(pages[name]());
}

function theme(chosen) {
  localStorage.setItem("theme", chosen);
  const dark = chosen === "dark" || (chosen === "system" && prefersDark.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  document.getElementById("theme").textContent = { system: "◐ System", light: "○ Light", dark: "● Dark" }[chosen];
}

const chosen = () => (THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system");
const next = () => theme(THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length]);

theme(chosen());
prefersDark.addEventListener("change", () => theme(chosen()));
document.getElementById("theme").onclick = next;
document.getElementById("help").onclick = help;
listen({ refresh, theme: next });
addEventListener("hashchange", () => {
  route();
  scrollTo(0, 0);
});
route();
