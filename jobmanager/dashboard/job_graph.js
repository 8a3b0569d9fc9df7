// The graph of a job, the six questions, and the subtasks and operators of the vertex that is chosen.

import { h } from "./dom.js";
import { brief, bytes, count, duration, lag, percent, rate, UNKNOWN, watermark } from "./format.js";
import { outages } from "./faults.js";
import { graph } from "./graph.js";
import { draw } from "./live.js";
import { card, code, legend, share, state } from "./parts.js";
import { questions } from "./questions.js";
import { spread } from "./sight.js";
import { table } from "./table.js";

/** The vertex that is chosen, by job. */
const chosenOf = new Map();

const SHOWN_OUTAGE_MS = 600_000;

/** The tab. */
export function graphTab({ job, vertices }) {
  const chosen = chosenOf.get(job.job_id) ?? busiest(vertices);
  const choose = (vertex) => {
    chosenOf.set(job.job_id, vertex);
    draw();
  };
  return [
    trouble(job),
    h("section", { class: "card", "aria-label": "Does it work?" }, h("div", { class: "questions" }, questions(job, vertices).map(({ ask, is, say }) =>
      h("div", { class: is }, h("div", { class: "ask" }, ask), h("div", { class: "answer" }, h("span", null, say)))))),
    h("section", { class: "card", "aria-label": "Job graph" },
      h("header", null, h("h2", null, "Job graph"), legend()),
      h("div", { class: "body" }, graph(job, vertices, chosen, choose))),
    vertices[chosen] && subtasks(job, vertices[chosen]),
    vertices[chosen] && operators(vertices[chosen]),
  ];
}

const busiest = (vertices) => vertices.reduce((best, vertex) => ((vertex.busy ?? -1) > (vertices[best].busy ?? -1) ? vertex.vertex : best), 0);

/** The first fault, while the job is down and for some time after that. */
function trouble(job) {
  const [last] = outages(job);
  const isOver = last && (last.to !== null || job.status === "RUNNING");
  if (!last || (isOver && job.now_ms - last.first.time_ms > SHOWN_OUTAGE_MS)) return null;
  const { first, from, to } = last;
  return h("div", { class: isOver ? "notice" : "notice bad-ground", id: "trouble", "data-key": "trouble" },
    h("div", { class: "row between" },
      h("strong", null, isOver ? `Recovered${to ? ` after ${duration(to - from)}` : ""} from a fault` : "First fault", first.task && `: ${first.task}`, first.task_manager && ` on ${first.task_manager}`),
      h("a", { href: `#/jobs/${job.job_id}/faults` }, "The whole report")),
    h("p", null, first.failure.message));
}

function subtasks(job, vertex) {
  const metric = (name) => (task) => task.metrics[name];
  const share1000 = (name) => (task) => task.metrics[name] === undefined ? null : task.metrics[name] / 1000;
  const [busy, pressed] = [share1000("busyTimeMsPerSecond"), share1000("backPressuredTimeMsPerSecond")];
  const columns = [
    { name: "Subtask", number: true, value: (task) => task.subtask.index, cell: (task) => task.subtask.index },
    { name: "State", value: (task) => task.status, cell: (task) => state(task.status) },
    { name: "Task manager", class: "nowrap", value: (task) => task.task_manager, cell: (task) => task.task_manager || UNKNOWN },
    { name: "Attempt", number: true, value: (task) => task.attempt, cell: (task) => count(task.attempt) },
    { name: "In", number: true, hint: "Records received, in a second", value: metric("numRecordsInPerSecond"), cell: (task) => rate(task.metrics.numRecordsInPerSecond), show: rate },
    { name: "Out", number: true, hint: "Records emitted, in a second", value: metric("numRecordsOutPerSecond"), cell: (task) => rate(task.metrics.numRecordsOutPerSecond), show: rate },
    { name: "Records in", number: true, hint: "Since the attempt began", value: (task) => task.records_in, cell: (task) => brief(task.records_in), show: brief },
    { name: "Busy", value: busy, hint: "Red: busy. Dark: back-pressured", show: percent, cell: (task) => h("div", { class: "with-bar" }, share(busy(task), pressed(task)), h("span", { class: "number" }, percent(busy(task)))) },
    { name: "Pressed", number: true, hint: "Back-pressured: an output is full", value: pressed, cell: (task) => percent(pressed(task)), show: percent },
    { name: "In queue", number: true, hint: "Batches that wait to be read", value: (task) => task.input_queue_length, cell: (task) => count(task.input_queue_length), show: brief },
    { name: "State size", number: true, hint: "Of its keyed state", value: (task) => task.state_bytes, cell: (task) => bytes(task.state_bytes), show: bytes },
    { name: "Watermark", number: true, hint: "The last one that it emitted, and how far that is behind the clock", value: (task) => task.current_output_watermark, cell: (task) => time(job.now_ms, task.current_output_watermark) },
  ];
  return card(`Subtasks of ${vertex.name}`, skewWords(vertex), table({
    name: "subtasks",
    label: `Subtasks of ${vertex.name}`,
    columns,
    rows: vertex.subtasks,
    key: (task) => `${vertex.vertex}/${task.subtask.index}`,
    empty: "It has no subtasks.",
    foot: vertex.subtasks.length > 1 ? footer(columns, vertex.subtasks) : null,
  }));
}

/** Least, mean and greatest of each column, and how uneven it is. */
function footer(columns, tasks) {
  const spreads = columns.map((column) => (column.show ? spread(tasks.map(column.value)) : null));
  const line = (name, of) => columns.map((column, index) => {
    if (index === 0) return "";
    if (index === 1) return name;
    return spreads[index] ? of(spreads[index], column.show) : "";
  });
  return [
    line("Least", (all, show) => show(all.min)),
    line("Mean", (all, show) => show(all.mean)),
    line("Greatest", (all, show) => show(all.max)),
    line("Skew", (all) => (all.mean > 0 ? `${all.skew.toFixed(1)} ×` : UNKNOWN)),
  ];
}

function skewWords(vertex) {
  const all = spread(vertex.subtasks.map((task) => task.metrics.numRecordsInPerSecond ?? null));
  const words = `${count(vertex.parallelism)} of at most ${count(vertex.max_parallelism)}`;
  return all && all.mean > 0 && vertex.parallelism > 1 ? `${words} · the fullest subtask gets ${all.skew.toFixed(1)} × the mean` : words;
}

function time(now, value) {
  const behind = lag(now, value);
  return h("span", { title: watermark(value), class: "nowrap" }, behind === null ? watermark(value) : `${duration(Math.abs(behind))} ${behind < 0 ? "ahead" : "behind"}`);
}

function operators(vertex) {
  const has = (of) => vertex.operators.some((operator) => of(operator));
  return card("Operators", "a chain: they run in one task", table({
    name: "operators",
    label: `Operators of ${vertex.name}`,
    rows: vertex.operators,
    key: (operator) => `${vertex.vertex}/${operator.position}`,
    empty: "The plan tells none.",
    columns: [
      { name: "Operator", cell: (operator) => operator.name, class: "wide" },
      { name: "Kind", cell: (operator) => operator.kind },
      { name: "Id", hint: "Its name for state, if the author gave one", cell: (operator) => (operator.uid ? code(operator.uid) : UNKNOWN) },
      { name: "In", number: true, cell: (operator) => rate(operator.inPerSecond) },
      { name: "Out", number: true, cell: (operator) => rate(operator.outPerSecond) },
      { name: "Records in", number: true, cell: (operator) => brief(operator.recordsIn) },
      { name: "Records out", number: true, cell: (operator) => brief(operator.recordsOut) },
      has((operator) => operator.late) && { name: "Dropped as late", number: true, cell: (operator) => count(operator.late) },
      has((operator) => operator.unreadable) && { name: "Not readable", hint: "Records that it could not read, and left out or sent to a side output", number: true, cell: (operator) => count(operator.unreadable) },
      has((operator) => operator.memory) && { name: "Managed memory", number: true, cell: (operator) => bytes(operator.memory) },
      has((operator) => operator.metrics.length) && { name: "Own metrics", class: "wide", cell: (operator) => own(operator.metrics) },
      { name: "Declared at", cell: (operator) => (operator.location ? code(operator.location) : UNKNOWN) },
    ].filter(Boolean),
  }));
}

/** What user code and connectors have registered: of all subtasks together where that is a count, else the greatest. */
function own(metrics) {
  const byName = group(metrics);
  const value = (all) => {
    if (all[0].type === "histogram") return `p99 ${brief(Math.max(...all.map((metric) => metric.value.p99)))}`;
    if (all[0].type === "gauge") return brief(Math.max(...all.map((metric) => metric.value)));
    return brief(all.reduce((total, metric) => total + metric.value, 0));
  };
  return [...byName].map(([name, all]) => h("div", { class: "nowrap" }, `${name} `, h("b", null, value(all))));
}

function group(metrics) {
  const groups = new Map();
  for (const metric of metrics) groups.set(metric.name, [...(groups.get(metric.name) ?? []), metric]);
  return groups;
}
