// What the service is doing now, in the page's head.

import { metrics } from "./api.js";
import { by } from "./dom.js";

const BUSY = 500;
const IDLE = 3000; // milliseconds between two looks
const AFTER = 2000; // for which it looks often when the drawing has ended: seats come free at the next row
const PREFIX = "diffusion_engine_";

let timer = null;
let busy = false;
let ended = -Infinity;

/** Looks often while something is drawn. */
export function watch(drawing = busy) {
  if (busy && !drawing) ended = performance.now();
  busy = drawing;
  clearTimeout(timer);
  if (!document.hidden) look();
}

document.addEventListener("visibilitychange", () => watch());

async function look() {
  try {
    show(await metrics());
  } catch {
    show(new Map());
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, busy || performance.now() < ended + AFTER ? BUSY : IDLE);
}

function show(found) {
  const [waiting, running, taken, seats] = [
    "requests_waiting",
    "requests_running",
    "seats_occupied",
    "seats",
  ].map((name) => found.get(PREFIX + name));
  by("waiting").textContent = waiting ?? "–";
  by("running").textContent = running ?? "–";
  by("seats").textContent = seats === undefined ? "–" : `${taken ?? 0} of ${seats}`;
  by("occupancy").max = seats || 1;
  by("occupancy").value = taken ?? 0;
}
