// Recipes, and what they ask of the server.

import { parse } from "./exact.js";
import { chunks, pixels, text } from "./png.js";

const KEYWORD = "diffusion_engine";
const FORMATS = ["diffusion-engine-recipe/1", "diffusion-engine-recipe/2"];
const LARGEST = 64 << 20; // bytes of a file
const MOST = 1024; // samples that are shown
const MARGIN = 2; // pixels between the samples of a sheet, as the command line lays them out

/** {recipe, picture} of a PNG; picture is null where its pixels are of another kind. Throws a sentence. */
export async function opened(blob) {
  if (blob.size > LARGEST) throw new Error("This file is too large for a picture of samples.");
  const found = chunks(new Uint8Array(await blob.arrayBuffer()));
  const said = await text(found, KEYWORD);
  if (said === null)
    throw new Error("This PNG carries no recipe: it was not made here, or another program saved it anew.");
  return { recipe: checked(said), picture: await pixels(found) };
}

/** A recipe of JSON. Throws a sentence where it is none. */
function checked(said) {
  let recipe = null;
  try {
    recipe = parse(said);
  } catch {
    // said below
  }
  const lists = [recipe?.points, recipe?.seeds, recipe?.guidance, recipe?.condition ?? [], recipe?.negative ?? []];
  const names = [recipe?.network, recipe?.solver?.name];
  if (!lists.every(Array.isArray) || !names.every((name) => typeof name === "string") || !recipe.seeds.length)
    throw new Error("What this PNG carries is not a recipe of this engine.");
  if (recipe.seeds.length > MOST)
    throw new Error(`This picture holds ${recipe.seeds.length} samples, more than fit on this page.`);
  if (!FORMATS.includes(recipe.format))
    throw new Error("The recipe in this PNG is of another version of the engine.");
  const needs = [recipe.needs ?? []].flat();
  if (needs.length)
    throw new Error(`This picture was made with more than a picture holds: ${needs.join(", ")}.`);
  if (recipe.compose) throw new Error("This picture composes several conditions, which this page does not do.");
  return recipe;
}

/** The body of a request that makes the samples of a recipe again. */
export function request(recipe) {
  const { solver, interval, classifier_scale, clip, dtype, encoding, noise, points } = recipe;
  return {
    model: recipe.network,
    spec: { solver, times: points, interval, classifier_scale, clip, dtype, encoding, noise },
    seeds: recipe.seeds,
    guidance: recipe.guidance,
    ...(recipe.condition ? { condition: recipe.condition } : {}),
    ...(recipe.negative ? { negative: recipe.negative } : {}),
  };
}

/** What a recipe says, in the words of the form. */
export function settings(recipe) {
  const given = [...new Set(recipe.condition ?? [])];
  const prompts = given.filter((one) => typeof one === "string");
  return {
    model: recipe.network,
    solver: recipe.solver.name,
    steps: recipe.points.length - 1,
    guidance: Number(recipe.guidance[0]),
    classes: prompts.length ? [] : given.map(Number),
    prompts,
    negative: String(recipe.negative?.[0] ?? ""),
    seed: String(recipe.seeds[0]),
    count: Math.max(1, Math.round(recipe.seeds.length / Math.max(1, given.length))),
  };
}

/** How pictures of samples, in order, differ from a picture or a sheet of them: {values, of, most}, the last in
 *  levels of 255; null where they cannot be compared. */
export function difference(picture, made) {
  if (!picture || !made.length || made.some((one) => one?.channels !== picture.channels)) return null;
  const [{ width, height }] = made;
  const margin = made.length === 1 && picture.width === width && picture.height === height ? 0 : MARGIN;
  const columns = (picture.width - margin) / (width + margin);
  const rows = (picture.height - margin) / (height + margin);
  if (!Number.isInteger(columns) || !Number.isInteger(rows) || columns * rows < made.length) return null;
  const found = { values: 0, of: 0, most: 0 };
  made.forEach((one, i) => {
    count(
      found,
      picture,
      one,
      margin + (i % columns) * (width + margin),
      margin + Math.floor(i / columns) * (height + margin),
    );
  });
  return found;
}

function count(found, picture, one, left, top) {
  const stride = one.width * one.channels;
  for (let y = 0; y < one.height; y++) {
    const at = ((top + y) * picture.width + left) * picture.channels;
    for (let x = 0; x < stride; x++) {
      const apart = Math.abs(picture.data[at + x] - one.data[y * stride + x]);
      found.values += apart > 0;
      found.most = Math.max(found.most, apart);
    }
  }
  found.of += stride * one.height;
}

/** A difference for a reader. */
export function verdict(found) {
  if (!found) return "The picture cannot be compared with what was made.";
  if (!found.values) return "The same pixels: yes.";
  const [values, of] = [found.values, found.of].map((n) => n.toLocaleString("en"));
  return `The same pixels: no. ${values} of ${of} values differ, by ${found.most} of 255 at most.`;
}
