/** The one socket: reads frames, asks for the watched machine, comes back by itself when the connection breaks. */

import { parseMessage, type Watch } from "./messages";
import type { Action } from "./state";

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 10_000;

export interface Live {
  watch(machine: string | null): void;
  /** Tries again now instead of after the wait; does nothing while connected. */
  retryNow(): void;
  close(): void;
}

/** Where the live socket of this page is: same host, `ws` for `http` and `wss` for `https`. */
export function liveUrl(location: { protocol: string; host: string }): string {
  return `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/api/live`;
}

/** The wait before the n-th retry (from 0): doubles to a limit, ±20 % so that many pages don't come back at once. */
export function retryDelay(attempt: number, random: number): number {
  return Math.min(FIRST_RETRY_MS * 2 ** attempt, LONGEST_RETRY_MS) * (0.8 + 0.4 * random);
}

export function connectLive(
  url: string,
  dispatch: (action: Action) => void,
  open: (url: string) => WebSocket = (address) => new WebSocket(address),
): Live {
  let socket: WebSocket | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let attempt = 0;
  let watched: string | null = null;
  let closed = false;

  const send = (message: Watch) => {
    if (socket?.readyState === 1) socket.send(JSON.stringify(message));
  };

  const connect = () => {
    clearTimeout(timer);
    dispatch({ kind: "connecting" });
    const current = open(url);
    socket = current;
    current.onopen = () => {
      dispatch({ kind: "opened", at: Date.now() });
      if (watched !== null) send({ watch: watched });
    };
    current.onmessage = (event) => {
      // Only a server that talks ends the backoff: one that accepts and closes at once must not be hammered.
      attempt = 0;
      const message = parseMessage(event.data);
      if (message) dispatch({ kind: "message", at: Date.now(), message });
    };
    current.onclose = () => {
      if (closed || socket !== current) return;
      socket = null;
      const delay = retryDelay(attempt, Math.random());
      attempt += 1;
      dispatch({ kind: "lost", retryAt: Date.now() + delay });
      timer = setTimeout(connect, delay);
    };
  };

  connect();
  return {
    watch(machine) {
      if (machine === watched) return;
      watched = machine;
      dispatch({ kind: "watch", machine });
      send({ watch: machine });
    },
    retryNow() {
      if (!closed && socket === null) connect();
    },
    close() {
      closed = true;
      clearTimeout(timer);
      socket?.close();
    },
  };
}
