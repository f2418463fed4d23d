/** Numbers and times as people read them. A missing value is always an en dash. */

export const NONE = "–";

const two = (n: number) => String(n).padStart(2, "0");

/** Local time of day: `09:03:07`, with `millis` `09:03:07.250`. */
export function clock(ms: number, millis = false): string {
  const d = new Date(ms);
  const seconds = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return millis ? `${seconds}.${String(d.getMilliseconds()).padStart(3, "0")}` : seconds;
}

/** Time of day for today, with the date before it for any other day. */
export function moment(ms: number, now: number): string {
  const d = new Date(ms);
  if (d.toDateString() === new Date(now).toDateString()) return clock(ms);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${clock(ms)}`;
}

/** `350 ms`, `2.10 s`, `3 min 12 s`, `1 h 05 min`. */
export function duration(seconds: number | null): string {
  if (seconds === null || !Number.isFinite(seconds)) return NONE;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.995) return `${seconds.toFixed(2)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

/** A coarse length of time: `now`, `12 s`, `4 min`, `3 h`, `2 days`. */
export function span(ms: number): string {
  const s = Math.floor(ms / 1000);
  if (s < 1) return "now";
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h`;
  const days = Math.floor(s / 86_400);
  return days === 1 ? "1 day" : `${days} days`;
}

/** How long ago; a replay's times far away are given as they stand. */
export function ago(ms: number | null, now: number): string {
  if (ms === null) return NONE;
  const past = now - ms;
  if (past < -60_000 || past > 7 * 86_400_000) return moment(ms, now);
  const length = span(Math.max(0, past));
  return length === "now" ? length : `${length} ago`;
}

/** A share 0..1 as whole percent; a small share is not called zero. */
export function percent(share: number | null): string {
  if (share === null || !Number.isFinite(share)) return NONE;
  if (share > 0 && share < 0.005) return "< 1 %";
  return `${Math.round(share * 100)} %`;
}

/** A health 0–100 with one digit, cut and not rounded: 59.97 is below the limit of 60 and must read so. */
export function health(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return NONE;
  return value >= 100 ? "100" : (Math.floor(value * 10 + 1e-9) / 10).toFixed(1);
}

/** A measured value with about four digits that count. */
export function quantity(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return minus(value.toExponential(2));
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3;
  return minus(value.toFixed(digits));
}

/** Whole numbers with thin gaps between thousands. */
export function count(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

function minus(digits: string): string {
  return digits.replaceAll("-", "\u2212");
}
