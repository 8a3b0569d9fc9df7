// Numbers with their units, times and lengths of time, as people read them. Pure, but for the time zone of the browser.

/** What stands for something that is not known. */
export const UNKNOWN = "–";

/** The last watermark of all: the end of the input. JavaScript rounds it. */
const MAX_WATERMARK = 9.2e18;

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

/** Three significant digits, and no more than there are. */
function short(value) {
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return String(Number(value.toFixed(size >= 10 ? 1 : 2)));
}

function scaled(value, base, units) {
  let unit = 0;
  while (Math.abs(value) >= base * 0.9995 && unit < units.length - 1) {
    value /= base;
    unit += 1;
  }
  return [short(value), units[unit]];
}

/** A count in full: `1,234,567`. */
export const count = (value) => known(value) ? Math.round(value).toLocaleString("en-US") : UNKNOWN;

/** A count in a few digits: `1.23 M`. */
export function brief(value) {
  if (!known(value)) return UNKNOWN;
  const [number, unit] = scaled(value, 1000, ["", " k", " M", " G", " T"]);
  return number + unit;
}

/** Records in a second: `12.3 k/s`. */
export const rate = (value) => known(value) ? `${brief(value)}/s` : UNKNOWN;

/** Bytes: `1.5 MiB`. */
export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  const [number, unit] = scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
  return `${number} ${unit}`;
}

/** Percent of a share from 0 to 1. */
export const percent = (share) => known(share) ? `${Math.round(share * 100)} %` : UNKNOWN;

/** A length of time in milliseconds: `350 ms`, `12.5 s`, `3 min 4 s`, `2 h 5 min`. */
export function duration(ms) {
  if (!known(ms)) return UNKNOWN;
  if (ms < 0) return `-${duration(-ms)}`;
  if (ms < 1000) return `${short(ms)} ms`;
  if (ms < 60_000) return `${short(Math.round(ms / 100) / 10)} s`;
  const [days, hours, minutes, seconds] = [ms / 86_400_000, (ms / 3_600_000) % 24, (ms / 60_000) % 60, (ms / 1000) % 60].map(Math.floor);
  if (days > 0) return `${days} d ${hours} h`;
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${seconds} s`;
}

const two = (value) => String(value).padStart(2, "0");

/** The time of the day: `21:14:03`. */
export function clock(ms) {
  const time = new Date(ms);
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

/** A moment: `2026-11-21 21:14:03`. */
export function moment(ms) {
  if (!known(ms)) return UNKNOWN;
  const time = new Date(ms);
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${clock(ms)}`;
}

/** How long ago: `12 s ago`, `just now`. */
export function ago(now, ms) {
  if (!known(ms)) return UNKNOWN;
  const seconds = Math.max(0, Math.round((now - ms) / 1000));
  return seconds === 0 ? "just now" : `${duration(seconds * 1000)} ago`;
}

/** A watermark in event time. */
export function watermark(ms) {
  if (!known(ms)) return "none yet";
  if (ms >= MAX_WATERMARK) return "end of the input";
  // Event time may be counters, or far from the calendar.
  return Math.abs(ms) > 8.64e15 ? String(ms) : ms < 86_400_000 * 365 ? `${count(ms)} ms` : moment(ms);
}

/** How far a watermark is behind the clock; nothing where that says nothing. */
export function lag(now, ms) {
  if (!known(ms) || ms >= MAX_WATERMARK || ms < 86_400_000 * 365) return null;
  return now - ms;
}
