// All jobs, and how large the cluster is.

import { get } from "./api.js";
import { spark } from "./chart.js";
import { h } from "./dom.js";
import { ago, count, duration, moment, percent, rate, UNKNOWN } from "./format.js";
import { remember } from "./live.js";
import { card, figures, lasted, share, state } from "./parts.js";
import { table } from "./table.js";

const ENDED = ["FINISHED", "CANCELED", "FAILED"];
const open = (job) => { location.hash = `#/jobs/${job.job_id}`; };
const name = (job) => h("a", { href: `#/jobs/${job.job_id}` }, job.name);

/** The page. */
export const jobs = () => ({
  key: "jobs",
  title: () => "Jobs · Thalweg",
  load: async (signal) => {
    const cluster = await get("/thalweg/cluster", signal);
    remember(cluster);
    return cluster;
  },
  render,
});

function render(cluster) {
  const going = cluster.jobs.filter((job) => !ENDED.includes(job.status));
  const ended = cluster.jobs.filter((job) => ENDED.includes(job.status));
  const sum = (of) => cluster.task_managers.reduce((total, manager) => total + of(manager), 0);
  const leader = cluster.job_managers.find((manager) => manager.leader);
  const of = (status) => cluster.jobs.filter((job) => job.status === status).length;
  return h("div", { class: "stack" },
    h("h1", null, "Jobs"),
    figures([
      ["Running", count(of("RUNNING")), going.length > of("RUNNING") ? `and ${count(going.length - of("RUNNING"))} not yet or not now` : "jobs"],
      ["Ended", count(ended.length), `${count(of("FINISHED"))} finished, ${count(of("CANCELED"))} canceled, ${count(of("FAILED"))} failed`],
      ["Slots free", count(sum((manager) => manager.slots_free)), `of ${count(sum((manager) => manager.slots_total))}`],
      ["Task managers", count(cluster.task_managers.length), "connected"],
      ["Leader", leader ? `job manager ${leader.id}` : UNKNOWN, `of ${count(cluster.job_managers.length)}, term ${cluster.term}`],
      ["Version", cluster.version, "Thalweg"],
    ]),
    card("Running jobs", "by the last report of each task", table({
      name: "going",
      label: "Jobs that go on",
      rows: going,
      key: (job) => job.job_id,
      open,
      empty: h("span", null, "No job runs. ", h("a", { href: "#/submit" }, "Submit one"), ", or: ", h("code", null, "thalweg submit BINARY")),
      columns: goingColumns(cluster),
    })),
    ended.length > 0 && card("Ended jobs", "kept as long as the cluster remembers them", table({ name: "ended", label: "Jobs that have ended", rows: ended, key: (job) => job.job_id, open, columns: endedColumns(cluster) })));
}

const common = () => [
  { name: "Job", value: (job) => job.name, cell: name, class: "wide" },
  { name: "State", value: (job) => job.status, cell: (job) => h("span", { title: job.reason }, state(job.status)) },
];

const goingColumns = ({ now_ms }) => [
  ...common(),
  { name: "Tasks running", number: true, value: (job) => job.tasks_running, cell: (job) => `${count(job.tasks_running)} of ${count(job.tasks_total)}` },
  { name: "In", number: true, hint: "Records that its sources read, in a second", value: (job) => job.live?.records_in, cell: (job) => rate(job.live?.records_in) },
  { name: "Out", number: true, hint: "Records that come to its sinks, in a second", value: (job) => job.live?.records_out, cell: (job) => rate(job.live?.records_out) },
  { name: "Last 10 min", hint: "Records in", cell: (job) => job.live ? spark(job.live.recent) : UNKNOWN },
  {
    name: "Busiest subtask",
    hint: "The part of its time in which it is busy",
    value: (job) => job.live?.busy_share,
    cell: (job) => (typeof job.live?.busy_share !== "number" ? UNKNOWN : h("div", { class: "with-bar" }, share(job.live.busy_share, 0), h("span", { class: "number" }, percent(job.live.busy_share)))),
  },
  { name: "Most pressed", number: true, hint: "The part of its time in which a subtask is back-pressured", value: (job) => job.live?.back_pressured_share, cell: (job) => percent(job.live?.back_pressured_share) },
  { name: "Restarts", number: true, value: (job) => job.attempt, cell: (job) => count(Math.max(0, job.attempt - 1)) },
  { name: "Checkpoint", number: true, hint: "The last one that completed", value: (job) => job.live?.checkpoint_ms, cell: (job) => job.live?.checkpoint_ms ? ago(now_ms, job.live.checkpoint_ms) : "none yet" },
  { name: "For", number: true, value: (job) => -job.start_time_ms, cell: (job) => h("span", { title: moment(job.start_time_ms) }, lasted(job, now_ms)) },
];

const endedColumns = ({ now_ms }) => [
  ...common(),
  { name: "Why", cell: (job) => job.reason || UNKNOWN, class: "wide" },
  { name: "Restarts", number: true, value: (job) => job.attempt, cell: (job) => count(Math.max(0, job.attempt - 1)) },
  { name: "Started", number: true, value: (job) => job.start_time_ms, cell: (job) => moment(job.start_time_ms) },
  { name: "Ended", number: true, value: (job) => job.end_time_ms, cell: (job) => h("span", { title: moment(job.end_time_ms) }, ago(now_ms, job.end_time_ms)) },
  { name: "Took", number: true, value: (job) => job.end_time_ms - job.start_time_ms, cell: (job) => duration(job.end_time_ms - job.start_time_ms) },
];
