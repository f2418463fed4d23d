// A stand-in for taktline while the page is developed: serves dist/ and speaks `/api/live` with made-up presses.
// Not part of the product. `node e2e/fake-server.mjs [PORT]`, then open the printed address.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";

const DIST = fileURLToPath(new URL("../dist/", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const SIGNALS = ["motor_current", "position", "pressure", "temperature", "vibration"];

/**
 * Starts the server. `history` cycles exist at the start; `faultAfterMs` later the vibration of press-1 rises.
 * `cycleMs` is a cycle's length; `learning` cycles make the reference; `rateHz` is samples a second and signal; `silent` sends no
 * machine at all.
 */
export async function startFake({ port = 0, history = 0, faultAfterMs = 6000, cycleMs = 1000, learning = 3, rateHz = 100, silent = false } = {}) {
  const started = Date.now();
  const names = silent ? [] : ["press-1", "press-2", "press-3"];
  const faulty = (name, ms) => name === "press-1" && ms > started + faultAfterMs;
  const cycles = new Map(names.map((name) => [name, []]));
  for (const name of names) {
    for (let i = history; i > 0; i--) addCycle(name, started - i * cycleMs);
  }
  const alerts = [];
  const clients = new Set();

  function addCycle(name, start) {
    const all = cycles.get(name);
    const n = all.length;
    const bad = faulty(name, start);
    const outcome = n > 0 && n % 23 === 0 ? "timeout" : "complete";
    const comparison = outcome !== "complete" ? "not complete" : n < learning ? "learning" : "compared";
    const compared = comparison === "compared";
    const units = SIGNALS.map((signal) => (bad && signal === "vibration" ? 6 : 0.7) + Math.random() * 0.5);
    const sum = units.reduce((a, b) => a + b, 0);
    const order = [...units].sort((a, b) => b - a);
    const health = !compared ? null : bad ? 35 + Math.random() * 8 : 88 + Math.random() * 12;
    const cycle = {
      cycle_id: `${name}@${new Date(start).toISOString()}`, step: "health", start_ms: start, end_ms: start + cycleMs,
      duration_s: cycleMs / 1000 + Math.random() * 0.02, outcome, samples: 5 * rateHz, missing: n % 9 === 5 ? 12 : 0, comparison, health,
      risk: health === null ? "unknown" : health >= 80 ? "low" : health >= 60 ? "medium" : "high",
      deviation: compared ? sum / 5 : null,
      signals: SIGNALS.map((signal, i) => ({
        signal, rank: compared ? order.indexOf(units[i]) + 1 : null, contribution: compared ? units[i] / sum : null,
        distance: compared ? units[i] * 3.1 : null, distance_units: compared ? units[i] : null,
        mean: 10 * (i + 1), min: 0, max: 20 * (i + 1), missing: n % 9 === 5 && i === 2 ? 12 : 0,
      })),
    };
    all.push(cycle);
    return cycle;
  }

  function value(name, signal, ms) {
    const phase = ((ms - started) / cycleMs + names.indexOf(name) * 0.3) * 2 * Math.PI;
    const noise = Math.random() - 0.5;
    if (signal === "pressure" && Math.floor(ms / 9000) % 4 === 1 && ms % 9000 < 700) return null;
    switch (signal) {
      case "motor_current": return 12 + 6 * Math.max(0, Math.sin(phase)) + noise * 0.4;
      case "position": return 60 - 60 * Math.cos(phase) + noise * 0.2;
      case "pressure": return 180 * Math.max(0, Math.sin(phase)) ** 3 + noise * 2;
      case "temperature": return 48.2 + Math.sin((ms - started) / 20000) + noise * 0.1;
      default: return (faulty(name, ms) ? 2.4 : 0.6) * noise * (1.2 + Math.sin(phase));
    }
  }

  const machines = () => names.map((name) => {
    const last = cycles.get(name).at(-1);
    return {
      machine: name, last_ms: Date.now(), cycles: cycles.get(name).length, health: last?.health ?? null, risk: last?.risk ?? "unknown",
      open_alerts: alerts.filter((a) => a.machine === name).length,
    };
  });
  const samples = (name, from, to) => {
    const signals = {};
    for (const signal of SIGNALS) {
      signals[signal] = [];
      const step = 1000 / rateHz;
      for (let ms = Math.ceil(from / step) * step; ms < to; ms += step) signals[signal].push([ms, value(name, signal, ms)]);
    }
    return { type: "samples", machine: name, signals };
  };
  const tell = (message, to = clients) => {
    for (const client of to) client.socket.send(JSON.stringify(message));
  };

  const http = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://x").pathname);
    try {
      const body = await readFile(join(DIST, path === "/" ? "index.html" : path));
      response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "text/html" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  const sockets = new WebSocketServer({ server: http, path: "/api/live" });
  sockets.on("connection", (socket) => {
    const client = { socket, watch: null, sent: 0 };
    clients.add(client);
    socket.on("close", () => clients.delete(client));
    socket.on("message", (frame) => {
      client.watch = JSON.parse(frame).watch;
      client.sent = Date.now();
      if (!cycles.has(client.watch)) return;
      tell({ type: "cycles", machine: client.watch, reset: true, cycles: cycles.get(client.watch).slice(-100) }, [client]);
    });
    const steps = [{ name: "strokes", kind: "cycle", from: ["plc"], table: "cycles" }];
    tell({ type: "pipeline", name: "fake", steps }, [client]);
    tell({ type: "machines", machines: machines() }, [client]);
    tell({ type: "alerts", alerts }, [client]);
  });

  const timers = [
    setInterval(() => {
      const now = Date.now();
      for (const client of clients) {
        if (!cycles.has(client.watch)) continue;
        tell(samples(client.watch, client.sent, now), [client]);
        client.sent = now;
      }
    }, 200),
    setInterval(() => {
      const start = Date.now() - cycleMs;
      for (const name of names) {
        const cycle = addCycle(name, start);
        tell({ type: "cycles", machine: name, reset: false, cycles: [cycle] }, [...clients].filter((c) => c.watch === name));
        if (cycle.risk === "high" && alerts.length === 0) {
          alerts.push({
            alert_id: "a1", machine: name, step: "worn", severity: "warning", opened_ms: Date.now(), top_signal: "vibration",
            message: "health below 60 in 3 of 3 cycles",
          });
          tell({ type: "alerts", alerts });
        }
      }
    }, cycleMs),
    setInterval(() => tell({ type: "machines", machines: machines() }), 500),
  ];

  await new Promise((resolve) => http.listen(port, "127.0.0.1", resolve));
  return {
    port: http.address().port,
    url: `http://127.0.0.1:${http.address().port}/`,
    async stop() {
      timers.forEach(clearInterval);
      for (const client of clients) client.socket.terminate();
      sockets.close();
      await new Promise((resolve) => http.close(resolve));
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const fake = await startFake({ port: Number(process.argv[2] ?? 0), history: 40 });
  console.log(fake.url);
}
