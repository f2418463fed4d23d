import { describe, expect, test } from "vitest";
import type { CycleSignal } from "../messages";
import { ranked } from "./CycleDetail";
import { topSignals } from "./CycleTable";
import { connectionText } from "./Header";
import { hashOf, machineOf } from "./address";
import { steadyRange } from "./range";

const signal = (name: string, rank: number | null, contribution: number | null): CycleSignal => ({
  signal: name, rank, contribution, distance: null, distance_units: null, mean: null, min: null, max: null, missing: 0,
});

test("signals stand by rank, those without one last", () => {
  const list = [signal("b", null, null), signal("c", 2, 0.2), signal("a", null, null), signal("d", 1, 0.8)];
  expect(ranked(list).map((s) => s.signal)).toEqual(["d", "c", "a", "b"]);
  expect(topSignals(list)).toBe("d 80 % · c 20 %");
  expect(topSignals([signal("a", null, null)])).toBe("");
});

test("the address keeps any machine's name", () => {
  for (const name of ["press-1", "Presse 2/a #3 %", "压机"]) expect(machineOf(hashOf(name))).toBe(name);
  expect(machineOf("")).toBeNull();
  expect(machineOf("#%E0%A4%A")).toBeNull();
});

describe("the connection in words", () => {
  const open = { phase: "open", since: 0 } as const;
  const check = (connection: Parameters<typeof connectionText>[0]["connection"], last: number | null, now: number, tone: string, text: RegExp) => {
    const said = connectionText({ connection, lastMessageAt: last, now });
    expect(said.tone).toBe(tone);
    expect(said.text).toMatch(text);
  };

  test("says live, stale, waiting and lost", () => {
    check(open, null, 0, "wait", /^connected, waiting for data$/);
    check(open, 1000, 2000, "good", /^live$/);
    check(open, 1000, 13_000, "wait", /^no new data for 12 s · data as of \d\d:/);
    check({ phase: "lost", retryAt: 5000 }, null, 2100, "bad", /^connection lost, next try in 3 s$/);
    check({ phase: "lost", retryAt: 5000 }, 1, 9000, "bad", /next try in 0 s · data as of/);
    check({ phase: "connecting" }, null, 0, "wait", /^connecting…$/);
  });
});

test("the y range grows at once, shrinks late, and gives a constant room", () => {
  const range = steadyRange();
  expect(range(null, null)).toEqual([0, 1]);
  const wide = range(0, 100);
  expect(wide).toEqual([-12, 112]);
  expect(range(10, 90)).toBe(wide);
  expect(range(10, 113)[1]).toBeGreaterThan(113);
  expect(range(40, 60)).toEqual([37.6, 62.4]);
  expect(steadyRange()(5, 5)).toEqual([4.5, 5.5]);
  expect(steadyRange()(0, 0)).toEqual([-1, 1]);
});
