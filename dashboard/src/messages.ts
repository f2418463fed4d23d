/** The messages of the WebSocket `/api/live`: JSON text frames, times in milliseconds since 1970. */

export type Risk = "low" | "medium" | "high" | "unknown";
export type Severity = "info" | "warning" | "critical";

export interface Step {
  name: string;
  kind: string;
  from: string[];
  table?: string | null;
}

export interface Machine {
  machine: string;
  last_ms: number | null;
  cycles: number;
  /** 0–100; null where no score is supported yet. */
  health: number | null;
  risk: Risk;
  open_alerts: number;
}

export interface CycleSignal {
  signal: string;
  /** 1 is the signal that differs most. */
  rank: number | null;
  /** Share 0..1; the signals of a cycle sum to 1. */
  contribution: number | null;
  /** In the signal's own measure. */
  distance: number | null;
  /** In units of the reference's own spread, so that signals compare. */
  distance_units: number | null;
  mean: number | null;
  min: number | null;
  max: number | null;
  missing: number;
}

export interface Cycle {
  cycle_id: string;
  step: string;
  start_ms: number;
  end_ms: number;
  duration_s: number;
  /** `complete`, `timeout`, `gap`, `truncated` or `short`. */
  outcome: string;
  samples: number;
  missing: number;
  /** `compared`, `learning`, `not complete`, `no reference`; null without a compare step. */
  comparison: string | null;
  health: number | null;
  risk: Risk;
  deviation: number | null;
  signals: CycleSignal[];
}

export interface OpenAlert {
  alert_id: string;
  machine: string;
  step: string;
  severity: Severity;
  opened_ms: number;
  top_signal: string | null;
  message: string;
}

/** One sample: time in ms and value; null is a missing value. */
export type Sample = [ms: number, value: number | null];

export type ServerMessage =
  | { type: "pipeline"; name: string; steps: Step[] }
  | { type: "machines"; machines: Machine[] }
  | { type: "cycles"; machine: string; reset: boolean; cycles: Cycle[] }
  | { type: "samples"; machine: string; signals: Record<string, Sample[]> }
  | { type: "alerts"; alerts: OpenAlert[] };

/** Which machine's cycles and samples to send; null stops. */
export interface Watch {
  watch: string | null;
}

/** The field that a message of each type cannot do without. */
const BODY: Record<ServerMessage["type"], (m: Record<string, unknown>) => boolean> = {
  pipeline: (m) => typeof m["name"] === "string" && Array.isArray(m["steps"]),
  machines: (m) => Array.isArray(m["machines"]),
  cycles: (m) => typeof m["machine"] === "string" && Array.isArray(m["cycles"]),
  samples: (m) => typeof m["machine"] === "string" && typeof m["signals"] === "object" && m["signals"] !== null,
  alerts: (m) => Array.isArray(m["alerts"]),
};

/** Reads one frame. Null for anything else than a known message: a newer server may say more than this page knows. */
export function parseMessage(frame: unknown): ServerMessage | null {
  if (typeof frame !== "string") return null;
  let value: unknown;
  try {
    value = JSON.parse(frame);
  } catch {
    return null;
  }
  if (typeof value !== "object" || value === null) return null;
  const message = value as Record<string, unknown>;
  const type = message["type"];
  if (typeof type !== "string" || !Object.hasOwn(BODY, type)) return null;
  return BODY[type as ServerMessage["type"]](message) ? (message as unknown as ServerMessage) : null;
}
