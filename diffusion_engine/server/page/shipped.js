// What the chosen model draws, where it ships with a picture: that carries its recipe, as each PNG here does.

import { ask } from "./api.js";
import { by } from "./dom.js";

let shown = null; // {id, blob, url}

/** Lets the picture be made again. again: called with its blob. */
export function open(again) {
  by("shipped-again").addEventListener("click", () => again(shown.blob));
}

/** Shows that of a model. */
export async function show({ id, picture }) {
  if (shown?.id === id) return;
  if (shown) URL.revokeObjectURL(shown.url);
  shown = null;
  by("shipped").hidden = true;
  if (!picture) return;
  const mine = (shown = { id, blob: null, url: "" });
  try {
    mine.blob = await (await ask(`v1/models/${encodeURIComponent(id)}/picture`, { quiet: true })).blob();
  } catch {
    return; // the page does without
  }
  if (shown !== mine) return;
  mine.url = URL.createObjectURL(mine.blob);
  Object.assign(by("shipped-image"), { src: mine.url, alt: `What ${id} draws` });
  by("shipped-title").textContent = `What ${id} draws`;
  by("shipped").hidden = false;
}
