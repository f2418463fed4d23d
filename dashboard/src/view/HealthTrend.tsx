import { useCallback, useMemo, useState } from "preact/hooks";
import type uPlot from "uplot";
import { health, moment } from "../format";
import type { Cycle } from "../messages";
import { MAX_CYCLES } from "../state";
import { Chart, axis, type Colours } from "./Chart";

/** Health at the control limit of the reference: below it the risk is high. */
const LIMIT = 60;

interface Props {
  cycles: Cycle[] | null;
  now: number;
}

export function HealthTrend({ cycles, now }: Props) {
  const oldestFirst = useMemo(() => [...(cycles ?? [])].reverse(), [cycles]);
  const [cursor, setCursor] = useState<number | null>(null);
  // Counted from the right, so that the newest cycle always stands at the right edge.
  const data = useMemo<uPlot.AlignedData>(
    () => [oldestFirst.map((_, i) => i + 1 - oldestFirst.length), oldestFirst.map((c) => c.health)],
    [oldestFirst],
  );
  const build = useCallback((colours: Colours) => options(colours, setCursor), []);
  return (
    <section class="panel" aria-labelledby="trend" data-part="trend">
      <h2 id="trend">
        Health <span class="muted">last {MAX_CYCLES} cycles</span>
        <span class="num readout">{reading(oldestFirst, now, cursor)}</span>
      </h2>
      <Chart build={build} data={data} height={104} label={`Health of the last cycles: ${reading(oldestFirst, now, null)}`} />
    </section>
  );
}

/** The cycle under the cursor; without one the newest, or how far the learning has come. */
function reading(oldestFirst: Cycle[], now: number, index: number | null): string {
  const cycle = index === null ? oldestFirst.at(-1) : oldestFirst[index];
  if (cycle === undefined) return "no cycles yet";
  const value = cycle.health === null ? (cycle.comparison ?? "not compared") : health(cycle.health);
  if (index === null && cycle.comparison === "learning") return `learning the reference: ${oldestFirst.length} cycles so far`;
  return index === null ? `newest: ${value}` : `${value} at ${moment(cycle.start_ms, now)}`;
}

type Options = Omit<uPlot.Options, "width" | "height">;

function options(colours: Colours, show: (index: number | null) => void): Options {
  return {
    legend: { show: false },
    padding: [6, 20, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    scales: { x: { time: false, range: () => [1 - MAX_CYCLES, 0] }, y: { range: () => [0, 104] } },
    axes: [
      axis(colours, {
        size: 20,
        gap: 3,
        splits: () => [-75, -50, -25, 0],
        values: () => ["75 before", "50 before", "25 before", "newest"],
      }),
      axis(colours, { size: 46, gap: 4, splits: () => [0, LIMIT, 100] }),
    ],
    series: [{}, { stroke: colours.accent, width: 1.5, points: { show: true, size: 4, fill: colours.accent } }],
    hooks: {
      draw: [(u) => drawLimit(u, colours)],
      setCursor: [(u) => show(u.cursor.left !== undefined && u.cursor.left >= 0 ? (u.cursor.idx ?? null) : null)],
    },
  };
}

function drawLimit(u: uPlot, colours: Colours) {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  const y = Math.round(u.valToPos(LIMIT, "y", true));
  ctx.save();
  ctx.strokeStyle = colours.limit;
  ctx.lineWidth = ratio;
  ctx.setLineDash([5 * ratio, 4 * ratio]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.fillStyle = colours.limit;
  ctx.font = colours.font.replace(/^[\d.]+px/, `${11 * ratio}px`);
  ctx.textAlign = "left";
  ctx.textBaseline = "top";
  ctx.fillText("limit 60", bbox.left + 4 * ratio, y + 3 * ratio);
  ctx.restore();
}
