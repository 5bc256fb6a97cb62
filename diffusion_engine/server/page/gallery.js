// Finished samples: kept, looked at, saved, and made again.

import { by, counted, make, roving, save } from "./dom.js";
import * as kept from "./kept.js";
import { duration } from "./stage.js";
import { zip } from "./zip.js";

const LABEL = 60; // letters of a prompt in a file's name

// {id, blob, model, solver, steps, guidance, negative, label, seed, nfe, seconds, shape}, newest first
let pictures = [];
let shown = null;
let stop = () => {};
const urls = new Map();

/** Shows what was kept. again: called with the blob of a picture that shall be made again. */
export async function open(again) {
  stop = roving(by("pictures"));
  by("all").addEventListener("click", saveAll);
  by("clear").addEventListener("click", () => {
    if (confirm(`Remove ${counted(pictures.length, "picture")} from this browser?`)) drop(pictures);
  });
  by("picture-close").addEventListener("click", () => by("picture").close());
  by("picture-remove").addEventListener("click", () => {
    by("picture").close();
    drop([shown]);
  });
  by("picture-again").addEventListener("click", () => {
    by("picture").close();
    again(shown.blob);
  });
  const before = await kept.all();
  pictures.push(...before.sort((a, b) => b.id - a.id));
  by("pictures").append(...before.map(thumbnail));
  refresh();
}

/** Keeps finished samples. */
export function add(made) {
  const first = Math.max(Date.now(), (pictures[0]?.id ?? 0) + 1);
  const fresh = made.map((one, i) => ({ ...one, id: first + made.length - i }));
  pictures.unshift(...fresh);
  by("pictures").prepend(...fresh.map(thumbnail));
  fresh.forEach(kept.put);
  refresh();
}

function drop(some) {
  const gone = new Set(some.map(({ id }) => id));
  pictures = pictures.filter(({ id }) => !gone.has(id));
  if (!pictures.length) kept.clear();
  for (const id of gone) {
    if (pictures.length) kept.remove(id);
    URL.revokeObjectURL(urls.get(id));
    urls.delete(id);
    by(`picture-${id}`)?.remove();
  }
  refresh();
  (by("pictures").querySelector("button") ?? by("open")).focus();
}

function refresh() {
  for (const id of ["pictures", "all", "clear"]) by(id).hidden = !pictures.length;
  stop();
}

function thumbnail(picture) {
  urls.set(picture.id, URL.createObjectURL(picture.blob));
  const image = make("img", {
    src: urls.get(picture.id),
    alt: described(picture),
    width: picture.shape[2],
    height: picture.shape[1],
    class: picture.shape[2] < 256 ? "small" : "",
  });
  return make(
    "button",
    { type: "button", id: `picture-${picture.id}`, tabindex: -1, onclick: () => look(picture) },
    image,
  );
}

const described = ({ label, seed, solver, steps }) =>
  `${label ? `${label}, ` : ""}seed ${seed}, ${solver}, ${counted(steps, "step")}`;

function look(picture) {
  shown = picture;
  const { label, model, solver, steps, guidance, negative, seed, nfe, seconds, shape } = picture;
  by("picture-title").textContent = label ? `${label}, seed ${seed}` : `Seed ${seed}`;
  const image = by("picture-image");
  Object.assign(image, {
    src: urls.get(picture.id),
    alt: described(picture),
    width: shape[2],
    height: shape[1],
    className: shape[2] < 256 ? "small" : "",
  });
  const facts = {
    Model: model,
    Solver: solver,
    Steps: steps,
    Guidance: guidance,
    ...(negative === undefined ? {} : { Negative: negative }),
    Calls: nfe,
    Time: duration(seconds),
  };
  by("picture-facts").replaceChildren(
    ...Object.entries(facts).map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, String(value))),
    ),
  );
  Object.assign(by("picture-save"), { href: urls.get(picture.id), download: named(picture) });
  by("picture").showModal();
}

function named({ model, solver, steps, label, seed }) {
  const parts = [model, solver, steps, ...(label ? [label.slice(0, LABEL)] : []), `seed${seed}`];
  return `${parts.join("-").replace(/[^\w.-]+/g, "_")}.png`;
}

async function saveAll() {
  const files = pictures.map(async (picture, i) => ({
    name: `${String(pictures.length - i).padStart(4, "0")}-${named(picture)}`,
    bytes: new Uint8Array(await picture.blob.arrayBuffer()),
  }));
  save(zip(await Promise.all(files)), "samples.zip");
}
