import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { connectLive, liveUrl, retryDelay } from "./live";
import type { Action } from "./state";

/** A socket whose events the test sends. */
class FakeSocket {
  readyState = 0;
  sent: string[] = [];
  onopen?: () => void;
  onmessage?: (event: { data: unknown }) => void;
  onclose?: () => void;
  send(frame: string) {
    this.sent.push(frame);
  }
  close() {
    this.breaks();
  }
  opens() {
    this.readyState = 1;
    this.onopen?.();
  }
  breaks() {
    this.readyState = 3;
    this.onclose?.();
  }
}

function connect() {
  const sockets: FakeSocket[] = [];
  const actions: Action[] = [];
  const live = connectLive("ws://host/api/live", (action) => actions.push(action), () => {
    const socket = new FakeSocket();
    sockets.push(socket);
    return socket as unknown as WebSocket;
  });
  return { live, sockets, actions, kinds: () => actions.map((a) => a.kind) };
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test("the address follows the page's", () => {
  expect(liveUrl({ protocol: "http:", host: "a:8080" })).toBe("ws://a:8080/api/live");
  expect(liveUrl({ protocol: "https:", host: "a" })).toBe("wss://a/api/live");
});

test("the wait doubles up to a limit", () => {
  expect([0, 1, 2, 3, 4, 5, 50].map((n) => retryDelay(n, 0.5))).toEqual([500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
  expect(retryDelay(0, 0)).toBe(400);
  expect(retryDelay(0, 1)).toBeCloseTo(600);
});

test("the watch is sent now when open, on opening when not, and again after a break", () => {
  const { live, sockets } = connect();
  live.watch("press-1");
  expect(sockets[0]?.sent).toEqual([]);
  sockets[0]?.opens();
  expect(sockets[0]?.sent).toEqual(['{"watch":"press-1"}']);
  live.watch("press-1");
  live.watch(null);
  live.watch("press-2");
  expect(sockets[0]?.sent.slice(1)).toEqual(['{"watch":null}', '{"watch":"press-2"}']);
  sockets[0]?.breaks();
  vi.advanceTimersByTime(600);
  sockets[1]?.opens();
  expect(sockets[1]?.sent).toEqual(['{"watch":"press-2"}']);
});

test("it waits longer each time until a server talks", () => {
  const { sockets } = connect();
  for (const limit of [600, 1200, 2400]) {
    const before = sockets.length;
    sockets.at(-1)?.opens();
    sockets.at(-1)?.breaks();
    vi.advanceTimersByTime(limit * 0.66);
    expect(sockets.length).toBe(before);
    vi.advanceTimersByTime(limit * 0.35);
    expect(sockets.length).toBe(before + 1);
  }
  sockets.at(-1)?.opens();
  sockets.at(-1)?.onmessage?.({ data: '{"type":"alerts","alerts":[]}' });
  sockets.at(-1)?.breaks();
  vi.advanceTimersByTime(601);
  expect(sockets.length).toBe(5);
});

test("frames become messages, unknown ones nothing", () => {
  const { sockets, kinds } = connect();
  sockets[0]?.opens();
  sockets[0]?.onmessage?.({ data: '{"type":"alerts","alerts":[]}' });
  sockets[0]?.onmessage?.({ data: "noise" });
  expect(kinds()).toEqual(["connecting", "opened", "message"]);
});

test("retryNow shortens the wait and does nothing while connected", () => {
  const { live, sockets } = connect();
  sockets[0]?.opens();
  live.retryNow();
  expect(sockets.length).toBe(1);
  sockets[0]?.breaks();
  live.retryNow();
  expect(sockets.length).toBe(2);
  vi.advanceTimersByTime(60_000);
  expect(sockets.length).toBe(2);
});

test("close is final", () => {
  const { live, sockets, kinds } = connect();
  live.close();
  vi.advanceTimersByTime(60_000);
  expect(sockets.length).toBe(1);
  expect(kinds()).toEqual(["connecting"]);
});
