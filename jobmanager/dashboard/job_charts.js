// The last hour, from the present leader's memory.

import { chart } from "./chart.js";
import { h } from "./dom.js";
import { brief, bytes, clock, duration, percent, rate, UNKNOWN } from "./format.js";
import { card } from "./parts.js";

/** Units of series as the server names them. */
const SHOW = {
  count: brief,
  count_per_second: rate,
  milliseconds: (value) => (value === null ? UNKNOWN : duration(value)),
  milliseconds_per_second: (value) => (value === null ? UNKNOWN : percent(value / 1000)),
  bytes,
  percent: (value) => (value === null ? UNKNOWN : `${value.toFixed(value < 10 ? 1 : 0)} %`),
};

/** Charts of a job, and of each vertex: a title, and one or two series with their names. */
const OF_JOB = [
  ["Records", [["numRecordsInPerSecond", "in"], ["numRecordsOutPerSecond", "out"]]],
  ["Busiest subtask", [["busyTimeMsPerSecond", "busy"], ["backPressuredTimeMsPerSecond", "back-pressured"]], 1000],
  ["Watermark behind the clock", [["watermarkLag", null]]],
  ["Checkpoint duration", [["lastCheckpointDuration", null]]],
  ["Checkpoint size", [["lastCheckpointSize", null]]],
  ["CPU of the fullest task manager", [["cpuUtilization", null]], 100],
  ["Memory of the fullest task manager", [["heapMemoryUtilization", null]], 100],
  ["Restarts", [["numRestarts", null]], 1],
];
const OF_VERTEX = [
  ["Records", [["numRecordsInPerSecond", "in"], ["numRecordsOutPerSecond", "out"]]],
  ["Busiest subtask", [["busyTimeMsPerSecond", "busy"], ["backPressuredTimeMsPerSecond", "back-pressured"]], 1000],
];

/** The tab. */
export function charts({ job, more }) {
  if (more.samples === 0) {
    return h("div", { class: "notice" }, `There is nothing to show yet: the leader notes a value every ${duration(more.step_ms)}, while a job goes on. What a leader before it had noted went with it.`);
  }
  const covered = more.end_ms - more.begins_ms;
  const isWhole = covered >= (more.length - 1) * more.step_ms;
  const draw = (list, series) => list.filter(([, lines]) => lines.some(([name]) => find(series, name)?.values.some((value) => value !== null))).map(([title, lines, most]) => chart({
    title,
    most,
    binary: find(series, lines[0][0]).unit === "bytes",
    end: more.end_ms,
    step: more.step_ms,
    show: SHOW[find(series, lines[0][0]).unit],
    lines: lines.map(([name, label]) => ({ name: label, values: find(series, name)?.values ?? [] })),
  }));
  return [
    !isWhole && h("p", { class: "quiet" }, `Since ${clock(more.begins_ms)}, when this leader began to note it: a new leader starts with an empty hour. A value every ${duration(more.step_ms)}.`),
    h("div", { class: "charts" }, draw(OF_JOB, more.series)),
    h("div", { class: "vertices" }, more.vertices.map((vertex) => card(vertex.name, `vertex ${vertex.vertex}`, h("div", { class: "body charts" }, draw(OF_VERTEX, vertex.series))))),
    more.vertices.length < job.vertices.length && h("p", { class: "quiet" }, `Curves of the first ${more.vertices.length} vertices are kept.`),
  ];
}

const find = (series, name) => series.find((one) => one.name === name);
