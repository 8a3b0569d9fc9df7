// Submitting a job: a binary is uploaded, then run with arguments. What was uploaded before can be run again.

import { get, send, upload } from "./api.js";
import { check, field, problem } from "./dialog.js";
import { h } from "./dom.js";
import { bytes, moment, percent } from "./format.js";
import { draw, refresh } from "./live.js";
import { card, code } from "./parts.js";
import { table } from "./table.js";

/** The upload that is under way: `{ name, size, part }`, and what went wrong with the last one. */
let uploading = null;
let failure = null;
let chosen = null;
let starting = null;

/** The page. */
export const submit = () => ({
  key: "submit",
  title: () => "Submit · Thalweg",
  load: (signal) => get("/jars", signal),
  render,
});

function render({ files }) {
  const binary = files.find((file) => file.id === chosen) ?? null;
  return h("div", { class: "stack" },
    h("h1", null, "Submit a job"),
    card("1. A binary", "an executable for the machines of the cluster, as cargo build --release makes it", h("div", { class: "body" }, drop()),
      table({
        name: "binaries",
        label: "Uploaded binaries",
        rows: files,
        key: (file) => file.id,
        open: (file) => { chosen = file.id; failure = null; draw(); },
        selected: (file) => file.id === chosen,
        empty: "None was uploaded to this job manager yet.",
        columns: [
          { name: "Binary", value: (file) => file.name, cell: (file) => code(file.name), class: "wide" },
          { name: "Uploaded", number: true, value: (file) => file.uploaded, cell: (file) => moment(file.uploaded) },
          { name: "", cell: (file) => h("button", { type: "button", onclick: () => remove(file) }, "Delete") },
        ],
      })),
    card("2. How it runs", binary ? binary.name : "choose a binary above", h("div", { class: "body" }, form(binary))));
}

function drop() {
  const take = (file) => file && start(file);
  const input = h("input", { type: "file", id: "binary", "aria-label": "Binary", "data-keep": true, onchange: (event) => take(event.target.files[0]) });
  const over = (is) => (event) => {
    event.preventDefault();
    event.currentTarget.classList.toggle("over", is);
  };
  return h("div", { class: "stack" },
    h("div", { class: "drop", ondragover: over(true), ondragleave: over(false), ondrop: (event) => { over(false)(event); take(event.dataTransfer.files[0]); } },
      h("div", { class: "row", style: { "justify-content": "center" } }, input, h("span", { class: "quiet" }, "or drop a file here"))),
    uploading && h("div", null, h("p", null, `Uploading ${uploading.name}, ${bytes(uploading.size)}: ${uploading.part < 1 ? percent(uploading.part) : "checking it"}`), h("progress", { max: "1", value: String(uploading.part) })),
    failure && problem(failure));
}

async function start(file) {
  [uploading, failure] = [{ name: file.name, size: file.size, part: 0 }, null];
  draw();
  try {
    const { filename } = await upload("/jars/upload", file, (part) => {
      uploading.part = part;
      draw();
    });
    chosen = filename.split("/").at(-1);
  } catch (error) {
    failure = error;
  }
  uploading = null;
  refresh();
}

async function remove(file) {
  try {
    await send("DELETE", `/jars/${encodeURIComponent(file.id)}`);
  } catch (error) {
    failure = error;
  }
  refresh();
}

function form(binary) {
  const run = async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(event.target));
    [starting, failure] = [{ name: binary.name }, null];
    draw();
    try {
      const { jobid } = await send("POST", `/jars/${encodeURIComponent(binary.id)}/run`, body(values));
      starting = null;
      location.hash = `#/jobs/${jobid}`;
    } catch (error) {
      starting = { error };
      draw();
    }
  };
  const input = (name, attributes) => h("input", { name, autocomplete: "off", spellcheck: "false", ...attributes });
  return h("form", { class: "stack", onsubmit: run, id: "run" },
    field("Arguments", input("arguments", { placeholder: "--input s3://bucket/in --rate 100" }), "As on a command line; quote what has spaces."),
    field("Parallelism", input("parallelism", { type: "number", min: "1", placeholder: "as the program or the cluster says" })),
    field("Settings", h("textarea", { name: "settings", rows: "3", spellcheck: "false", placeholder: "execution.checkpointing.interval: 10 s" }), "One in a line, key: value. They win over those of the program."),
    field("Begin with savepoint", input("savepoint", { placeholder: "file:///… or s3://…" }), "The directory of a savepoint, or of a retained checkpoint. Without it the job begins with no state."),
    check("allow", "Drop state that the job does not declare any more"),
    h("div", { class: "row" },
      h("button", { type: "submit", class: "main", disabled: binary === null || (starting !== null && !starting.error) }, "Submit"),
      starting && !starting.error && h("span", { class: "quiet", role: "status" }, `Checking the plan of ${starting.name} …`)),
    starting?.error && problem(starting.error));
}

/** What `/jars/ID/run` wants. */
function body({ arguments: text, parallelism, settings, savepoint, allow }) {
  const lines = settings.split("\n").map((line) => line.trim()).filter(Boolean);
  return {
    programArgsList: words(text),
    ...(lines.length ? { flinkConfiguration: Object.fromEntries(lines.map(setting)) } : {}),
    ...(parallelism ? { parallelism: Number(parallelism) } : {}),
    ...(savepoint ? { savepointPath: savepoint, allowNonRestoredState: allow === "true" } : {}),
  };
}

/** Key and value of a line, which the server checks. */
function setting(line) {
  const [, key, value] = /^([^:=]*)[:=]?(.*)$/.exec(line);
  return [key.trim(), value.trim()];
}

/** The words of a command line, with quotes. */
export function words(text) {
  const found = text.match(/(?:[^\s"']+|"[^"]*"|'[^']*')+/g) ?? [];
  return found.map((word) => word.replace(/"([^"]*)"|'([^']*)'/g, (_, double, single) => double ?? single));
}
