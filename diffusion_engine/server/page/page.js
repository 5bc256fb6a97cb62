// The page: what happens when something is pressed, dropped or opened.

import * as api from "./api.js";
import { by, counted, make } from "./dom.js";
import * as gallery from "./gallery.js";
import * as live from "./live.js";
import { chunks, pixels } from "./png.js";
import * as recipes from "./recipe.js";
import * as settings from "./settings.js";
import * as shipped from "./shipped.js";
import { Side, duration } from "./stage.js";

let run = null; // the AbortController of what is drawn now
let drawn = false; // whether anything was

function say(text) {
  by("status").textContent = text;
  by("problem").textContent = "";
}

function complain(error) {
  by("status").textContent = "";
  by("problem").textContent = error.message;
}

/** Where nothing was drawn yet: the places that samples will take. And what the model draws. */
function outline() {
  shipped.show(settings.model());
  if (drawn || !by("settings").checkValidity()) return;
  const sides = settings.sides();
  by("stage").replaceChildren(...sides.map((side) => new Side(side).element));
  by("stage").dataset.sides = String(sides.length);
}

/** Draws sides beside each other, and gives up what was drawn before. Returns what each made, or null. */
async function drawAll(asked, also = []) {
  drawn = true;
  run?.abort();
  const mine = (run = new AbortController());
  const sides = asked.map((one) => new Side(one));
  if (also.length) sides[0].say("Made again, and then compared.");
  by("stage").replaceChildren(...also, ...sides.map((side) => side.element));
  by("stage").dataset.sides = String(also.length + sides.length);
  const all = asked.reduce((sum, { samples }) => sum + samples.length, 0);
  say(`Drawing ${counted(all, "sample")} …`);
  by("cancel").setAttribute("aria-disabled", "false");
  reveal();
  live.watch(true);
  const began = performance.now();
  const ends = await Promise.allSettled(sides.map((side, i) => follow(side, asked[i], mine.signal)));
  if (run !== mine) return null;
  run = null;
  by("cancel").setAttribute("aria-disabled", "true");
  live.watch(false);
  const wrong = ends.find(({ status }) => status === "rejected")?.reason;
  if (mine.signal.aborted) say("Cancelled.");
  else if (wrong) complain(wrong);
  else say(`${counted(all, "sample")} in ${duration((performance.now() - began) / 1000)}.`);
  return wrong ? null : ends.map(({ value }, i) => ({ side: sides[i], made: value }));
}

/** One request, from its first event to its end. Returns the pictures that it made. */
async function follow(side, { body, samples, shape }, signal) {
  try {
    for await (const event of api.draw(body, signal)) {
      if (event.kind === "row") side.row(event);
      else if (event.kind === "preview") side.preview(event);
      else if (event.kind === "restarted") side.restart();
      else if (event.kind === "done") {
        side.done(event);
        const blobs = event.samples.map(({ png }) => blob(png));
        keep(blobs, event, body, samples, shape);
        return blobs;
      }
    }
  } catch (error) {
    side.stop();
    throw error;
  }
}

function keep(blobs, { nfe, seconds }, { model, spec, guidance, negative }, samples, shape) {
  const solver = spec.solver.name ?? spec.solver;
  const steps = spec.steps ?? spec.times.length - 1;
  const scale = (i) => Number(Array.isArray(guidance) ? guidance[i] : (guidance ?? 1));
  const not = (i) => (Array.isArray(negative) ? negative[i] : negative);
  const about = { model, solver, steps, nfe, seconds, shape };
  gallery.add(
    blobs.map((one, i) => ({ blob: one, ...about, ...samples[i], guidance: scale(i), negative: not(i) })),
  );
}

const blob = (base64) =>
  new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/png" });

/** On a narrow screen the samples are below the form, and above who looks at the gallery. */
function reveal() {
  const { top } = by("stage").getBoundingClientRect();
  if (top < 0 || top > innerHeight - 120) by("stage").scrollIntoView({ block: "start" });
}

/** Makes the samples of a picture again, beside the picture, and says whether they are the same. */
async function again(file) {
  try {
    const { recipe, picture } = await recipes.opened(file);
    const about = settings.served(recipe.network);
    if (!about)
      throw new Error(`This picture is of the model “${recipe.network}”, which is not served here.`);
    settings.write({ ...recipes.settings(recipe), second: null });
    const samples = recipe.seeds.map((seed, i) => ({
      label: settings.labelled(about, recipe.condition?.[i] ?? about.classes),
      seed: String(seed),
    }));
    const body = { ...recipes.request(recipe), preview: Math.ceil(recipe.points.length / 20) };
    const asked = { title: recipe.solver.name, note: "made again", body, samples, shape: about.decoded };
    const [end] = (await drawAll([asked], [original(file, picture, recipe)])) ?? [];
    if (end) judge(end, picture);
  } catch (error) {
    complain(error);
  }
}

async function judge({ side, made }, picture) {
  const decoded = await Promise.all(
    made.map(async (one) => pixels(chunks(new Uint8Array(await one.arrayBuffer())))),
  );
  const found = recipes.difference(picture, decoded);
  side.say(recipes.verdict(found), found && !found.values);
}

function original(file, picture, recipe) {
  const url = URL.createObjectURL(file);
  const looks = `${picture?.width < 512 ? "small" : ""} ${recipe.seeds.length > 1 ? "sheet" : ""}`;
  const onload = () => URL.revokeObjectURL(url);
  const image = make("img", { src: url, alt: "the picture as it was opened", class: looks, onload });
  return make(
    "article",
    { class: "side", "aria-label": "The picture" },
    make(
      "header",
      {},
      make(
        "div",
        {},
        make("h2", {}, "The picture"),
        make("p", { class: "quiet" }, file.name ?? "from the gallery"),
      ),
    ),
    make("p", { class: "verdict" }),
    make("div", { class: "original" }, image),
  );
}

function askForKey(wrong) {
  by("key-said").textContent = wrong
    ? "That is not this server's key."
    : "It is kept until this tab is closed, and sent to this server alone.";
  by("key-given").value = "";
  by("key").showModal();
  return new Promise((resolve) => {
    let given = null;
    by("key-form").onsubmit = (event) => {
      event.preventDefault();
      given = by("key-given").value.trim();
      by("key").close();
    };
    by("key-close").onclick = () => by("key").close();
    by("key").onclose = () => resolve(given);
  });
}

function listen() {
  by("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    drawAll(settings.sides());
  });
  by("cancel").addEventListener("click", () => run?.abort());
  by("open").addEventListener("change", ({ target }) => {
    if (target.files.length) again(target.files[0]);
    target.value = "";
  });
  let depth = 0; // of elements that a drag is over
  const over = (change) => {
    depth = Math.max(0, depth + change);
    by("drop").hidden = depth === 0;
  };
  const files = (event) => event.dataTransfer.types.includes("Files");
  addEventListener("dragenter", (event) => files(event) && over(1));
  addEventListener("dragleave", (event) => files(event) && over(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(-depth);
    if (event.dataTransfer.files.length) again(event.dataTransfer.files[0]);
  });
}

async function start() {
  api.keyFrom(askForKey);
  for (;;) {
    try {
      const found = (await api.models()).filter(
        ({ decoded }) => decoded.length === 3 && [1, 3].includes(decoded[0]),
      );
      if (!found.length) throw new Error("None of the models that are served makes pictures.");
      settings.offer(found, outline);
      break;
    } catch (error) {
      complain(error);
      if (!error.wait) {
        by("problem").textContent += " Load the page again to try again.";
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.wait));
    }
  }
  by("problem").textContent = "";
  document.querySelector("main").removeAttribute("aria-busy");
  listen();
  live.watch(false);
  shipped.open(again);
  await gallery.open(again);
}

start();
