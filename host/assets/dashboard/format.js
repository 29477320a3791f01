// Numbers and times for people.

const COUNTS = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
const BYTES = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];
const whole = new Intl.NumberFormat("en-US");

const short = (value) => (value >= 100 ? Math.round(value).toString() : value >= 10 ? value.toFixed(1) : value.toFixed(2)).replace(/\.0+$/, "");

// 12345 -> 12.3 k
export function count(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const [size, unit] = COUNTS.find(([size]) => Math.abs(value) >= size) ?? [1, ""];
  if (size === 1) return Number.isInteger(value) || value >= 100 ? Math.round(value).toString() : short(value);
  return `${short(value / size)} ${unit}`;
}

// 12345 -> 12,345
export const exact = (value) => (value === null || value === undefined ? "–" : whole.format(value));

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const [size, unit] = BYTES.find(([size]) => value >= size) ?? [1, "B"];
  return size === 1 ? `${Math.round(value)} B` : `${short(value / size)} ${unit}`;
}

export const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(share * 100)} %`);

// Milliseconds -> 2 h 5 min
export function duration(millis) {
  if (millis === null || millis === undefined || millis < 0) return "–";
  const seconds = millis / 1000;
  if (seconds < 1) return `${Math.round(millis)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const [minutes, hours, days] = [Math.floor(seconds / 60), Math.floor(seconds / 3600), Math.floor(seconds / 86400)];
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${days} d ${hours % 24} h`;
}

// Event time may be ahead of the clock: a negative lag.
export function lag(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  return seconds < 0 ? `${duration(-seconds * 1000)} ahead` : duration(seconds * 1000);
}

const clock = new Intl.DateTimeFormat(undefined, {hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23"});
const day = new Intl.DateTimeFormat(undefined, {year: "numeric", month: "short", day: "numeric"});

// The time of day; before today with the day.
export function time(millis) {
  if (!millis || millis < 0) return "–";
  const then = new Date(millis);
  const today = then.toDateString() === new Date().toDateString();
  return today ? clock.format(then) : `${day.format(then)}, ${clock.format(then)}`;
}

export const plural = (n, word) => `${exact(n)} ${word}${n === 1 ? "" : "s"}`;

// sources.readings -> readings
export const nameOf = (path) => path.slice(path.indexOf(".") + 1);

const TONES = {
  RUNNING: "good", FINISHED: "accent", FAILED: "bad", FAILING: "bad", RESTARTING: "warn", CANCELLING: "warn", CREATED: "warn", INITIALIZING: "warn",
};
const WORDS = {
  CREATED: "Waiting", INITIALIZING: "Starting", RUNNING: "Running", FAILING: "Failing", FAILED: "Failed", CANCELLING: "Cancelling", CANCELED: "Cancelled",
  FINISHED: "Finished", RESTARTING: "Restarting",
};
export const tone = (state) => TONES[state] ?? "calm";
export const word = (state) => WORDS[state] ?? state;
export const isOver = (state) => ["FINISHED", "FAILED", "CANCELED"].includes(state);
