// The samples that are being made: a side for each solver, a tile for each sample.

import { make } from "./dom.js";

const SMALL = 256; // pixels: pictures below it are shown pixel by pixel
const WIDTHS = [2, 5, 8]; // columns at most: a phone's half, its whole or half a screen, a screen

/** One solver's samples.
 *  title, note  what is drawn;  samples  {label, seed} of each;  shape  [C, H, W] of a picture
 *  group        samples that belong together come so many after one another */
export class Side {
  constructor({ title, note, samples, shape, group = samples.length }) {
    this.facts = { calls: make("dd", {}, "–"), time: make("dd", {}, "–"), queue: make("dd", {}, "–") };
    this.tiles = samples.map((sample) => new Tile(sample, shape));
    const grid = make("div", { class: "tiles" }, ...this.tiles.map((tile) => tile.element));
    for (const most of WIDTHS)
      grid.style.setProperty(`--of-${most}`, String(columns(group, samples.length, most)));
    this.verdict = make("p", { class: "verdict", "aria-live": "polite" });
    this.element = make(
      "article",
      { class: "side", "aria-label": title },
      make(
        "header",
        {},
        make("div", {}, make("h2", {}, title), make("p", { class: "quiet" }, note)),
        facts(this.facts),
      ),
      this.verdict,
      grid,
    );
  }

  row({ sample, row, rows }) {
    this.tiles[sample]?.advance(row, rows);
  }

  preview({ sample, row, rows, png }) {
    this.tiles[sample]?.advance(row, rows);
    if (png) this.tiles[sample]?.show(png);
  }

  /** It has to be made again: its worker died. */
  restart() {
    for (const tile of this.tiles) tile.advance(0, 1);
  }

  done({ samples, nfe, seconds, queued }) {
    samples.forEach(({ png }, i) => this.tiles[i]?.finish(png));
    this.facts.calls.textContent = String(nfe);
    this.facts.time.textContent = duration(seconds);
    this.facts.queue.textContent = duration(queued);
  }

  /** Nothing more comes. */
  stop() {
    for (const tile of this.tiles) tile.stop();
  }

  /** A sentence above the tiles; good: null where it is no matter of right and wrong. */
  say(text, good = null) {
    this.verdict.textContent = text;
    this.verdict.dataset.good = String(good);
  }
}

class Tile {
  constructor({ label, seed }, shape) {
    this.name = [label, `seed ${seed}`].filter(Boolean).join(", ");
    this.image = make("img", {
      alt: "",
      width: shape[2],
      height: shape[1],
      class: shape[2] < SMALL ? "small" : "",
    });
    this.progress = make("progress", { max: 1, value: 0, "aria-label": this.name });
    this.element = make(
      "figure",
      { class: "tile", "data-state": "waiting", title: this.name },
      make("div", { class: "pixels" }, this.image, this.progress),
      make(
        "figcaption",
        {},
        ...(label ? [make("b", {}, label), " "] : []),
        make("span", { class: "word" }, "seed "),
        seed,
      ),
    );
  }

  advance(row, rows) {
    this.progress.max = Math.max(1, rows - 1);
    this.progress.value = row;
    this.element.dataset.state = "forming";
  }

  show(png) {
    this.image.src = source(png);
    this.image.alt = `${this.name}, as it forms`;
  }

  finish(png) {
    this.image.src = source(png);
    this.image.alt = this.name;
    this.progress.value = this.progress.max;
    this.element.dataset.state = "done";
  }

  stop() {
    if (this.element.dataset.state !== "done") this.element.dataset.state = "stopped";
  }
}

function facts(values) {
  return make(
    "dl",
    { class: "facts" },
    ...Object.entries(values).map(([name, dd]) => make("div", {}, make("dt", {}, name), dd)),
  );
}

/** Columns for n samples, so that groups begin at the left and rows are about full. */
function columns(group, n, most) {
  if (group <= most) return Math.min(n, group * Math.floor(most / group));
  return Math.ceil(group / Math.ceil(group / most));
}

/** Of a PNG in base64. */
const source = (png) => `data:image/png;base64,${png}`;

/** Seconds for a reader. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${Math.round(1000 * seconds)} ms`;
  return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}
