// What went wrong, the first fault first: it is the cause, what failed behind it are its consequences.

import { h } from "./dom.js";
import { ago, clock, count, duration, moment, UNKNOWN } from "./format.js";
import { fault, outages } from "./faults.js";
import { card, facts, state } from "./parts.js";
import { table } from "./table.js";

/** The tab. */
export function faults({ job }) {
  const [last, ...earlier] = outages(job);
  return [
    last ? report(job, last) : card("First fault", null, h("p", { class: "empty" }, "Nothing has failed.")),
    earlier.length > 0 && card("Before that", "the newest first", table({
      name: "outages",
      label: "Earlier faults",
      rows: earlier,
      key: ({ first }) => `${first.time_ms}/${first.attempt}`,
      columns: [
        { name: "When", class: "nowrap", cell: ({ first }) => moment(first.time_ms) },
        { name: "Attempt", number: true, cell: ({ first }) => count(first.attempt) },
        { name: "Task", class: "wide", cell: ({ first }) => first.task || UNKNOWN },
        { name: "Task manager", cell: ({ first }) => first.task_manager || UNKNOWN },
        { name: "What", class: "wide", cell: ({ first }) => message(first) },
        { name: "Consequences", number: true, cell: ({ others }) => count(others.length) },
        { name: "Down for", number: true, cell: ({ from, to }) => (to ? duration(to - from) : UNKNOWN) },
      ],
    })),
    card("States", "the newest first", table({
      name: "states",
      label: "Changes of state",
      rows: [...job.history].reverse(),
      key: (change) => `${change.time_ms}/${change.from}/${change.to}`,
      empty: "Nothing has changed yet.",
      columns: [
        { name: "When", class: "nowrap", cell: (change) => moment(change.time_ms) },
        { name: "From", cell: (change) => state(change.from) },
        { name: "To", cell: (change) => state(change.to) },
        { name: "Attempt", number: true, cell: (change) => count(change.attempt) },
        { name: "Why", class: "wide", cell: (change) => change.reason || UNKNOWN },
      ],
    })),
  ];
}

function report(job, { first, others, from, to, change, attempt }) {
  const isOver = to !== null;
  return h("section", { class: "card", "aria-label": "First fault", id: "first-fault" },
    h("header", null, h("h2", null, "First fault"), h("span", { class: "quiet" }, `${ago(job.now_ms, first.time_ms)} · ${isOver ? `recovered after ${duration(to - from)}` : `the job is ${job.status}`}`)),
    h("div", { class: "body stack" },
      h("div", { class: isOver ? "notice" : "notice bad-ground" }, h("strong", null, first.failure.message), first.failure.details && h("pre", null, first.failure.details)),
      facts([
        ["When", moment(first.time_ms)],
        ["Task", first.task || "none in particular"],
        ["Task manager", first.task_manager || "none in particular"],
        ["Attempt", count(first.attempt)],
        ["Whose fault", fault(first.failure)],
        ["Can a restart help?", first.failure.retryable ? "yes" : "no: it is certain to repeat"],
        change && ["What followed", `${change.from} → ${change.to} at ${clock(change.time_ms)}${change.reason ? `: ${change.reason}` : ""}`],
        isOver && ["Recovered", `at ${clock(to)}${attempt ? `, as attempt ${attempt}` : ""}${job.checkpoints.restored_id ? `, the last restore from checkpoint ${job.checkpoints.restored_id}` : ""}`],
      ]),
      others.length > 0 && h("details", { "data-key": "consequences" }, h("summary", null, `${count(others.length)} more failed behind it`),
        h("div", { class: "stack" }, others.map((other) => h("div", { class: "notice" }, h("strong", null, `${clock(other.time_ms)} ${other.task} ${other.task_manager}: `), message(other)))))));
}

const message = ({ failure }) => (failure.details ? h("details", null, h("summary", null, failure.message), h("pre", null, failure.details)) : failure.message);
