import { describe, expect, test } from "vitest";
import * as format from "./format";

const NOW = new Date(2026, 0, 2, 12, 0, 0).getTime();

function table<T>(name: string, read: (input: T) => string, rows: [T, string][]) {
  describe(name, () => {
    test.each(rows)("%s → %s", (input, expected) => expect(read(input)).toBe(expected));
  });
}

table("duration", format.duration, [
  [0.35, "350 ms"], [0.9999, "1.00 s"], [2.1, "2.10 s"], [59.994, "59.99 s"], [59.999, "1 min 00 s"], [192, "3 min 12 s"],
  [3599.6, "1 h 00 min"], [3900, "1 h 05 min"], [null, "–"], [NaN, "–"],
]);

table("span", format.span, [
  [999, "now"], [1000, "1 s"], [59_999, "59 s"], [240_000, "4 min"], [7_200_000, "2 h"], [86_400_000, "1 day"], [200_000_000, "2 days"],
]);

table<number | null>("ago", (ms) => format.ago(ms, NOW), [
  [NOW, "now"], [NOW + 500, "now"], [NOW - 12_400, "12 s ago"], [NOW - 3_600_000, "1 h ago"], [null, "–"],
  [new Date(2023, 10, 14, 9, 3, 7).getTime(), "2023-11-14 09:03:07"], [NOW + 600_000, "12:10:00"],
]);

table<number>("moment", (ms) => format.moment(ms, NOW), [
  [NOW - 1000, "11:59:59"], [NOW - 86_400_000, "2026-01-01 12:00:00"],
]);

table("percent", format.percent, [[0.4, "40 %"], [1, "100 %"], [0, "0 %"], [0.004, "< 1 %"], [null, "–"], [NaN, "–"]]);

table("health", format.health, [
  [97.13, "97.1"], [100, "100"], [99.99, "99.9"], [59.97, "59.9"], [60, "60.0"], [97.1, "97.1"], [0, "0.0"], [null, "–"],
]);

table("quantity", format.quantity, [
  [0, "0"], [1.23456, "1.235"], [12.3456, "12.35"], [123.456, "123.5"], [12345.6, "12346"], [-0.5, "−0.500"], [2.5e7, "2.50e+7"],
  [-1.5e-5, "−1.50e−5"], [null, "–"], [Infinity, "–"],
]);

table("count", format.count, [[0, "0"], [999, "999"], [1234567, "1\u202f234\u202f567"]]);

test("clock with milliseconds", () => expect(format.clock(NOW + 7, true)).toBe("12:00:00.007"));
