import { health } from "../format";
import type { Cycle, Risk } from "../messages";

export const RISK_TEXT: Record<Risk, string> = {
  low: "low risk",
  medium: "medium risk",
  high: "high risk",
  unknown: "no score",
};

/** Number, colour and words together: never the colour alone. */
export function HealthBadge({ value, risk }: { value: number | null; risk: Risk }) {
  return (
    <span class={`badge risk-${risk}`}>
      <b>{health(value)}</b> <small>{RISK_TEXT[risk]}</small>
    </span>
  );
}

/** The bar, the number, and for a cycle without a score the reason. */
export function HealthBar({ cycle }: { cycle: Cycle }) {
  if (cycle.health === null) return <span class="muted">{cycle.comparison ?? "not compared"}</span>;
  return (
    <span class={`health risk-${cycle.risk}`} title={RISK_TEXT[cycle.risk]}>
      <Bar share={cycle.health / 100} />
      <b>{health(cycle.health)}</b>
      <span class="sr">{RISK_TEXT[cycle.risk]}</span>
    </span>
  );
}

export function Bar({ share }: { share: number }) {
  return (
    <span class="bar" aria-hidden="true">
      <span style={{ width: `${Math.max(0, Math.min(1, share)) * 100}%` }} />
    </span>
  );
}
