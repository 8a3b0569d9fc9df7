// Checkpoints and savepoints: how they went, and where in a subtask the time was spent.

import { h } from "./dom.js";
import { ago, bytes, count, duration, moment, UNKNOWN } from "./format.js";
import { draw } from "./live.js";
import { card, code, figures, state } from "./parts.js";
import { spread } from "./sight.js";
import { table } from "./table.js";

const PHASES = [["start_delay_us", "start delay"], ["alignment_us", "alignment"], ["sync_us", "sync"], ["async_us", "async"]];

/** The checkpoint whose parts are shown. */
let chosen = null;

const sum = (parts, of) => parts.reduce((total, part) => total + of(part), 0);

/** The tab. */
export function checkpoints({ job, more, vertices }) {
  const { summary, retained, history } = more;
  const settings = job.plan.checkpointing;
  const shown = history.find((one) => one.id === chosen) ?? history.findLast((one) => one.status === "COMPLETED") ?? history.at(-1);
  const latest = summary.latest;
  return [
    figures([
      ["Completed", count(summary.completed), summary.in_progress ? "one in progress" : null],
      ["Failed", count(summary.failed), null],
      ["Last", latest ? ago(job.now_ms, latest.time_ms) : "none yet", latest ? `number ${latest.id}` : null],
      ["Duration", latest ? duration(latest.duration_ms) : UNKNOWN, "of the last"],
      ["Size", latest ? bytes(latest.bytes) : UNKNOWN, "of the last, all state"],
      ["Restored from", summary.restored_id ? `number ${summary.restored_id}` : "nothing", "by this attempt"],
      ["Every", settings.interval_ms === null ? "never" : duration(settings.interval_ms), settings.unaligned ? "unaligned" : "aligned"],
    ]),
    card("History", "as far as the present leader knows", table({
      name: "checkpoints",
      label: "Checkpoints",
      rows: [...history].reverse(),
      key: (one) => one.id,
      open: (one) => { chosen = one.id; draw(); },
      selected: (one) => one.id === shown?.id,
      empty: settings.interval_ms === null ? "The job takes no checkpoints: execution.checkpointing.interval is not set." : "None yet.",
      columns: [
        { name: "Number", number: true, value: (one) => one.id, cell: (one) => one.id },
        { name: "State", value: (one) => one.status, cell: (one) => state(one.status) },
        { name: "Triggered", number: true, value: (one) => one.triggered_ms, cell: (one) => moment(one.triggered_ms) },
        { name: "Duration", number: true, value: (one) => one.duration_ms, cell: (one) => duration(one.duration_ms) },
        { name: "Slowest subtask", cell: (one) => phases(slowest(one)) },
        { name: "State size", number: true, value: (one) => sum(one.subtasks, (part) => part.state_bytes), cell: (one) => bytes(sum(one.subtasks, (part) => part.state_bytes)) },
        { name: "Uploaded", number: true, value: (one) => sum(one.subtasks, (part) => part.incremental_bytes), cell: (one) => bytes(sum(one.subtasks, (part) => part.incremental_bytes)) },
        { name: "In flight", number: true, hint: "Records on their way that an unaligned checkpoint has stored", cell: (one) => bytes(sum(one.subtasks, (part) => part.persisted_bytes)) },
        { name: "Acknowledged", number: true, cell: (one) => `${count(one.subtasks.length)} of ${count(one.subtasks_total)}` },
        { name: "Attempt", number: true, cell: (one) => count(one.attempt) },
        { name: "Why it failed", class: "wide", cell: (one) => one.failure || UNKNOWN },
      ],
    })),
    h("div", { class: "legend" }, PHASES.map(([, name], index) => h("span", null, h("span", { class: `part phase-${index}` }), name))),
    shown && parts(shown, vertices),
    card("Can be restored", "what the log has", table({
      name: "retained",
      label: "Retained checkpoints",
      rows: [...retained].reverse(),
      key: (one) => one.id,
      empty: "Nothing yet.",
      columns: [
        { name: "Number", number: true, cell: (one) => one.id },
        { name: "Completed", number: true, cell: (one) => moment(one.completed_ms) },
        { name: "Size", number: true, cell: (one) => bytes(one.size_bytes) },
        { name: "Path", class: "wide", cell: (one) => (one.path ? code(one.path) : "in the cluster's memory") },
        { name: "Problem", class: "wide", cell: (one) => one.unreadable || UNKNOWN },
      ],
    })),
    card("Savepoints", null, table({
      name: "savepoints",
      label: "Savepoints",
      rows: [...job.savepoints].reverse(),
      key: (one) => one.id,
      empty: "None was taken.",
      columns: [
        { name: "Number", number: true, cell: (one) => one.id },
        { name: "Completed", number: true, cell: (one) => moment(one.completed_ms) },
        { name: "Took", number: true, cell: (one) => duration(one.completed_ms - one.triggered_ms) },
        { name: "Size", number: true, cell: (one) => bytes(one.size_bytes) },
        { name: "Path", class: "wide", cell: (one) => code(one.path) },
        { name: "Ended the job", cell: (one) => (one.is_final ? "yes" : "no") },
      ],
    })),
  ];
}

const slowest = (one) => one.subtasks.reduce((most, part) => (!most || part.end_to_end_ms > most.end_to_end_ms ? part : most), null);

/** The phases of a subtask's part as a bar. */
function phases(part) {
  if (!part) return UNKNOWN;
  const total = sum(PHASES, ([field]) => part[field]) || 1;
  const words = PHASES.map(([field, name]) => `${name} ${duration(part[field] / 1000)}`).join(", ");
  return h("span", { class: "phases", title: words, role: "img", "aria-label": words }, PHASES.map(([field], index) =>
    h("i", { class: `phase-${index}`, style: { width: `${(part[field] / total) * 100}%` } })));
}

/** What each vertex's subtasks took of one checkpoint: the mean and the greatest of each phase. */
function parts(one, vertices) {
  const rows = vertices.map((vertex) => ({ vertex, parts: one.subtasks.filter((part) => part.subtask.vertex === vertex.vertex) }));
  const phase = (field) => ({ parts }) => {
    const all = spread(parts.map((part) => part[field] / 1000));
    return all ? h("span", { title: `least ${duration(all.min)}` }, `${duration(all.mean)} / ${duration(all.max)}`) : UNKNOWN;
  };
  return card(`Checkpoint ${one.id} by vertex`, "mean / greatest of the subtasks", table({
    name: "parts",
    label: `Checkpoint ${one.id} by vertex`,
    rows,
    key: ({ vertex }) => vertex.vertex,
    empty: "The job has no vertices.",
    columns: [
      { name: "Vertex", class: "wide", cell: ({ vertex }) => vertex.name },
      { name: "Acknowledged", number: true, cell: ({ vertex, parts }) => `${count(parts.length)} of ${count(vertex.parallelism)}` },
      { name: "End to end", number: true, cell: ({ parts }) => { const all = spread(parts.map((part) => part.end_to_end_ms)); return all ? `${duration(all.mean)} / ${duration(all.max)}` : UNKNOWN; } },
      ...PHASES.map(([field, name]) => ({ name: name[0].toUpperCase() + name.slice(1), number: true, cell: phase(field) })),
      { name: "Slowest subtask", cell: ({ parts }) => phases(slowest({ subtasks: parts })) },
      { name: "State size", number: true, cell: ({ parts }) => bytes(sum(parts, (part) => part.state_bytes)) },
      { name: "In flight", number: true, cell: ({ parts }) => bytes(sum(parts, (part) => part.persisted_bytes)) },
    ],
  }));
}
