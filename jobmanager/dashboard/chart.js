// Curves over time, in SVG. A value that is missing interrupts the line: nothing is drawn that was not measured.

import { h, s } from "./dom.js";
import { clock } from "./format.js";

const WIDTH = 300;
const HEIGHT = 88;

/**
 * A chart: `title`, `show` (a value with its unit), `lines` (each `{ name, values }`, oldest first, at most two), the time of the last
 * value and the time between two; `most` is the least top of the scale, which is a power of two if it is `binary`.
 */
export function chart({ title, show, lines, end, step, most = 0, binary = false }) {
  const values = lines.flatMap((line) => line.values).filter((value) => value !== null);
  const top = nice(Math.max(most, ...values, 0), binary);
  const last = (line) => line.values.at(-1) ?? null;
  const length = lines[0].values.length;
  const y = (value) => HEIGHT - (Math.max(0, value) / (top || 1)) * HEIGHT;
  const now = h("div", { class: "now" }, figures(lines, show, last));
  const cursor = s("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${lines.map((line) => `${line.name ?? "now"} ${show(last(line))}`).join(", ")}` },
    [0, 0.5, 1].map((part) => s("line", { class: "rule", x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part })),
    lines.length === 1 && runs(lines[0].values).map((run) => s("path", { class: "area", d: `${path(run, length, y)}V${HEIGHT}H${x(run[0].at, length)}Z` })),
    lines.map((line, index) => runs(line.values).map((run) => s("path", { class: `plot ${tone(line, index)}`, d: path(run, length, y) }))),
    cursor);
  const box = h("div", { class: "chart" }, h("h3", null, title), now, svg,
    h("div", { class: "axis" }, h("span", null, clock(end - (length - 1) * step)), h("span", null, `top: ${show(top)}`), h("span", null, clock(end))));
  box.onpointermove = (event) => {
    // The elements that are shown, which may be those of an earlier drawing.
    const chart = event.currentTarget;
    const area = chart.querySelector("svg").getBoundingClientRect();
    const at = Math.min(length - 1, Math.max(0, Math.round(((event.clientX - area.left) / area.width) * (length - 1))));
    for (const [name, value] of [["x1", x(at, length)], ["x2", x(at, length)], ["visibility", "visible"]]) chart.querySelector(".cursor").setAttribute(name, value);
    chart.querySelector(".now").replaceChildren(...figures(lines, show, (line) => line.values[at]), h("small", null, clock(end - (length - 1 - at) * step)));
  };
  box.onpointerleave = (event) => {
    event.currentTarget.querySelector(".cursor").setAttribute("visibility", "hidden");
    event.currentTarget.querySelector(".now").replaceChildren(...figures(lines, show, last));
  };
  return box;
}

/** Busy and back-pressured have their colours everywhere. */
const tone = (line, index) => ({ busy: "busy", "back-pressured": "pressed" })[line.name] ?? (index ? "second" : "first");

const figures = (lines, show, of) => lines.map((line, index) =>
  h("span", null, line.name && h("span", { class: `key ${tone(line, index)}` }), show(of(line)), line.name && h("small", null, ` ${line.name}`)));

/** A small curve without scale, for a cell of a table. */
export function spark(values) {
  const top = Math.max(...values.filter((value) => value !== null), 1e-9);
  const y = (value) => 23 - (value / top) * 21;
  return s("svg", { class: "spark", viewBox: `0 0 ${WIDTH} 24`, preserveAspectRatio: "none", "aria-hidden": "true" },
    runs(values).map((run) => s("path", { class: "plot", d: path(run, values.length, y) })));
}

const x = (at, length) => (length < 2 ? WIDTH : (at / (length - 1)) * WIDTH).toFixed(1);

/** Pieces without a gap. */
function runs(values) {
  const found = [];
  values.forEach((value, at) => {
    if (value === null) return;
    if (at > 0 && values[at - 1] !== null && found.length) found.at(-1).push({ at, value });
    else found.push([{ at, value }]);
  });
  return found;
}

/** A single value is a short stroke. */
function path(run, length, y) {
  const points = run.map(({ at, value }) => `${x(at, length)} ${y(value).toFixed(1)}`);
  return `M${points.join("L")}${run.length === 1 ? "h-2" : ""}`;
}

/** The next of 1, 2, 5 times a power of ten, or for bytes the next power of two. */
function nice(value, binary) {
  if (value <= 0) return 0;
  if (binary) return 2 ** Math.ceil(Math.log2(value));
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= value * 0.999);
}
