// The page in a real browser, against a running taktline (`taktline demo`) or the fake server.
//   node e2e/page.mjs URL [--expect-alert SIGNAL] [--screenshot FILE] [--timeout SECONDS] [--dark] [--size 1280x800]
// Exits 0 when everything appeared, 1 with the first thing that did not, 2 when called wrongly.
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { launch } from "./browser.mjs";

/** Runs every check; throws an Error that says what was awaited. `timeoutMs` is the deadline of each wait. */
export async function checkPage(url, { expectAlert, screenshot, timeoutMs = 90_000, dark = false, size = [1280, 800] } = {}) {
  const browser = await launch();
  let page;
  try {
    page = await browser.newPage({ viewport: { width: size[0], height: size[1] }, colorScheme: dark ? "dark" : "light" });
    const broken = [];
    page.on("pageerror", (error) => broken.push(`script error: ${error.message}`));
    page.on("console", (m) => m.type() === "error" && broken.push(`console error: ${m.text()}`));
    page.on("response", (r) => r.status() >= 400 && broken.push(`${r.status()} for ${r.url()}`));
    await page.goto(url, { timeout: timeoutMs });

    const wait = async (what, look, argument) => {
      try {
        await page.waitForFunction(look, argument, { timeout: timeoutMs, polling: 100 });
      } catch (error) {
        throw new Error(`not within ${timeoutMs / 1000} s: ${what} (${error.message.split("\n")[0]})`);
      }
      console.error(`seen: ${what}`);
    };

    await wait("the connection is live", () => document.querySelector("[data-part=connection]")?.dataset.tone === "good");
    await wait("a machine is listed", () => document.querySelector("[data-part=machine]") !== null);
    await wait("a live chart has data and is drawn", () => {
      const figure = document.querySelector("[data-part=live-signal]");
      const canvas = figure?.querySelector("canvas");
      if (!canvas || canvas.width === 0 || Number(figure.dataset.samples) < 10) return false;
      return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte !== 0);
    });
    await wait("a cycle is listed", () => document.querySelector("[data-part=cycle]") !== null);
    await wait("a cycle with a score is listed", () => document.querySelector("[data-part=cycle] .health b") !== null);

    await page.locator("[data-part=cycle]:has(.health b) button").first().press("Enter", { timeout: timeoutMs });
    await wait("the chosen cycle's ranked signals", () => {
      const chosen = document.querySelector("[data-part=cycle].picked button")?.title;
      const detail = document.querySelector("[data-part=detail]");
      if (!chosen || detail?.dataset.cycle !== chosen) return false;
      const ranks = [...detail.querySelectorAll("[data-part=ranked-signal]")].map((row) => Number(row.dataset.rank));
      return ranks.length > 0 && ranks.every((rank, i) => rank === i + 1);
    });
    await page.locator("[data-part=cycle]").nth(0).click({ timeout: timeoutMs });
    await page.locator("button.follow").click({ timeout: timeoutMs });
    await wait("the detail follows the newest cycle again", () => document.querySelector("[data-part=detail]")?.dataset.cycle === "");

    if (expectAlert !== undefined) {
      await wait(
        `an open alert names ${expectAlert}`,
        (signal) => [...document.querySelectorAll("[data-part=alert]")].some((alert) => alert.dataset.signal === signal),
        expectAlert,
      );
    }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (wide > 0) throw new Error(`the page is ${wide} px wider than the window`);
    if (broken.length > 0) throw new Error(broken.join("; "));
  } finally {
    // A picture of the failure is worth more than one of success.
    if (screenshot && page) await page.screenshot({ path: screenshot, fullPage: true }).catch(() => {});
    await browser.close();
  }
}

async function main() {
  let args;
  try {
    args = parseArgs({
      allowPositionals: true,
      options: {
        "expect-alert": { type: "string" },
        screenshot: { type: "string" },
        timeout: { type: "string", default: "90" },
        dark: { type: "boolean", default: false },
        size: { type: "string", default: "1280x800" },
      },
    });
  } catch (error) {
    return usage(error.message);
  }
  const { values, positionals } = args;
  const size = values.size.split("x").map(Number);
  const seconds = Number(values.timeout);
  if (positionals.length !== 1) return usage("exactly one URL is needed");
  if (!(seconds > 0) || size.length !== 2 || !size.every((n) => n > 0)) return usage("--timeout or --size is not a number");
  try {
    await checkPage(positionals[0], {
      expectAlert: values["expect-alert"], screenshot: values.screenshot, timeoutMs: seconds * 1000, dark: values.dark, size,
    });
    console.log("page: ok");
    return 0;
  } catch (error) {
    console.error(`page: ${error.message}`);
    return 1;
  }
}

function usage(problem) {
  console.error(`page: ${problem}\nusage: node e2e/page.mjs URL [--expect-alert SIGNAL] [--screenshot FILE] [--timeout SECONDS] [--dark] [--size WxH]`);
  return 2;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = await main();
