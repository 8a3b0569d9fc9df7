// With what a job runs: its binary, arguments and settings, what the plan says, and what the author should know.

import { h } from "./dom.js";
import { bytes, count, duration, UNKNOWN } from "./format.js";
import { card, code, facts } from "./parts.js";
import { table } from "./table.js";

/** The tab. */
export function jobSettings({ job }) {
  const { checkpointing, restart_strategy } = job.plan;
  return [
    job.warnings.length > 0 && h("div", { class: "notice" }, h("strong", null, "For the author"), job.warnings.map((warning) => h("p", null, warning))),
    card("Submitted with", null, h("div", { class: "body" }, facts([
      ["Binary", job.sha256 ? code(`sha256 ${job.sha256}`) : "built into the cluster's process"],
      job.sha256 && ["Size", bytes(job.size_bytes)],
      ["Arguments", job.arguments.length ? code(job.arguments.join(" ")) : "none"],
    ]))),
    card("Settings", "over those of its program", table({
      name: "job-settings",
      label: "Settings",
      rows: Object.entries(job.configuration),
      key: ([key]) => key,
      empty: "None was given.",
      columns: [
        { name: "Key", class: "wide", cell: ([key]) => code(key) },
        { name: "Value", class: "wide", cell: ([, value]) => code(value) },
      ],
    })),
    card("Fault tolerance", null, h("div", { class: "body" }, facts([
      ["Checkpoints", checkpointing.interval_ms === null ? "none" : `every ${duration(checkpointing.interval_ms)}, given up after ${duration(checkpointing.timeout_ms)}`],
      ["Guarantee", String(checkpointing.mode).toLowerCase().replace(/_/g, " ")],
      ["Barriers", checkpointing.unaligned ? `may overtake records after ${duration(checkpointing.aligned_timeout_ms)}` : "keep their place"],
      ["Kept", count(checkpointing.retained)],
      ["Directory", checkpointing.directory ? code(checkpointing.directory) : "the job manager's own"],
      ["Savepoints", checkpointing.savepoint_directory ? code(checkpointing.savepoint_directory) : UNKNOWN],
      ["After a failure", restart(restart_strategy)],
    ]))),
  ];
}

/** A restart strategy in words. */
function restart(strategy) {
  if (typeof strategy === "string") return strategy.toLowerCase() === "none" ? "no restart: the first failure fails the job" : strategy;
  const [kind, options] = Object.entries(strategy)[0];
  const known = Object.entries(options).filter(([, value]) => value !== null);
  return `${kind.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase()}: ${known.map(([name, value]) => name.endsWith("_ms") ? `${name.slice(0, -3).replace(/_/g, " ")} ${duration(value)}` : `${name.replace(/_/g, " ")} ${value >= 4294967295 ? "unlimited" : value}`).join(", ")}`;
}
