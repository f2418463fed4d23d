import { useEffect, useMemo, useState } from "preact/hooks";
import type { Cycle } from "../messages";
import type { LiveState } from "../state";
import { Alerts } from "./Alerts";
import { CycleDetail } from "./CycleDetail";
import { CycleTable } from "./CycleTable";
import { Header } from "./Header";
import { HealthTrend } from "./HealthTrend";
import { LiveSignals } from "./LiveSignals";
import { Machines } from "./Machines";
import { useSelectedMachine } from "./address";
import { useNow } from "./useNow";

interface Props {
  state: LiveState;
  onWatch: (machine: string | null) => void;
}

export function App({ state, onWatch }: Props) {
  const now = useNow(1000);
  const machine = useSelectedMachine(state.machines?.[0]?.machine ?? null);
  const [pinned, setPinned] = useState<Cycle | null>(null);
  useEffect(() => {
    setPinned(null);
    onWatch(machine);
  }, [machine]);

  const open = state.alerts?.length ?? 0;
  const name = state.pipeline?.name;
  useEffect(() => {
    document.title = `${open > 0 ? `(${open}) ` : ""}${name ? `${name} · ` : ""}Taktline`;
  }, [open, name]);

  // Samples arrive several times a second; only what changed is drawn again.
  const { cycles, machines, alerts, connection, lastMessageAt, pipeline } = state;
  const day = new Date(now).toDateString();
  const shown = pinned ?? cycles?.[0] ?? null;
  const connected = connection.phase === "open";
  return (
    <>
      {useMemo(
        () => <Header pipeline={pipeline} connection={connection} lastMessageAt={lastMessageAt} now={now} />,
        [pipeline, connection, lastMessageAt, now],
      )}
      <main class={connected ? "page" : "page is-stale"}>
        <div class="side">
          {useMemo(
            () => <Machines machines={machines} selected={machine} now={now} />,
            [machines, machine, now],
          )}
          {useMemo(
            () => <Alerts alerts={alerts} selected={machine} now={now} />,
            [alerts, machine, now],
          )}
        </div>
        <div class="work">
          <LiveSignals machine={machine} traces={state.traces} newest={state.newest} />
          {useMemo(
            () => <HealthTrend cycles={cycles} now={now} />,
            [cycles, day],
          )}
          <div class="cycles">
            {useMemo(
              () => <CycleTable cycles={cycles} shown={shown} pinned={pinned !== null} now={now} onPick={setPinned} />,
              [cycles, shown, pinned, day],
            )}
            {useMemo(
              () => <CycleDetail cycle={shown} pinned={pinned !== null} now={now} onFollow={() => setPinned(null)} />,
              [shown, pinned, day],
            )}
          </div>
        </div>
      </main>
    </>
  );
}
