// The words of a model that reads text: prompts, one a line, and what they are led away from.

import { by } from "./dom.js";

/** Shows the fields to a model that reads text; the negative one where a branch without a condition guides. */
export function fit({ text, guided }) {
  by("of-prompts").hidden = !text;
  by("prompts").disabled = !text;
  by("of-negative").hidden = !guided;
  by("negative").disabled = !text || !guided;
}

/** What the fields hold: {prompts, negative}; nothing of a model without text. */
export function read() {
  return {
    prompts: lines(by("prompts").disabled ? "" : by("prompts").value),
    negative: by("negative").disabled ? "" : by("negative").value.trim(),
  };
}

export function write({ prompts, negative }) {
  if (prompts !== undefined) by("prompts").value = prompts.join("\n");
  if (negative !== undefined) by("negative").value = negative;
}

/** Those of a text, without empty ones. */
export const lines = (text) =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
