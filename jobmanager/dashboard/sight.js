// What the figures of a job mean: for each vertex what its subtasks do together, which are sources, where the sinks are. Pure: from two
// answers of the job manager, because rates of single operators are the difference of their totals.

const sum = (values) => values.reduce((total, value) => total + value, 0);
const most = (values) => values.length ? Math.max(...values) : null;
const known = (values) => values.filter((value) => value !== null && value !== undefined);

/** The least, the mean and the greatest of the values that are known, and how uneven they are: the greatest by the mean. */
export function spread(values) {
  const all = known(values);
  if (!all.length) return null;
  const mean = sum(all) / all.length;
  return { min: Math.min(...all), mean, max: Math.max(...all), skew: mean > 0 ? Math.max(...all) / mean : 1 };
}

/** The vertices of a job with what they do. `before` is an earlier answer, or nothing. */
export function sight(job, before) {
  return job.vertices.map((vertex) => {
    const metric = (name) => known(vertex.subtasks.map((task) => task.metrics[name]));
    const total = (name) => metric(name).length ? sum(metric(name)) : null;
    const share = (name) => metric(name).length ? most(metric(name)) / 1000 : null;
    const watermarks = known(vertex.subtasks.map((task) => task.current_output_watermark));
    const inputs = job.plan.edges.filter((edge) => edge.target === vertex.vertex);
    const outputs = job.plan.edges.filter((edge) => edge.source === vertex.vertex);
    return {
      ...vertex,
      inputs,
      outputs,
      operators: operators(job, vertex, outputs, before?.vertices[vertex.vertex]),
      recordsIn: total("numRecordsInPerSecond"),
      recordsOut: total("numRecordsOutPerSecond"),
      busy: share("busyTimeMsPerSecond"),
      pressed: share("backPressuredTimeMsPerSecond"),
      // A vertex whose every subtask has told one.
      watermark: watermarks.length === vertex.subtasks.length ? Math.min(...watermarks) : null,
      running: vertex.subtasks.filter((task) => task.status === "RUNNING" || task.status === "DRAINED").length,
      isSource: inputs.every((edge) => edge.partitioning === "splits") && !outputs.some((edge) => edge.partitioning === "splits"),
    };
  });
}

function operators(job, vertex, outputs, before) {
  const planned = job.plan.vertices[vertex.vertex]?.operators ?? [];
  return planned.map((operator, position) => {
    const of = (task) => task.operators.find((counted) => counted.position === position);
    const all = (name) => sum(vertex.subtasks.map((task) => of(task)?.[name] ?? 0));
    const isRead = planned.some((other, place) => place > 0 && other.inputs.includes(position)) || outputs.some((edge) => edge.source_operator === position);
    const rate = (name) => rateOf(vertex, before, (task) => of(task)?.[name]);
    return {
      ...operator,
      position,
      isSink: !isRead,
      recordsIn: all("records_in"),
      recordsOut: all("records_out"),
      late: all("late_records_dropped"),
      unreadable: all("records_in_errors"),
      memory: all("managed_memory_used_bytes"),
      inPerSecond: rate("records_in"),
      outPerSecond: rate("records_out"),
      metrics: vertex.subtasks.flatMap((task) => (of(task)?.metrics ?? []).map((metric) => ({ subtask: task.subtask.index, ...metric }))),
    };
  });
}

const time = (task) => task.busy_ns + task.idle_ns + task.back_pressured_ns;

/** How fast a total of a vertex has grown since an earlier answer, by the clocks of its tasks. */
function rateOf(vertex, before, total) {
  const rates = vertex.subtasks.map((task, index) => {
    const earlier = before?.subtasks[index];
    if (!earlier || earlier.attempt !== task.attempt || time(task) <= time(earlier)) return null;
    return Math.max(0, (total(task) ?? 0) - (total(earlier) ?? 0)) / ((time(task) - time(earlier)) / 1e9);
  });
  return known(rates).length ? sum(known(rates)) : null;
}
