// The job graph: a card for each vertex, coloured by what its busiest subtask does, and the ways of records between them.

import { h, s } from "./dom.js";
import { duration, lag, percent, rate, UNKNOWN, watermark } from "./format.js";
import { layout, NODE } from "./layout.js";
import { share } from "./parts.js";

const HIGH = 0.5;

/** What does not fit is made smaller as long as it can be read; more is scrolled to. */
const LEAST_ZOOM = 0.72;

/** `choose(vertex)` is called with the number of the one that is clicked. */
export function graph(job, vertices, chosen, choose) {
  const edges = job.plan.edges;
  const places = layout(vertices.map((vertex) => vertex.vertex), edges);
  const room = document.getElementById("main").clientWidth - 72;
  const zoom = Math.max(LEAST_ZOOM, Math.min(1, room / places.width));
  return h("div", { class: "graph" },
    h("div", { class: "plane", style: { zoom: zoom.toFixed(3), width: `${places.width}px`, height: `${places.height}px` } },
      s("svg", { width: places.width, height: places.height, "aria-hidden": "true" },
        s("defs", null, s("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" }, s("path", { d: "M0 0L8 4L0 8Z" }))),
        edges.map((edge, index) => way(edge, places.paths[index], vertices[edge.source]))),
      vertices.map((vertex) => node(job, vertex, places.nodes.get(vertex.vertex), chosen === vertex.vertex, choose))));
}

function way(edge, { line, label }, source) {
  const text = (words, y) => s("text", { x: label.x, y }, words.length > 13 ? `${words.slice(0, 12)}…` : words);
  return [s("path", { d: line, "marker-end": "url(#arrow)", class: source.pressed > HIGH ? "pressed" : null }), text(edge.partitioning.toUpperCase(), label.y), edge.tag && text(edge.tag, label.y + 20)];
}

function node(job, vertex, { x, y }, isChosen, choose) {
  const behind = lag(job.now_ms, vertex.watermark);
  const time = vertex.watermark === null ? UNKNOWN : behind === null ? watermark(vertex.watermark) : behind < 0 ? `${duration(-behind)} ahead` : `${duration(behind)} behind`;
  const line = (...parts) => h("span", { class: "line" }, parts);
  return h("button", {
    type: "button",
    class: `node${vertex.pressed > HIGH ? " pressed" : ""}`,
    "data-key": vertex.vertex,
    "aria-pressed": isChosen ? "true" : "false",
    title: vertex.name,
    style: { left: `${x}px`, top: `${y}px`, width: `${NODE.width}px`, height: `${NODE.height}px`, "--busy-share": String(Math.round((vertex.busy ?? 0) * 100)) },
    onclick: () => choose(vertex.vertex),
  },
  h("span", { class: "name" }, vertex.name),
  line(h("span", null, "in ", h("b", null, vertex.recordsIn === null ? UNKNOWN : rate(vertex.recordsIn))), h("span", null, "out ", h("b", null, vertex.recordsOut === null ? UNKNOWN : rate(vertex.recordsOut)))),
  share(vertex.busy, vertex.pressed),
  h("span", null,
    line(h("span", null, "busy ", h("b", null, percent(vertex.busy)), " · pressed ", h("b", null, percent(vertex.pressed))), h("span", null, `${vertex.running}/${vertex.parallelism}`)),
    line(h("span", null, "watermark ", h("b", null, time)))));
}
