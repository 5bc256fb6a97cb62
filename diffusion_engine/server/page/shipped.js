// What the chosen model draws, where it ships with a picture: that carries its recipe, as each PNG here does.

import { ask } from "./api.js";
import { by } from "./dom.js";

let shown = null; // {id, blob, url}

/** Lets the picture be made again. again: called with its blob. */
export function open(again) {
  by("shipped-again").addEventListener("click", () => shown?.blob && again(shown.blob));
}

/** Shows that of a model; its place is there before it is. */
export async function show({ id, picture }) {
  if (shown?.id === id) return;
  if (shown) URL.revokeObjectURL(shown.url);
  const mine = (shown = { id, blob: null, url: "" });
  by("shipped").hidden = !picture;
  by("shipped-image").removeAttribute("src");
  if (!picture) return;
  const [width, height] = picture;
  Object.assign(by("shipped-image"), { width, height, alt: `What ${id} draws` });
  by("shipped-title").textContent = `What ${id} draws`;
  try {
    mine.blob = await (await ask(`v1/models/${encodeURIComponent(id)}/picture`, { quiet: true })).blob();
  } catch {
    if (shown === mine) by("shipped").hidden = true;
    return;
  }
  if (shown !== mine) return;
  mine.url = URL.createObjectURL(mine.blob);
  by("shipped-image").src = mine.url;
}
