import { describe, expect, test } from "vitest";
import type { Cycle, Machine, OpenAlert, Sample, ServerMessage } from "./messages";
import { GAP_MS, INITIAL, MAX_CYCLES, WINDOW_MS, reduce, type Action, type LiveState } from "./state";

const WATCHING = run(INITIAL, { kind: "watch", machine: "press-1" });

function run(from: LiveState, ...actions: Action[]): LiveState {
  return actions.reduce(reduce, from);
}

function say(from: LiveState, ...messages: ServerMessage[]): LiveState {
  return run(from, ...messages.map((message): Action => ({ kind: "message", at: 1, message })));
}

function cycle(n: number, more: Partial<Cycle> = {}): Cycle {
  return {
    cycle_id: `press-1@${n}`, step: "health", start_ms: n, end_ms: n + 1, duration_s: 0.001, outcome: "complete", samples: 1, missing: 0,
    comparison: "compared", health: 97, risk: "low", deviation: 1, signals: [], ...more,
  };
}

function cycles(reset: boolean, ...list: Cycle[]): ServerMessage {
  return { type: "cycles", machine: "press-1", reset, cycles: list };
}

function samples(...list: Sample[]): ServerMessage {
  return { type: "samples", machine: "press-1", signals: { pressure: list } };
}

describe("connection", () => {
  const check = (actions: Action[], expected: LiveState["connection"]) =>
    expect(run(INITIAL, ...actions).connection).toEqual(expected);

  test("opens, breaks, opens again", () => {
    check([{ kind: "opened", at: 5 }], { phase: "open", since: 5 });
    check([{ kind: "opened", at: 5 }, { kind: "lost", retryAt: 9 }], { phase: "lost", retryAt: 9 });
    check([{ kind: "lost", retryAt: 9 }, { kind: "connecting" }], { phase: "connecting" });
  });

  test("what was known stays on the page while the connection is lost", () => {
    const state = run(say(WATCHING, cycles(true, cycle(1))), { kind: "lost", retryAt: 9 });
    expect(state.cycles).toHaveLength(1);
    expect(state.lastMessageAt).toBe(1);
  });
});

describe("machines and alerts", () => {
  const machine = (name: string): Machine => ({ machine: name, last_ms: 1, cycles: 0, health: null, risk: "unknown", open_alerts: 0 });
  const alert = (id: string, severity: OpenAlert["severity"], opened_ms: number): OpenAlert => ({
    alert_id: id, machine: "m", step: "worn", severity, opened_ms, top_signal: null, message: "",
  });

  test("machines stand by name, numbers as numbers", () => {
    const state = say(INITIAL, { type: "machines", machines: ["press-10", "press-2", "dryer"].map(machine) });
    expect(state.machines?.map((m) => m.machine)).toEqual(["dryer", "press-2", "press-10"]);
  });

  test("the most severe alert is first, then the newest", () => {
    const alerts = [alert("a", "info", 9), alert("b", "warning", 1), alert("c", "critical", 1), alert("d", "warning", 2)];
    expect(say(INITIAL, { type: "alerts", alerts }).alerts?.map((a) => a.alert_id)).toEqual(["c", "d", "b", "a"]);
  });

  test("not told yet is not the same as none", () => {
    expect(INITIAL.alerts).toBeNull();
    expect(say(INITIAL, { type: "alerts", alerts: [] }).alerts).toEqual([]);
  });
});

describe("cycles", () => {
  const check = (messages: ServerMessage[], starts: number[] | null) =>
    expect(say(WATCHING, ...messages).cycles?.map((c) => c.start_ms) ?? null).toEqual(starts);

  test("newest first, whatever the order of arrival", () => {
    check([], null);
    check([cycles(true)], []);
    check([cycles(true, cycle(1), cycle(2))], [2, 1]);
    check([cycles(true, cycle(2), cycle(1)), cycles(false, cycle(3))], [3, 2, 1]);
    check([cycles(false, cycle(3)), cycles(false, cycle(2))], [3, 2]);
  });

  test("a reset replaces, a repeated cycle is not listed twice", () => {
    check([cycles(true, cycle(1)), cycles(true, cycle(5))], [5]);
    check([cycles(true, cycle(1)), cycles(false, cycle(1))], [1]);
    check([cycles(true, cycle(1)), cycles(false, cycle(1, { step: "phases" }))], [1, 1]);
  });

  test("the list is bounded", () => {
    const many = Array.from({ length: MAX_CYCLES + 20 }, (_, i) => cycle(i));
    const state = say(WATCHING, cycles(true, ...many), cycles(false, cycle(1000)));
    expect(state.cycles).toHaveLength(MAX_CYCLES);
    expect(state.cycles?.[0]?.start_ms).toBe(1000);
  });

  test("cycles of a machine that is no longer watched are ignored", () => {
    const state = say(run(WATCHING, { kind: "watch", machine: "press-2" }), cycles(true, cycle(1)));
    expect(state.cycles).toBeNull();
  });
});

describe("samples", () => {
  const check = (messages: ServerMessage[], t: number[], v: (number | null)[]) =>
    expect(say(WATCHING, ...messages).traces["pressure"]).toEqual({ t, v });

  test("increments are joined, overlaps dropped, missing values kept", () => {
    check([samples([0, 1], [10, null]), samples([20, 3])], [0, 10, 20], [1, null, 3]);
    check([samples([0, 1], [10, 2]), samples([0, 1], [10, 2], [20, 3])], [0, 10, 20], [1, 2, 3]);
    check([samples([0, 1], [0, 2])], [0], [1]);
  });

  test("a silence becomes a gap, not a line", () => {
    check([samples([0, 1], [GAP_MS, 2])], [0, GAP_MS], [1, 2]);
    check([samples([0, 1]), samples([GAP_MS + 1, 2])], [0, 1, GAP_MS + 1], [1, null, 2]);
  });

  test("what left the window is dropped, save one sample for the line to the edge", () => {
    const steps = Array.from({ length: 41 }, (_, i): Sample => [i * 1000, i]);
    const state = say(WATCHING, samples(...steps));
    expect(state.newest).toBe(40_000);
    expect(state.traces["pressure"]?.t[0]).toBe(40_000 - WINDOW_MS - 1000);
  });

  test("a source that starts again starts the charts again", () => {
    const other: ServerMessage = { type: "samples", machine: "press-1", signals: { speed: [[100_000, 1]] } };
    const state = say(WATCHING, samples([100_000, 1]), other, samples([0, 5], [10, 6]));
    expect(state.traces).toEqual({ pressure: { t: [0, 10], v: [5, 6] } });
    expect(state.newest).toBe(10);
  });

  test("empty frames change nothing", () => {
    const state = say(WATCHING, samples());
    expect(state.traces).toEqual({});
    expect(state.newest).toBeNull();
  });

  test("another machine starts empty; the same one keeps its data", () => {
    const state = say(WATCHING, samples([0, 1]), cycles(true, cycle(1)));
    expect(run(state, { kind: "watch", machine: "press-1" })).toBe(state);
    const moved = run(state, { kind: "watch", machine: "press-2" });
    expect([moved.traces, moved.cycles, moved.newest]).toEqual([{}, null, null]);
    expect(say(moved, samples([0, 1])).traces).toEqual({});
  });

  test("the state before is left as it was", () => {
    const before = say(WATCHING, samples([0, 1]));
    say(before, samples([10, 2]));
    expect(before.traces["pressure"]?.t).toEqual([0]);
  });
});
