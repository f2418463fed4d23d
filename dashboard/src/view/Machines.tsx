import { useState } from "preact/hooks";
import { ago, count } from "../format";
import type { Machine } from "../messages";
import { hashOf } from "./address";
import { HealthBadge } from "./Health";

interface Props {
  machines: Machine[] | null;
  selected: string | null;
  now: number;
}

/** From this many machines on the list can be filtered by name. */
const FILTER_FROM = 12;

export function Machines({ machines, selected, now }: Props) {
  const [filter, setFilter] = useState("");
  const wanted = filter.trim().toLowerCase();
  const listed = (machines ?? []).filter((m) => m.machine.toLowerCase().includes(wanted));
  return (
    <section class="panel" aria-labelledby="machines">
      <h2 id="machines">
        Machines {machines && machines.length > 0 && <span class="muted">{count(machines.length)}</span>}
      </h2>
      {machines && machines.length >= FILTER_FROM && (
        <input
          type="search"
          placeholder="Filter by name"
          aria-label="Filter machines by name"
          value={filter}
          onInput={(event) => setFilter(event.currentTarget.value)}
        />
      )}
      {machines === null || machines.length === 0 ? (
        <p class="empty">No machines yet: each appears with its first sample.</p>
      ) : listed.length === 0 ? (
        <p class="empty">No machine's name contains “{filter.trim()}”.</p>
      ) : (
        <ul class="machines">
          {listed.map((m) => (
            <li key={m.machine}>
              <a href={hashOf(m.machine)} aria-current={m.machine === selected ? "true" : undefined} data-part="machine">
                <span class="machine-name">{m.machine}</span>
                <HealthBadge value={m.health} risk={m.risk} />
                <span class="muted">
                  {count(m.cycles)} {m.cycles === 1 ? "cycle" : "cycles"} · {ago(m.last_ms, now)}
                </span>
                {m.open_alerts > 0 && (
                  <span class="alert-count">
                    {m.open_alerts} {m.open_alerts === 1 ? "alert" : "alerts"}
                  </span>
                )}
              </a>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
