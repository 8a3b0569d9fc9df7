// The first fault: of all that failed together the one that was first, what it took with it and how long that lasted. Pure.

/** Outages of a job, the newest first: `{ first, others, from, to, restored }`. `to` is missing while it lasts. */
export function outages(job) {
  const found = [];
  for (const failure of job.failures) {
    const last = found[0];
    // What fails in the same attempt, or before the job runs again, belongs together.
    const belongs = last && (last.first.attempt === failure.attempt || last.to === null || failure.time_ms < last.to);
    if (belongs) last.others.push(failure);
    else found.unshift({ first: failure, others: [], ...span(job, failure) });
  }
  return found;
}

/** From when until when the job did not run because of a failure. */
function span(job, failure) {
  const left = job.history.find((change) => change.from === "RUNNING" && change.to !== "FINISHED" && change.time_ms >= failure.time_ms - 2000);
  if (!left) return { from: failure.time_ms, to: null, change: null };
  const back = job.history.find((change) => change.to === "RUNNING" && change.time_ms >= left.time_ms);
  return { from: left.time_ms, to: back ? back.time_ms : null, change: left, attempt: back?.attempt ?? null };
}

/** Whose fault it is, in words. */
export function fault(failure) {
  return { User: "the job's code or settings", External: "something outside: a machine, a network, a store", Internal: "Thalweg itself; please report it" }[failure.fault] ?? failure.fault;
}
