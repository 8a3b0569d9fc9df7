// The six questions that somebody asks who looks at a job, and what its figures answer. Pure. "unsure" is said where nothing tells.

import { ago, brief, duration, percent, rate } from "./format.js";

const LOW = 0.1;
const HIGH = 0.5;
const FULL = 0.95;

/** For each question its answer: `{ ask, is: "yes" | "no" | "unsure", say }`. */
export function questions(job, vertices) {
  const asks = ["Is the source receiving?", "Is it being read?", "Does the application receive?", "Does it keep up?", "Does it write to the sink?", "Does the sink receive?"];
  const answers = job.status === "RUNNING"
    ? [receiving(vertices), read(vertices), received(vertices), keepsUp(vertices), written(vertices), arrives(job)]
    : asks.map(() => unsure(`the job is ${job.status.toLowerCase()}`));
  return answers.map((answer, index) => ({ ask: asks[index], ...answer }));
}

const yes = (say) => ({ is: "yes", say });
const no = (say) => ({ is: "no", say });
const unsure = (say) => ({ is: "unsure", say });
const total = (values) => values.some((value) => value !== null) ? values.reduce((sum, value) => sum + (value ?? 0), 0) : null;
const sources = (vertices) => vertices.filter((vertex) => vertex.isSource);
const shortName = (vertex) => vertex.name.split(" -> ")[0];

/** How far sources are behind what there is, where their connector tells: in milliseconds or records. */
function behind(vertices) {
  const metrics = sources(vertices).flatMap((vertex) => vertex.operators.flatMap((operator) => operator.metrics));
  const values = (pattern) => metrics.filter((metric) => pattern.test(metric.name) && typeof metric.value === "number" && metric.value >= 0).map((metric) => metric.value);
  const [times, records] = [values(/millisbehindlatest$/i), values(/(records_lag_max|pendingRecords)$/)];
  if (times.length) return { text: duration(Math.max(...times)), some: Math.max(...times) > 0 };
  return records.length ? { text: `${brief(Math.max(...records))} records`, some: Math.max(...records) > 0 } : null;
}

function receiving(vertices) {
  const lag = behind(vertices);
  const rates = total(sources(vertices).map((vertex) => vertex.recordsIn));
  if (lag?.some) return yes(`yes, ${lag.text} wait to be read`);
  if (rates > 0) return yes("yes, there is something to read");
  return lag ? yes("all is read that it has") : unsure("nothing to read, or it does not tell");
}

function read(vertices) {
  const rates = total(sources(vertices).map((vertex) => vertex.recordsIn));
  if (rates > 0) return yes(`yes, ${rate(rates)}`);
  const held = sources(vertices).find((vertex) => vertex.pressed > HIGH);
  if (held) return no(`no: ${shortName(held)} is back-pressured`);
  return rates === null ? unsure("not measured yet") : unsure("nothing at the moment");
}

function received(vertices) {
  // What comes out of the first operator of a source comes to the next one, in the same chain or behind an edge.
  const rates = total(sources(vertices).map((vertex) => vertex.operators[0]?.outPerSecond ?? null));
  if (rates === null) return unsure("not measured yet");
  return rates > 0 ? yes(`yes, ${rate(rates)}`) : unsure("nothing at the moment");
}

function keepsUp(vertices) {
  const pressed = vertices.filter((vertex) => vertex.pressed > HIGH);
  const busiest = [...vertices].filter((vertex) => vertex.busy !== null).sort((one, other) => other.busy - one.busy)[0];
  if (!busiest) return unsure("not measured yet");
  const what = (vertex) => `${shortName(vertex)} is ${percent(vertex.busy)} busy`;
  if (pressed.length) {
    // The bottleneck is the first one downstream that is not held up itself, not even a little.
    const numbers = new Set(vertices.filter((vertex) => vertex.pressed > LOW).map((vertex) => vertex.vertex));
    const behindPressed = vertices.filter((vertex) => !numbers.has(vertex.vertex) && vertex.inputs.some((edge) => numbers.has(edge.source)));
    const slowest = behindPressed.sort((one, other) => (other.busy ?? 0) - (one.busy ?? 0))[0];
    return no(slowest ? `no: ${what(slowest)} and holds up ${shortName(pressed[0])}` : `no: the output of ${shortName(pressed[0])} is full`);
  }
  return busiest.busy > FULL ? no(`just: ${what(busiest)}`) : yes(`yes, ${what(busiest)} at most`);
}

function written(vertices) {
  const sinks = vertices.flatMap((vertex) => vertex.operators.filter((operator) => operator.isSink));
  const rates = total(sinks.map((operator) => operator.inPerSecond));
  if (rates > 0) return yes(`yes, ${rate(rates)}`);
  const written = total(sinks.map((operator) => operator.recordsIn));
  if (rates === null) return unsure("not measured yet");
  return unsure(written > 0 ? `nothing at the moment, ${brief(written)} before` : "nothing yet");
}

function arrives(job) {
  const { latest, failed, completed } = job.checkpoints;
  if (job.plan.checkpointing.interval_ms === null) return unsure("no checkpoints: sinks commit at the end");
  if (!latest) return failed > 0 ? no("no checkpoint has completed yet, so nothing is committed") : unsure("the first checkpoint commits");
  const late = job.now_ms - latest.time_ms > 3 * job.plan.checkpointing.interval_ms + 10_000;
  const text = `committed with checkpoint ${latest.id}, ${ago(job.now_ms, latest.time_ms)}`;
  return late && completed > 0 ? no(text) : yes(text);
}
