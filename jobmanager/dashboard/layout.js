// Where the vertices of a job graph stand: columns by the longest way from a source, within them an order that crosses few edges, and
// heights that keep edges straight. Pure. An edge over several columns passes between their vertices.

export const NODE = { width: 236, height: 118 };
const GAP = { x: 88, y: 22 };
const SWEEPS = 8;

/** Places of `vertices` (by number) and the ways of `edges`, each `{source, target}` with the lower number first. */
export function layout(vertices, edges) {
  const column = columns(vertices, edges);
  const columnsOf = new Map();
  const items = [];
  const add = (item) => {
    items.push(item);
    if (!columnsOf.has(item.column)) columnsOf.set(item.column, []);
    columnsOf.get(item.column).push(item);
    return item;
  };
  const byVertex = new Map(vertices.map((vertex) => [vertex, add({ vertex, column: column.get(vertex), before: [], behind: [], height: NODE.height })]));
  const ways = edges.map((edge) => {
    const way = [byVertex.get(edge.source)];
    for (let at = column.get(edge.source) + 1; at < column.get(edge.target); at += 1) way.push(add({ column: at, before: [], behind: [], height: 8 }));
    way.push(byVertex.get(edge.target));
    for (let step = 1; step < way.length; step += 1) {
      way[step - 1].behind.push(way[step]);
      way[step].before.push(way[step - 1]);
    }
    return way;
  });
  const rows = [...columnsOf.keys()].sort((one, other) => one - other).map((key) => columnsOf.get(key));
  order(rows);
  const height = place(rows);
  for (const item of items) item.x = item.column * (NODE.width + GAP.x);
  return {
    width: rows.length * (NODE.width + GAP.x) - GAP.x,
    height,
    nodes: new Map([...byVertex].map(([vertex, item]) => [vertex, { x: item.x, y: item.y }])),
    paths: ways.map(path),
  };
}

/** The column of each vertex. Sources stand right in front of their first reader. */
function columns(vertices, edges) {
  const column = new Map(vertices.map((vertex) => [vertex, 0]));
  const ordered = [...edges].sort((one, other) => one.source - other.source);
  for (const { source, target } of ordered) column.set(target, Math.max(column.get(target), column.get(source) + 1));
  for (const vertex of vertices) {
    const targets = edges.filter((edge) => edge.source === vertex).map((edge) => column.get(edge.target));
    if (targets.length && !edges.some((edge) => edge.target === vertex)) column.set(vertex, Math.min(...targets) - 1);
  }
  return column;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Sorts each column by the middle of its neighbours, from the left and from the right in turn. */
function order(rows) {
  const number = () => rows.forEach((row) => row.forEach((item, index) => { item.index = index; }));
  number();
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const side = sweep % 2 === 0 ? "before" : "behind";
    for (const row of sweep % 2 === 0 ? rows : [...rows].reverse()) {
      const middle = (item) => item[side].length ? mean(item[side].map((other) => other.index)) : item.index;
      const middles = new Map(row.map((item) => [item, middle(item)]));
      row.sort((one, other) => middles.get(one) - middles.get(other) || one.index - other.index);
      row.forEach((item, index) => { item.index = index; });
    }
  }
}

/** Gives every item its height: near its neighbours, none over another. Returns how high all of it is. */
function place(rows) {
  for (const row of rows) stack(row, () => 0);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const side = sweep % 2 === 0 ? "before" : "behind";
    for (const row of sweep % 2 === 0 ? rows : [...rows].reverse()) {
      stack(row, (item) => {
        const others = item[side].length ? item[side] : sweep < 2 ? [] : [item];
        return others.length ? mean(others.map((other) => other.y + other.height / 2)) - item.height / 2 : item.y ?? 0;
      });
    }
  }
  const all = rows.flat();
  const top = Math.min(...all.map((item) => item.y));
  for (const item of all) item.y -= top;
  return Math.max(...all.map((item) => item.y + item.height));
}

/** Puts a column's items where they want to be, as far as their order and the room between them allow. */
function stack(row, wanted) {
  const wishes = row.map(wanted);
  let from = -Infinity;
  row.forEach((item, index) => {
    item.y = Math.max(wishes[index], from);
    from = item.y + item.height + GAP.y;
  });
  // What was pushed down moves half of the way back, so that the column stands in the middle of its wishes.
  const shift = mean(row.map((item, index) => item.y - wishes[index]));
  if (Number.isFinite(shift)) for (const item of row) item.y -= shift;
}

/** A smooth line through the items of a way, from the right side of the first to the left side of the last. */
function path(way) {
  const middle = (item) => item.y + item.height / 2;
  let [x, y] = [way[0].x + NODE.width, middle(way[0])];
  let line = `M${x} ${y}`;
  for (const item of way.slice(1)) {
    const [toX, toY] = [item.x, middle(item)];
    const half = (x + toX) / 2;
    line += `C${half} ${y} ${half} ${toY} ${toX} ${toY}`;
    [x, y] = [toX, toY];
    if (item.vertex === undefined) {
      x += NODE.width;
      line += `H${x}`;
    }
  }
  const first = way[1];
  return { line, label: { x: (way[0].x + NODE.width + first.x) / 2, y: (middle(way[0]) + middle(first)) / 2 - 6 } };
}
