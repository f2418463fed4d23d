import { clock, span } from "../format";
import { STALE_MS, type LiveState } from "../state";

type Props = Pick<LiveState, "pipeline" | "connection" | "lastMessageAt"> & { now: number };

export function Header({ pipeline, connection, lastMessageAt, now }: Props) {
  const { tone, text } = connectionText({ connection, lastMessageAt, now });
  return (
    <header class="head">
      <h1>
        Taktline <span class="pipeline">{pipeline?.name ?? ""}</span>
      </h1>
      <p class={`connection tone-${tone}`} data-part="connection" data-tone={tone}>
        <span class="dot" aria-hidden="true" />
        {text}
      </p>
      {/* Spoken when it changes; the text above counts seconds and would be spoken every one of them. */}
      <span class="sr" role="status">
        {SPOKEN[tone]}
      </span>
    </header>
  );
}

type Tone = "good" | "wait" | "bad";

const SPOKEN: Record<Tone, string> = { good: "live", wait: "waiting for data", bad: "connection lost" };

/** Says in words what the connection and its data are worth now. */
export function connectionText({ connection, lastMessageAt, now }: Omit<Props, "pipeline">): { tone: Tone; text: string } {
  const asOf = lastMessageAt === null ? "" : ` · data as of ${clock(lastMessageAt)}`;
  switch (connection.phase) {
    case "connecting":
      return { tone: "wait", text: `connecting…${asOf}` };
    case "lost": {
      const seconds = Math.max(0, Math.ceil((connection.retryAt - now) / 1000));
      return { tone: "bad", text: `connection lost, next try in ${seconds} s${asOf}` };
    }
    case "open": {
      if (lastMessageAt === null) return { tone: "wait", text: "connected, waiting for data" };
      const silent = now - lastMessageAt;
      if (silent >= STALE_MS) return { tone: "wait", text: `no new data for ${span(silent)}${asOf}` };
      return { tone: "good", text: "live" };
    }
  }
}
