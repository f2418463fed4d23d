import { count, moment, span } from "../format";
import type { OpenAlert } from "../messages";
import { hashOf } from "./address";

interface Props {
  alerts: OpenAlert[] | null;
  selected: string | null;
  now: number;
}

export function Alerts({ alerts, selected, now }: Props) {
  return (
    <section class="panel" aria-labelledby="alerts">
      <h2 id="alerts">
        Open alerts {alerts && alerts.length > 0 && <span class="muted">{count(alerts.length)}</span>}
      </h2>
      {alerts === null ? (
        <p class="empty">Waiting for the alerts.</p>
      ) : alerts.length === 0 ? (
        <p class="empty">None open.</p>
      ) : (
        <ul class="alerts" aria-live="polite" aria-relevant="additions">
          {alerts.map((a) => (
            <li key={a.alert_id} class={`alert severity-${a.severity}`} data-part="alert" data-signal={a.top_signal ?? ""}>
              <p class="alert-head">
                <span class="severity">{a.severity}</span>
                <a href={hashOf(a.machine)} aria-current={a.machine === selected ? "true" : undefined}>
                  {a.machine}
                </a>
                <time dateTime={new Date(a.opened_ms).toISOString()} title={moment(a.opened_ms, now)}>
                  since {openedFor(a.opened_ms, now)}
                </time>
              </p>
              <p>{a.message}</p>
              {a.top_signal !== null && (
                <p class="muted">
                  Top signal: <b>{a.top_signal}</b>
                </p>
              )}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

/** The length for the last hour, the moment for anything older. */
function openedFor(openedMs: number, now: number): string {
  const open = now - openedMs;
  return open >= 0 && open < 3_600_000 ? span(Math.max(open, 1000)) : moment(openedMs, now);
}
