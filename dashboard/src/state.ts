/** What the page knows, as a pure function of what happened on the socket. */

import type { Cycle, Machine, OpenAlert, Sample, ServerMessage, Step } from "./messages";

/** The live charts show this much. */
export const WINDOW_MS = 30_000;
/** The server sends as many on a reset; the table and the trend hold as many. */
export const MAX_CYCLES = 100;
/** Without a message for this long the data counts as stale. */
export const STALE_MS = 5_000;
/** A line is not drawn across a longer silence. */
export const GAP_MS = 2_000;
/** Time that goes back further is a source that started again, not an overlap. */
const RESTART_MS = 5_000;
/** Bounds memory whatever the sampling rate. */
const MAX_POINTS = 60_000;

/** One signal's recent samples, oldest first, times strictly rising. */
export interface Trace {
  t: number[];
  v: (number | null)[];
}

export type Connection =
  | { phase: "connecting" }
  | { phase: "open"; since: number }
  | { phase: "lost"; retryAt: number };

/** Null where the server has not said anything yet: not the same as an empty list. */
export interface LiveState {
  connection: Connection;
  lastMessageAt: number | null;
  pipeline: { name: string; steps: Step[] } | null;
  machines: Machine[] | null;
  alerts: OpenAlert[] | null;
  watched: string | null;
  /** Of the watched machine, newest first. */
  cycles: Cycle[] | null;
  /** Of the watched machine, by signal. */
  traces: Record<string, Trace>;
  /** Newest sample time over the watched machine's signals. */
  newest: number | null;
}

export type Action =
  | { kind: "connecting" }
  | { kind: "opened"; at: number }
  | { kind: "lost"; retryAt: number }
  | { kind: "watch"; machine: string | null }
  | { kind: "message"; at: number; message: ServerMessage };

export const INITIAL: LiveState = {
  connection: { phase: "connecting" },
  lastMessageAt: null,
  pipeline: null,
  machines: null,
  alerts: null,
  watched: null,
  cycles: null,
  traces: {},
  newest: null,
};

export function reduce(state: LiveState, action: Action): LiveState {
  switch (action.kind) {
    case "connecting":
      return { ...state, connection: { phase: "connecting" } };
    case "opened":
      return { ...state, connection: { phase: "open", since: action.at } };
    case "lost":
      return { ...state, connection: { phase: "lost", retryAt: action.retryAt } };
    case "watch":
      if (action.machine === state.watched) return state;
      return { ...state, watched: action.machine, cycles: null, traces: {}, newest: null };
    case "message":
      return receive({ ...state, lastMessageAt: action.at }, action.message);
  }
}

function receive(state: LiveState, message: ServerMessage): LiveState {
  switch (message.type) {
    case "pipeline":
      return { ...state, pipeline: { name: message.name, steps: message.steps } };
    case "machines":
      return { ...state, machines: [...message.machines].sort(byName) };
    case "alerts":
      return { ...state, alerts: [...message.alerts].sort(mostPressingFirst) };
    case "cycles":
      // A frame of the machine watched before may still be on its way.
      if (message.machine !== state.watched) return state;
      return { ...state, cycles: mergeCycles(message.reset ? [] : (state.cycles ?? []), message.cycles) };
    case "samples":
      if (message.machine !== state.watched) return state;
      return { ...state, ...appendSamples(state, message.signals) };
  }
}

const names = new Intl.Collator("en", { numeric: true });

function byName(a: Machine, b: Machine): number {
  return names.compare(a.machine, b.machine);
}

const PRESSING = { critical: 0, warning: 1, info: 2 };

function mostPressingFirst(a: OpenAlert, b: OpenAlert): number {
  return PRESSING[a.severity] - PRESSING[b.severity] || b.opened_ms - a.opened_ms;
}

function mergeCycles(known: Cycle[], arrived: Cycle[]): Cycle[] {
  const byKey = new Map<string, Cycle>();
  for (const cycle of [...known, ...arrived]) byKey.set(cycleKey(cycle), cycle);
  return [...byKey.values()].sort((a, b) => b.start_ms - a.start_ms).slice(0, MAX_CYCLES);
}

/** A phase and its outer cycle may share the id's start, so the step belongs to the key. */
export function cycleKey(cycle: Cycle): string {
  return `${cycle.cycle_id} ${cycle.step}`;
}

type Traces = Pick<LiveState, "traces" | "newest">;

function appendSamples(state: Traces, arrived: Record<string, Sample[]>): Traces {
  const chunks = Object.entries(arrived).filter(([, samples]) => samples.length > 0);
  const restarted = chunks.some(([signal, samples]) => {
    const known = state.traces[signal]?.t.at(-1);
    const last = samples.at(-1);
    return known !== undefined && last !== undefined && last[0] < known - RESTART_MS;
  });
  const before: Traces = restarted ? { traces: {}, newest: null } : state;
  const newest = chunks.reduce((max, [, samples]) => Math.max(max, samples.at(-1)?.[0] ?? max), before.newest ?? -Infinity);
  if (newest === -Infinity) return before;
  const traces = { ...before.traces };
  for (const [signal, samples] of chunks) traces[signal] = append(traces[signal], samples, newest - WINDOW_MS);
  return { traces, newest };
}

/** Adds what is newer than the trace and drops what has left the window. */
function append(trace: Trace | undefined, samples: Sample[], from: number): Trace {
  const t = trace ? trace.t.slice() : [];
  const v = trace ? trace.v.slice() : [];
  for (const [ms, value] of samples) {
    const last = t.at(-1);
    if (last !== undefined && ms <= last) continue;
    if (last !== undefined && ms - last > GAP_MS) {
      t.push(last + 1);
      v.push(null);
    }
    t.push(ms);
    v.push(value);
  }
  // One sample before the window stays, so that the line reaches the chart's edge.
  const first = Math.max(0, firstAtOrAfter(t, from) - 1, t.length - MAX_POINTS);
  return { t: t.slice(first), v: v.slice(first) };
}

function firstAtOrAfter(t: number[], ms: number): number {
  let low = 0;
  let high = t.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((t[middle] ?? 0) < ms) low = middle + 1;
    else high = middle;
  }
  return low;
}
