// Tables: sorted by a click on a heading, walked through by keys. Rows keep their place in the document by their key, so that the
// focus stays in the row while figures change.

import { h } from "./dom.js";
import { draw } from "./live.js";

/** By the name of a table: which column sorts it, and whether downwards. */
const orders = new Map();

/**
 * A table. `columns` have `name`, `cell(row)`, and if they can sort `value(row)`; `number` aligns them to the right, `hint` explains
 * them. `key(row)` names a row; `open(row)` is what Enter and a click do; `foot` is a list of rows of cells.
 */
export function table({ name, label, columns, rows, key, open, selected, empty, foot }) {
  if (rows.length === 0) return h("p", { class: "empty" }, empty);
  const order = orders.get(name);
  const sorted = order ? [...rows].sort(compare(columns[order.column], order.down)) : rows;
  return h("div", { class: "scroll" },
    h("table", { "aria-label": label },
      h("thead", null, h("tr", null, columns.map((column, index) => heading(name, column, index, order)))),
      h("tbody", null, sorted.map((row) => body(row, columns, key, open, selected))),
      foot && h("tfoot", null, foot.map((cells) => h("tr", null,
        cells.map((cell, index) => h("td", { class: (columns[index]?.number || columns[index]?.show) && "number" }, cell)))))));
}

function heading(name, column, index, order) {
  const isSorting = order?.column === index;
  const sort = () => {
    orders.set(name, { column: index, down: isSorting ? !order.down : column.number === true });
    draw();
  };
  return h("th", {
    scope: "col",
    class: column.number && "number",
    title: column.hint,
    "aria-sort": isSorting && (order.down ? "descending" : "ascending"),
  }, column.value ? h("button", { type: "button", onclick: sort }, column.name) : column.name);
}

function body(row, columns, key, open, selected) {
  const go = open && (() => open(row));
  return h("tr", {
    "data-key": key(row),
    "data-row": true,
    tabindex: go ? "0" : null,
    "aria-selected": selected && (selected(row) ? "true" : "false"),
    onclick: go && ((event) => event.target.closest("a, button") || go()),
    onkeydown: go && ((event) => {
      if (event.key === "Enter" && event.target === event.currentTarget) go();
    }),
  }, columns.map((column) => h("td", { class: [column.number && "number", column.class].filter(Boolean).join(" ") || null }, column.cell(row))));
}

function compare(column, down) {
  return (one, other) => {
    const [left, right] = [column.value(one) ?? -Infinity, column.value(other) ?? -Infinity];
    const order = left < right ? -1 : left > right ? 1 : 0;
    return down ? -order : order;
  };
}
