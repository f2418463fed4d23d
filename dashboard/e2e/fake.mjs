// The browser test against the fake server, and what only a server under our control can show: that the page comes back
// after the connection broke. Needs dist/ (`npm run build`).
import { checkPage } from "./page.mjs";
import { launch } from "./browser.mjs";
import { startFake } from "./fake-server.mjs";

let fake = await startFake({ history: 0 });
const port = fake.port;
await checkPage(fake.url, { expectAlert: "vibration", timeoutMs: 30_000 });

const browser = await launch();
try {
  const page = await browser.newPage();
  const tone = (wanted) =>
    page.waitForFunction((t) => document.querySelector("[data-part=connection]")?.dataset.tone === t, wanted, { timeout: 15_000 });
  await page.goto(`${fake.url}#press-2`);
  await tone("good");
  await fake.stop();
  await tone("bad");
  console.error("seen: the page says that the connection is lost");
  fake = await startFake({ port });
  await tone("good");
  await page.waitForFunction(() => document.querySelector("[aria-current]")?.textContent.includes("press-2"), null, { timeout: 5_000 });
  await page.waitForFunction(() => document.querySelector("[data-part=cycle]") !== null, null, { timeout: 15_000 });
  console.error("seen: it came back by itself, with the same machine");
} finally {
  await browser.close();
  await fake.stop();
}
console.log("fake: ok");
