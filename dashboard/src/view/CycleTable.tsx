import { duration, moment, percent } from "../format";
import type { Cycle, CycleSignal } from "../messages";
import { cycleKey } from "../state";
import { HealthBar } from "./Health";

interface Props {
  cycles: Cycle[] | null;
  shown: Cycle | null;
  pinned: boolean;
  now: number;
  onPick: (cycle: Cycle) => void;
}

export function CycleTable({ cycles, shown, pinned, now, onPick }: Props) {
  const shownKey = shown && pinned ? cycleKey(shown) : null;
  return (
    <section class="panel" aria-labelledby="last-cycles">
      <h2 id="last-cycles">Last cycles</h2>
      <div class="scroll cycles-scroll">
        <table class="cycle-table">
          <thead>
            <tr>
              <th scope="col">Start</th>
              <th scope="col" class="num">
                Duration
              </th>
              <th scope="col">Outcome</th>
              <th scope="col">Health</th>
              <th scope="col">Top signals</th>
            </tr>
          </thead>
          <tbody onKeyDown={moveByArrow}>
            {(cycles ?? []).map((cycle) => {
              const current = cycleKey(cycle) === shownKey;
              return (
                <tr key={cycleKey(cycle)} class={current ? "picked" : undefined} onClick={() => onPick(cycle)} data-part="cycle">
                  <td>
                    <button type="button" aria-pressed={current} title={cycle.cycle_id}>
                      {moment(cycle.start_ms, now)}
                    </button>
                  </td>
                  <td class="num">{duration(cycle.duration_s)}</td>
                  <td>{cycle.outcome === "complete" ? cycle.outcome : <span class="outcome">{cycle.outcome}</span>}</td>
                  <td>
                    <HealthBar cycle={cycle} />
                  </td>
                  <td class="top-signals" title={topSignals(cycle.signals)}>
                    {topSignals(cycle.signals)}
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
        {(cycles === null || cycles.length === 0) && (
          <p class="empty">No cycles yet: the first 20 cycles of each machine become its reference.</p>
        )}
      </div>
    </section>
  );
}

/** `vibration 61 % · pressure 20 %`: the first three that say something. */
export function topSignals(signals: CycleSignal[]): string {
  return signals
    .filter((s) => s.rank !== null && s.rank <= 3 && s.contribution !== null)
    .sort((a, b) => (a.rank ?? 0) - (b.rank ?? 0))
    .map((s) => `${s.signal} ${percent(s.contribution)}`)
    .join(" · ");
}

/** Up and down move between the rows; Enter and Space pick, as on any button. */
function moveByArrow(event: KeyboardEvent) {
  const step = event.key === "ArrowDown" ? "nextElementSibling" : event.key === "ArrowUp" ? "previousElementSibling" : null;
  const row = (event.target as Element).closest("tr");
  if (!step || !row) return;
  event.preventDefault();
  row[step]?.querySelector("button")?.focus();
}
