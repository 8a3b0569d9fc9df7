// What the job's workers wrote, fetched from their task managers at this moment: the end of each file. A log stands still while
// somebody reads further up.

import { h } from "./dom.js";
import { bytes, count } from "./format.js";
import { draw } from "./live.js";
import { card } from "./parts.js";

let chosen = null;
let filter = "";

const name = (log) => `${log.task_manager} · ${log.source}`;

/** The tab. */
export function logs({ job, more }) {
  const logs = more.logs;
  if (logs.length === 0) {
    return card("Logs", null, h("p", { class: "empty" }, job.end_time_ms ? "No task manager has a log of this job any more." : "The job's workers have written nothing yet."));
  }
  const log = logs.find((one) => name(one) === chosen) ?? logs.find((one) => one.text) ?? logs[0];
  const lines = log.text.split("\n").filter((line) => line !== "");
  const shown = filter === "" ? lines : lines.filter((line) => line.toLowerCase().includes(filter.toLowerCase()));
  return card("Logs", `the last ${bytes(more.tail_bytes)} of each file`,
    h("div", { class: "body row" },
      h("label", null, h("span", { class: "hint" }, "File"), h("select", { "aria-label": "File", onchange: (event) => { chosen = event.target.value; draw(); } },
        logs.map((one) => h("option", { value: name(one), selected: one === log }, `${name(one)} (${bytes(one.text.length)})`)))),
      h("label", null, h("span", { class: "hint" }, "Filter"), h("input", { type: "search", "aria-label": "Filter", placeholder: "text (/)", oninput: (event) => { filter = event.target.value; draw(); } })),
      h("span", { class: "quiet" }, `${count(shown.length)} of ${count(lines.length)} lines${more.left_out ? `; ${count(more.left_out)} more files: thalweg logs ${job.job_id}` : ""}`)),
    h("pre", { class: "log", tabindex: "0", "aria-label": "Lines", "data-key": name(log) }, shown.length ? shown.map((line) => h("span", { class: level(line) }, marked(line), "\n")) : "Nothing."));
}

/** The level of a line, as text or JSON. */
function level(line) {
  const found = /\b(ERROR|WARN)\b/.exec(line.slice(0, 400));
  return found ? found[1] : null;
}

function marked(line) {
  if (filter === "") return line;
  const at = line.toLowerCase().indexOf(filter.toLowerCase());
  return [line.slice(0, at), h("mark", null, line.slice(at, at + filter.length)), line.slice(at + filter.length)];
}
