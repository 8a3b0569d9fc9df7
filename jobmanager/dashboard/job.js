// One job: its head, which every tab has, and the tab that is shown. All tabs read the same description; some ask for more.

import { actions } from "./actions.js";
import { get } from "./api.js";
import { h } from "./dom.js";
import { count, moment } from "./format.js";
import { lasted, state } from "./parts.js";
import { charts } from "./job_charts.js";
import { checkpoints } from "./job_checkpoints.js";
import { faults } from "./job_faults.js";
import { graphTab } from "./job_graph.js";
import { logs } from "./job_logs.js";
import { jobSettings } from "./job_settings.js";
import { time } from "./job_time.js";
import { sight } from "./sight.js";

/** Each tab: its name, what it asks for beside the description, and how it is drawn. */
const TABS = {
  graph: { name: "Graph", render: graphTab },
  time: { name: "Watermarks", ask: "why", render: time },
  checkpoints: { name: "Checkpoints", ask: "checkpoints", render: checkpoints },
  faults: { name: "Faults", render: faults },
  charts: { name: "Last hour", ask: "charts", render: charts },
  logs: { name: "Logs", ask: "logs", render: logs },
  settings: { name: "Configuration", render: jobSettings },
};

/** The answer before the last one, by job: rates of operators are differences. */
let before = null;
let latest = null;

/** The page of a job and a tab. */
export function job(id, tab, query) {
  const { ask, render, name } = TABS[tab] ?? TABS.graph;
  return {
    key: `job-${id}-${tab}`,
    title: ({ job }) => `${job.name} · ${name} · Thalweg`,
    load: async (signal) => {
      const path = `/thalweg/jobs/${encodeURIComponent(id)}`;
      const [job, more] = await Promise.all([get(path, signal), ask && get(`${path}/${ask}`, signal)]);
      if (latest?.job_id !== job.job_id) before = null;
      else before = latest;
      latest = job;
      return { job, more, vertices: sight(job, before) };
    },
    render: (data) => h("div", { class: "stack" }, head(data.job, tab), h("div", { class: "stack", "data-key": tab }, render(data, query))),
  };
}

function head(job, tab) {
  const faults = job.failures.length;
  return h("div", { class: "stack" },
    h("div", { class: "row between" },
      h("div", { class: "row" }, h("h1", null, job.name), h("span", { id: "state" }, state(job.status))),
      h("div", { class: "row" }, actions(job))),
    h("div", { class: "job-facts" },
      h("span", null, h("code", { title: "The job's id" }, job.job_id)),
      h("span", null, "started ", h("b", null, moment(job.start_time_ms))),
      h("span", null, job.end_time_ms ? "took " : "for ", h("b", null, lasted(job, job.now_ms))),
      h("span", null, "tasks running ", h("b", null, `${count(job.tasks_running)} of ${count(job.tasks_total)}`)),
      h("span", { id: "attempt" }, "attempt ", h("b", null, count(job.attempt))),
      job.reason && h("span", null, h("b", null, job.reason))),
    h("nav", { class: "tabs", "aria-label": "Views of the job" }, Object.entries(TABS).map(([key, { name }]) =>
      h("a", { href: `#/jobs/${job.job_id}/${key}`, "data-tab": key, "aria-current": key === tab && "page" },
        name, key === "faults" && faults > 0 && h("span", { class: "count" }, ` ${count(faults)}`)))));
}
