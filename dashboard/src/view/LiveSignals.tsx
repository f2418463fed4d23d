import { useCallback, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type uPlot from "uplot";
import { clock, quantity } from "../format";
import { WINDOW_MS, type Trace } from "../state";
import { Chart, axis, type Colours } from "./Chart";
import { steadyRange } from "./range";

interface Props {
  machine: string | null;
  traces: Record<string, Trace>;
  newest: number | null;
}

export function LiveSignals({ machine, traces, newest }: Props) {
  const signals = Object.keys(traces).sort();
  // While another machine's first samples are on their way the place of its charts is kept.
  const grid = useRef<HTMLDivElement>(null);
  const height = useRef<number | undefined>(undefined);
  useLayoutEffect(() => {
    height.current = grid.current?.offsetHeight ?? height.current;
  });
  return (
    <section class="panel" aria-labelledby="live">
      <h2 id="live">
        {machine === null ? "Live signals" : `${machine}, live signals`} <span class="muted">last 30 s</span>
      </h2>
      {newest === null ? (
        <p class="empty live-empty" style={{ minHeight: height.current }}>
          {machine === null ? "Waiting for a machine." : `No samples of ${machine} yet: its signals appear with the first ones.`}
        </p>
      ) : (
        <div class="live" ref={grid}>
          {signals.map((signal) => (
            <LiveSignal key={`${machine} ${signal}`} signal={signal} trace={traces[signal] as Trace} newest={newest} />
          ))}
        </div>
      )}
    </section>
  );
}

function LiveSignal({ signal, trace, newest }: { signal: string; trace: Trace; newest: number }) {
  // uPlot's callbacks outlive a draw, so they read the window's end from here.
  const current = useRef(newest);
  current.current = newest;
  const [cursor, setCursor] = useState<number | null>(null);
  const data = useMemo<uPlot.AlignedData>(() => [trace.t, trace.v], [trace, newest]);
  const build = useCallback((colours: Colours) => options(colours, () => current.current, setCursor), []);
  return (
    <figure data-part="live-signal" data-signal={signal} data-samples={trace.t.length}>
      <figcaption>
        <b>{signal}</b>
        <span class="num">{reading(trace, newest, cursor)}</span>
      </figcaption>
      <Chart build={build} data={data} height={112} label={`${signal}, last 30 s, newest ${reading(trace, newest, null)}`} />
    </figure>
  );
}

/** The value and time at the cursor, or else the newest value. */
function reading(trace: Trace, newest: number, index: number | null): string {
  const at = index ?? trace.t.length - 1;
  const ms = trace.t[at];
  const value = trace.v[at];
  if (ms === undefined || ms < newest - WINDOW_MS) return "no samples";
  const text = value === null || value === undefined ? "missing" : quantity(value);
  return index === null ? text : `${text} at ${clock(ms, true)}`;
}

type Options = Omit<uPlot.Options, "width" | "height">;

function options(colours: Colours, newest: () => number, show: (index: number | null) => void): Options {
  const range = steadyRange();
  return {
    legend: { show: false },
    padding: [6, 20, 0, 0],
    cursor: {
      y: false,
      drag: { x: false, y: false },
      points: { size: 6 },
      sync: { key: "live", scales: ["x", null] },
    },
    scales: {
      x: { time: false, range: () => [newest() - WINDOW_MS, newest()] },
      y: { range: (_, low, high) => range(low, high) },
    },
    axes: [
      axis(colours, {
        size: 20,
        gap: 3,
        splits: () => [3, 2, 1, 0].map((n) => newest() - n * 10_000),
        values: () => ["\u221230 s", "\u221220 s", "\u221210 s", "newest"],
      }),
      axis(colours, { size: 46, gap: 4, space: 22, values: (_, ticks) => ticks.map(axisNumber) }),
    ],
    series: [{}, { stroke: colours.accent, width: 1.25, points: { show: false } }],
    hooks: {
      setCursor: [(u) => show(u.cursor.left !== undefined && u.cursor.left >= 0 ? (u.cursor.idx ?? null) : null)],
    },
  };
}

/** Short enough for the axis' fixed width. */
function axisNumber(value: number | null): string {
  if (value === null) return "";
  const size = Math.abs(value);
  const text = size !== 0 && (size >= 1e5 || size < 1e-3) ? value.toExponential(0) : String(+value.toPrecision(4));
  return text.replace("-", "\u2212");
}
