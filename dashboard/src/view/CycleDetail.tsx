import type { ComponentChildren } from "preact";
import { count, duration, moment, percent, quantity } from "../format";
import type { Cycle, CycleSignal } from "../messages";
import { Bar, HealthBadge } from "./Health";

interface Props {
  cycle: Cycle | null;
  pinned: boolean;
  now: number;
  onFollow: () => void;
}

export function CycleDetail({ cycle, pinned, now, onFollow }: Props) {
  return (
    <section class="panel detail" aria-labelledby="detail" data-part="detail" data-cycle={pinned ? cycle?.cycle_id : ""}>
      <h2 id="detail">
        {pinned ? "Chosen cycle" : "Newest cycle"}
        <button type="button" class="follow" onClick={onFollow} disabled={!pinned}>
          Follow the newest
        </button>
      </h2>
      {cycle === null ? (
        <p class="empty">The signals of a cycle, ranked by how much they differ from the reference.</p>
      ) : (
        <>
          <dl class="facts">
            <Fact name="Start">{moment(cycle.start_ms, now)}</Fact>
            <Fact name="Duration">{duration(cycle.duration_s)}</Fact>
            <Fact name="Outcome">{cycle.outcome}</Fact>
            <Fact name="Samples">
              {count(cycle.samples)}
              {cycle.missing > 0 && ` (${count(cycle.missing)} missing)`}
            </Fact>
            <Fact name="Health">
              {cycle.health === null ? (cycle.comparison ?? "not compared") : <HealthBadge value={cycle.health} risk={cycle.risk} />}
            </Fact>
            <Fact name="Deviation">{cycle.deviation === null ? quantity(null) : `${quantity(cycle.deviation)} units`}</Fact>
          </dl>
          <div class="scroll">
            <table class="signal-table">
              <thead>
                <tr>
                  <th scope="col">Signal</th>
                  <th scope="col">Contribution</th>
                  <th scope="col" class="num" title="In units of the reference's own spread">
                    Distance
                    <br />
                    units
                  </th>
                  <th scope="col" class="num" title="In the signal's own measure">
                    Distance
                    <br />
                    raw
                  </th>
                  <th scope="col" class="num">
                    Mean
                  </th>
                </tr>
              </thead>
              <tbody>
                {ranked(cycle.signals).map((s) => (
                  <tr key={s.signal} data-part="ranked-signal" data-signal={s.signal} data-rank={s.rank ?? ""}>
                    <th scope="row">
                      {s.signal}
                      {s.missing > 0 && <small class="muted"> {count(s.missing)} missing</small>}
                    </th>
                    <td>
                      <span class="contribution">
                        <Bar share={s.contribution ?? 0} />
                        {percent(s.contribution)}
                      </span>
                    </td>
                    <td class="num">{quantity(s.distance_units)}</td>
                    <td class="num">{quantity(s.distance)}</td>
                    <td class="num">{quantity(s.mean)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          <p class="muted note">{note(cycle)}</p>
        </>
      )}
    </section>
  );
}

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** By rank; signals without one come last, by name. */
export function ranked(signals: CycleSignal[]): CycleSignal[] {
  return [...signals].sort((a, b) => (a.rank ?? Infinity) - (b.rank ?? Infinity) || a.signal.localeCompare(b.signal));
}

function note(cycle: Cycle): string {
  switch (cycle.comparison) {
    case "learning":
      return "This cycle is part of the reference, or came before it was complete.";
    case "not complete":
      return "Only complete cycles are compared.";
    case "no reference":
      return "No reference fits this cycle.";
    default:
      return "One unit is the reference's own spread: 1 is ordinary, far above 1 is not.";
  }
}
