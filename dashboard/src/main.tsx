import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./page.css";
import "./parts.css";
import "./narrow.css";
import { connectLive, liveUrl } from "./live";
import { INITIAL, reduce, type LiveState } from "./state";
import { App } from "./view/App";

let state: LiveState = INITIAL;
let scheduled = false;
const root = document.getElementById("app");

const live = connectLive(liveUrl(location), (action) => {
  state = reduce(state, action);
  draw();
});

/** Messages that arrive together are drawn once, and a hidden page is not drawn at all. */
function draw() {
  if (scheduled || !root) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    render(<App state={state} onWatch={live.watch} />, root);
  });
}

draw();
addEventListener("online", live.retryNow);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") live.retryNow();
});
