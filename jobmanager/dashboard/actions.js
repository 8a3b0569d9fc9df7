// What can be done to a job: cancel it, stop it with a savepoint, take a savepoint, run it at another parallelism.

import { get, send } from "./api.js";
import { ask, check, field } from "./dialog.js";
import { h } from "./dom.js";
import { duration } from "./format.js";
import { code } from "./parts.js";
import { refresh } from "./live.js";

const POLL_MS = 300;

const ENDED = ["FINISHED", "CANCELED", "FAILED"];

/** The buttons for a job in its state. */
export function actions(job) {
  if (ENDED.includes(job.status)) return [];
  const isRunning = job.status === "RUNNING";
  const button = (name, run, attributes) => h("button", { type: "button", onclick: () => run(job), ...attributes }, name);
  const why = isRunning ? null : `The job is ${job.status}: it must run for that.`;
  return [
    button("Savepoint …", savepoint, { disabled: !isRunning, title: why, id: "savepoint" }),
    button("Rescale …", rescale, { disabled: !isRunning, title: why, id: "rescale" }),
    button("Stop …", stop, { disabled: !isRunning, title: why, id: "stop" }),
    button("Cancel …", cancel, { class: "grave", id: "cancel" }),
  ];
}

const directory = () => field("Directory", h("input", { name: "directory", placeholder: "as configured", autocomplete: "off", spellcheck: "false" }),
  "A path or URI that job managers and task managers reach; a new directory is made in it.");

function savepoint(job) {
  ask({
    title: `Take a savepoint of ${job.name}`,
    text: "The job goes on. The savepoint has all of its state, for any later version, parallelism and store.",
    fields: [directory()],
    button: "Take savepoint",
    run: async ({ directory }, tell) => {
      const body = { "cancel-job": false, ...(directory ? { "target-directory": directory } : {}) };
      return saved(await triggered(job, "savepoints", body, tell));
    },
  });
}

function stop(job) {
  ask({
    title: `Stop ${job.name}`,
    text: "Takes a savepoint as the job's last act: nothing is read behind it, and sinks commit by it.",
    fields: [directory(), check("drain", "End the input first, so that all windows fire (drain). The job cannot go on from such a savepoint with the same time.")],
    button: "Stop with savepoint",
    grave: true,
    run: async ({ directory, drain }, tell) => {
      const body = { drain: drain === "true", ...(directory ? { targetDirectory: directory } : {}) };
      return saved(await triggered(job, "stop", body, tell));
    },
  });
}

const saved = (location) => {
  refresh();
  return h("div", { class: "notice", id: "saved" }, h("strong", null, "The savepoint is complete."), h("pre", null, location));
};

/** Starts a savepoint and waits for it; its place. */
async function triggered(job, action, body, tell) {
  const started = await send("POST", `/jobs/${job.job_id}/${action}`, body);
  const operation = await done(job, "savepoints", started, (time) => tell(`Taking the savepoint … ${time}`));
  return operation.location;
}

/** Waits for what was begun, and tells for how long; what came of it. */
async function done(job, kind, started, tell) {
  const path = `/jobs/${job.job_id}/${kind}/${started["request-id"]}`;
  for (let waits = 1; ; waits += 1) {
    const { status, operation } = await get(path);
    if (status.id === "COMPLETED") {
      const cause = operation?.["failure-cause"];
      if (cause) throw new Error(cause["stack-trace"] || cause.class);
      return operation;
    }
    tell(duration(waits * POLL_MS));
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

function cancel(job) {
  ask({
    title: `Cancel ${job.name}`,
    text: "The job ends at once, without a savepoint: what came behind its last checkpoint is not committed. To go on later, stop it with a savepoint.",
    button: "Cancel job",
    grave: true,
    run: async () => {
      await send("PATCH", `/jobs/${job.job_id}?mode=cancel`);
      refresh();
    },
  });
}

function rescale(job) {
  const present = Math.max(...job.vertices.map((vertex) => vertex.parallelism));
  ask({
    title: `Rescale ${job.name}`,
    text: "Takes a checkpoint and restarts the job from it with this parallelism, for all operators that set none in the program. If that fails the job goes back to what it was.",
    fields: [field("Parallelism", h("input", { name: "parallelism", type: "number", min: "1", value: present, required: true }))],
    button: "Rescale",
    run: async ({ parallelism }, tell) => {
      const started = await send("PATCH", `/jobs/${job.job_id}/rescaling?parallelism=${parallelism}`);
      await done(job, "rescaling", started, (time) => tell(`Checking, taking a checkpoint, restarting … ${time}`));
      refresh();
      return h("p", { id: "rescaled" }, "All tasks run at parallelism ", code(parallelism), ".");
    },
  });
}
