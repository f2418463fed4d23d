import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";

/** The page's colours, read from its style sheet so that charts follow light and dark. */
export interface Colours {
  ink: string;
  muted: string;
  line: string;
  accent: string;
  limit: string;
  font: string;
}

interface Props {
  /** Must keep its identity between draws: a new one builds the chart anew. */
  build: (colours: Colours) => Omit<uPlot.Options, "width" | "height">;
  data: uPlot.AlignedData;
  height: number;
  /** What a reader who can't see the chart is told. */
  label: string;
}

export function Chart({ build, data, height, label }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const dark = useDark();
  useLayoutEffect(() => {
    const element = host.current;
    if (!element) return;
    const chart = new uPlot({ ...build(coloursOf(element)), width: element.clientWidth, height }, data, element);
    plot.current = chart;
    const observer = new ResizeObserver(() => chart.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.destroy();
      plot.current = null;
    };
  }, [build, height, dark]);
  useLayoutEffect(() => plot.current?.setData(data), [data]);
  // The height is set before the chart exists, so that nothing moves when it comes.
  return <div ref={host} class="chart" role="img" aria-label={label} style={{ height: `${height}px` }} />;
}

/** An axis in the page's type: no ticks, faint grid. */
export function axis(colours: Colours, rest: uPlot.Axis): uPlot.Axis {
  return {
    stroke: colours.muted,
    font: colours.font,
    ticks: { show: false },
    grid: { stroke: colours.line, width: 1 },
    ...rest,
  };
}

function coloursOf(element: Element): Colours {
  const style = getComputedStyle(element);
  const of = (name: string) => style.getPropertyValue(name).trim();
  return {
    ink: of("--ink"),
    muted: of("--muted"),
    line: of("--line"),
    accent: of("--accent"),
    limit: of("--high"),
    font: `11px ${style.fontFamily}`,
  };
}

function useDark(): boolean {
  const [dark, setDark] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)");
    const follow = () => setDark(query.matches);
    query.addEventListener("change", follow);
    return () => query.removeEventListener("change", follow);
  }, []);
  return dark;
}
