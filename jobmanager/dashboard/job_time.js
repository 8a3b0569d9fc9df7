// Why time is where it is: for each operator with windows or timers its watermark, what it waits for and who holds that back. The tasks
// are asked at this moment, as by `thalweg why`.

import { h } from "./dom.js";
import { ago, clock, count, duration, moment, UNKNOWN, watermark } from "./format.js";
import { card, state } from "./parts.js";
import { table } from "./table.js";

/** The tab. */
export function time({ job, more, vertices }) {
  const { waiting, missing } = more;
  const name = (subtask) => `${vertices[subtask.vertex]?.name ?? subtask.vertex} ${subtask.index}`;
  return [
    missing.length > 0 && h("div", { class: "notice" }, missing.map((subtask) => h("p", null, `${name(subtask)} has not answered: it is busy in a call of its code, or is being restarted.`))),
    card("What waits for time", "asked at this moment", table({
      name: "waiting",
      label: "Operators with timers",
      rows: waiting,
      key: (one) => `${one.subtask.vertex}/${one.subtask.index}/${one.operator}`,
      empty: job.status === "RUNNING" ? "No operator has keys, so there are no windows and no timers." : `The job is ${job.status}: nothing runs, so there is nothing to tell.`,
      columns: [
        { name: "Operator", value: (one) => one.operator, cell: (one) => one.operator, class: "wide" },
        { name: "Subtask", number: true, value: (one) => one.subtask.index, cell: (one) => one.subtask.index },
        { name: "Watermark", number: true, value: (one) => one.watermark_ms, cell: (one) => watermark(one.watermark_ms) },
        { name: "Earliest timer", number: true, hint: "A window fires when the watermark has passed it", value: (one) => one.earliest_timer_ms, cell: (one) => one.earliest_timer_ms === null ? "none" : watermark(one.earliest_timer_ms) },
        { name: "Missing", number: true, hint: "How much event time is missing until it fires", value: (one) => one.missing_ms, cell: (one) => missingWords(one) },
        { name: "Held back by", class: "wide", cell: (one) => holders(job, one, name) },
      ],
    })),
    card("Watermarks of all tasks", "with what makes them", table({
      name: "watermarks",
      label: "Watermarks of all tasks",
      rows: more.tasks,
      key: (task) => `${task.subtask.vertex}/${task.subtask.index}`,
      empty: "No task runs.",
      columns: [
        { name: "Task", value: (task) => name(task.subtask), cell: (task) => name(task.subtask), class: "wide" },
        { name: "Watermark in", number: true, hint: "The least of its active inputs", value: (task) => task.watermark, cell: (task) => task.inputs.length ? watermark(task.watermark) : UNKNOWN },
        { name: "Watermark out", number: true, value: (task) => out(vertices, task), cell: (task) => watermark(out(vertices, task)) },
        { name: "Inputs", class: "wide", cell: (task) => inputs(task, name) },
        { name: "Made here", class: "wide", hint: "Splits, or the subtask as a whole, that have a watermark of their own", cell: (task) => origins(task) },
      ],
    })),
  ];
}

const out = (vertices, { subtask }) => vertices[subtask.vertex]?.subtasks[subtask.index]?.current_output_watermark ?? null;

function missingWords(one) {
  if (one.missing_ms === null || one.watermark_ms >= 9.2e18) return UNKNOWN;
  return one.missing_ms === 0 ? "fires now" : duration(one.missing_ms);
}

function holders(job, one, name) {
  if (!one.held_back_by.length) return UNKNOWN;
  return h("ol", { class: "chain" }, one.held_back_by.map((holder) => h("li", null, step(job, holder, name))));
}

/** One step upstream, in words. */
function step(job, holder, name) {
  const who = `${holder.operator} ${holder.subtask.index}`;
  const at = holder.watermark_ms === null ? "has no watermark yet" : `is at ${watermark(holder.watermark_ms)}`;
  switch (holder.cause) {
    case "upstream": return `${who}, which ${at}: the least of its active inputs`;
    case "all_idle": return `all inputs are idle${holder.since_ms ? ` since ${clock(holder.since_ms)}` : ""}: time goes on with the next record. The latest was ${who}, which ${at}`;
    case "ended": return "all inputs have ended, and the last watermark is on its way";
    case "no_splits": return `${who} has no split, so no watermark; it is idle, and nobody waits for it alone`;
    case "no_strategy": return `there is no watermark strategy behind the source ${who}: nothing in event time fires before the end of the input. Call watermarks() on its stream`;
    case "no_answer": return `${name(holder.subtask)} has not answered, so it is not known whom it waits for`;
    default: return `${who}${holder.split ? `, split ${holder.split}` : ""}, which ${at}: its last record came ${ago(holder.last_record_ms + holder.silent_ms, holder.last_record_ms)}, and ${idleness(holder)}`;
  }
}

function idleness(holder) {
  if (holder.waits_for_others) return "it waits for the sources with which it is aligned";
  if (holder.idle) return "it is idle, so time stands still until a record comes";
  if (holder.idleness_ms !== null) return `it is idle when none has come for ${duration(holder.idleness_ms)}`;
  return "it never counts as idle, because the strategy has no with_idleness()";
}

function inputs(task, name) {
  if (!task.inputs.length) return UNKNOWN;
  const idle = task.inputs.filter((input) => input.idle).length;
  const ended = task.inputs.filter((input) => input.ended).length;
  const rank = (input) => (input.ended ? 2 : input.idle ? 1 : 0);
  const sorted = [...task.inputs].sort((one, other) => rank(one) - rank(other) || (one.watermark ?? -Infinity) - (other.watermark ?? -Infinity));
  return h("details", { "data-key": `inputs-${task.subtask.vertex}-${task.subtask.index}` },
    h("summary", null, `${count(task.inputs.length)} channels, ${count(idle)} idle, ${count(ended)} ended`),
    h("table", null, h("tbody", null, sorted.slice(0, 64).map((input) => h("tr", null,
      h("td", null, name(input.sender)), h("td", { class: "number" }, watermark(input.watermark)),
      h("td", null, input.ended ? state("ENDED") : input.idle ? state("IDLE") : "active"))))));
}

function origins(task) {
  if (!task.origins.length) return UNKNOWN;
  const shown = task.origins.slice(0, 64);
  const line = (origin) => h("div", { title: `last record ${moment(origin.last_record_ms)}` },
    `${origin.split ?? "the subtask"}: ${watermark(origin.watermark)}`, origin.idle && " · idle", origin.waits_for_others && " · waits for others");
  return [shown.map(line), task.origins.length > shown.length && h("div", { class: "quiet" }, `and ${count(task.origins.length - shown.length)} more`)];
}
