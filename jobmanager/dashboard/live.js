// The page that is shown: asked for anew every two seconds while somebody looks, drawn anew with every answer. When nobody answers
// it stays as it was, says so, and tries again.

import { Refused, Unreachable } from "./api.js";
import { h, morph } from "./dom.js";
import { clock } from "./format.js";

const INTERVAL_MS = 2000;
const MOST_MS = 10_000;

let page = null;
let data = null;
let answered = 0;
let timer = 0;
let failures = 0;
let asking = null;
/** Where the other job managers serve the same page. */
let others = [];

/** Shows a page: `load(signal)` asks, `render(data)` draws, `title` names it. The same page goes on with what it has. */
export function show(next) {
  if (page?.key !== next.key) {
    data = null;
    answered = 0;
    document.getElementById("main").replaceChildren(h("p", { class: "quiet" }, "Loading …"));
  }
  page = next;
  refresh();
}

/** Asks now. */
export async function refresh() {
  clearTimeout(timer);
  asking?.abort();
  const control = new AbortController();
  const asked = page;
  asking = control;
  const deadline = setTimeout(() => control.abort(), 15_000);
  try {
    const answer = await asked.load(control.signal);
    if (asking !== control) return;
    [data, answered, failures] = [answer, Date.now(), 0];
    connected();
    draw();
  } catch (error) {
    if (asking !== control) return;
    failed(error);
  } finally {
    clearTimeout(deadline);
    if (asking === control) {
      asking = null;
      const wait = Math.min(INTERVAL_MS * 1.5 ** Math.min(failures, 6), MOST_MS);
      if (!document.hidden) timer = setTimeout(refresh, wait);
    }
  }
}

/** Draws the page from what is known, after something that only the page knows has changed. */
export function draw() {
  if (data === null || !page) return;
  document.title = page.title(data);
  const main = document.getElementById("main");
  const fresh = page.render(data);
  fresh.setAttribute("data-key", page.key);
  if (main.firstElementChild && main.childNodes.length === 1) morph(main.firstElementChild, fresh);
  else main.replaceChildren(fresh);
}

/** Keeps where the dashboards of other job managers are, for when this one is gone: at the same port, as far as one can know. */
export function remember({ job_managers }) {
  const hosts = job_managers.map((manager) => manager.address.replace(/:\d+$/, ""));
  others = [...new Set(hosts)].filter((host) => host !== location.hostname).map((host) => `${location.protocol}//${host}:${location.port}/`);
}

function connected() {
  const shown = document.getElementById("connection");
  shown.className = "live";
  shown.textContent = `live · ${clock(answered)}`;
  document.getElementById("banner").hidden = true;
  document.getElementById("main").classList.remove("stale");
}

function failed(error) {
  const shown = document.getElementById("connection");
  const banner = document.getElementById("banner");
  banner.hidden = false;
  if (error instanceof Refused) {
    shown.className = "live";
    shown.textContent = "live";
    banner.replaceChildren(error.message);
    if (data === null) document.getElementById("main").replaceChildren(h("p", { class: "quiet" }, "There is nothing to show."));
    return;
  }
  failures += 1;
  shown.className = "lost";
  shown.textContent = "retrying";
  const since = answered ? ` This is what was known at ${clock(answered)}.` : "";
  const why = error instanceof Unreachable || error.name === "AbortError" ? "" : ` (${error.message})`;
  const elsewhere = others.flatMap((address) => [" ", h("a", { href: address + location.hash }, address)]);
  banner.replaceChildren(`Connection lost, retrying.${since}${why}`, ...(elsewhere.length ? [" Others serve this page too:", ...elsewhere] : []));
  document.getElementById("main").classList.add("stale");
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && page) refresh();
});
