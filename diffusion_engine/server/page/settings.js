// The form: what it holds, what a link holds of it, and what it asks for.

import { by, counted, make, roving } from "./dom.js";
import * as prompts from "./prompts.js";

const LISTED = 24; // classes that get a button each; of more, numbers are typed
const SHOWN = 20; // previews of a sample at most
const NUMBER = /^-?\d+(\.\d+)?$/;

let models = [];
let classesStop = () => {};
let changed = () => {};

/** Fills the form with what is served, then with what a link says.
 *  onChange  called when it holds something else */
export function offer(served, onChange) {
  models = served;
  changed = onChange;
  by("model").replaceChildren(...models.map(({ id }) => make("option", { value: id }, id)));
  by("of-model").hidden = models.length < 2;
  classesStop = roving(by("classes"));
  by("model").addEventListener("input", () => fit(model()));
  by("compare").addEventListener("input", () => (by("second").hidden = !by("compare").checked));
  by("every").addEventListener("click", () => write({ classes: [...Array(model().classes).keys()] }));
  by("none").addEventListener("click", () => write({ classes: [] }));
  by("dice").addEventListener("click", () => {
    by("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
    keep();
  });
  by("settings").addEventListener("input", keep);
  addEventListener("hashchange", fromLink);
  fit(model());
  if (location.hash) fromLink();
  else keep();
}

/** The model that is chosen. */
export function model() {
  return models.find(({ id }) => id === by("model").value);
}

/** What a class or a prompt is called; nothing where it is none, as the null class is. */
export const labelled = ({ labels, classes }, label) => {
  if (typeof label === "string") return label;
  return label < classes ? (labels?.[label] ?? String(label)) : "";
};

export const served = (name) => models.find(({ id }) => id === name);

const named = (solver) => solver?.name ?? solver ?? "";

/** {name, calls, order, stochastic} of the solvers that a model takes; its own at least. */
function solversOf({ solvers, default: own }) {
  const known = Object.entries(solvers ?? {}).map(([name, about]) => ({ name, ...about }));
  return known.length ? known : [{ name: named(own.solver), calls: 1, order: 0, stochastic: false }];
}

/** The parts of the form that depend on the model. */
function fit({ default: own, classes, guided, guidance = 1, ...about }) {
  const solvers = solversOf({ default: own, ...about });
  const kinds = [
    ["Deterministic", solvers.filter(({ stochastic }) => !stochastic)],
    ["With noise at each step", solvers.filter(({ stochastic }) => stochastic)],
  ];
  for (const select of [by("solver"), by("solver2")]) {
    const before = select.value;
    select.replaceChildren(
      ...kinds.map(([label, listed]) =>
        make("optgroup", { label }, ...listed.map(({ name }) => make("option", { value: name }, name))),
      ),
    );
    choose(select, before) || choose(select, named(own.solver));
  }
  by("steps").value = by("steps2").value = own.steps ?? 20;
  choose(by("solver2"), by("solver").value === "ddim" ? "heun" : "ddim");
  buttons(about.text ? 0 : classes, about.labels);
  prompts.fit({ text: about.text, guided: guided && !about.reads_scale });
  if (about.text) by("count-name").textContent = "Of each";
  const led = (about.text || classes > 0) && (guided || about.reads_scale);
  by("of-guidance").hidden = by("guidance").disabled = !led;
  by("guidance").value = Number.isFinite(own.guidance) ? own.guidance : guidance;
}

function buttons(classes, labels) {
  const many = classes > LISTED;
  by("of-classes").hidden = !classes;
  by("classes").hidden = many;
  by("class-list").hidden = by("class-list").disabled = !many;
  by("class-list").value = many ? "0" : "";
  by("every").hidden = by("none").hidden = many;
  by("count-name").textContent = classes ? "Of each" : "Samples";
  const listed = Array.from({ length: many ? 0 : classes }, (_, label) =>
    make(
      "button",
      { type: "button", value: label, "aria-pressed": "true", tabindex: -1, onclick: press },
      labelled({ labels, classes }, label),
    ),
  );
  by("classes").classList.toggle("words", Boolean(labels?.some((label) => label.length > 3)));
  by("classes").replaceChildren(...listed);
  classesStop();
}

function press({ currentTarget: button }) {
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
  keep();
}

/** What the form holds. */
export function read() {
  const second = by("compare").checked
    ? { solver: by("solver2").value, steps: Number(by("steps2").value) }
    : null;
  return {
    model: by("model").value,
    solver: by("solver").value,
    steps: Number(by("steps").value),
    second,
    classes: chosen(),
    ...prompts.read(),
    seed: by("seed").value,
    count: Number(by("count").value),
    guidance: Number(by("guidance").value),
  };
}

function chosen() {
  if (!by("class-list").disabled)
    return by("class-list")
      .value.split(/[\s,]+/)
      .filter(Boolean)
      .map(Number);
  return [...by("classes").children]
    .filter((button) => button.getAttribute("aria-pressed") === "true")
    .map((button) => Number(button.value));
}

/** Puts settings into the form; what it does not offer stays as it is. */
export function write({ model: name, solver, steps, second, classes, seed, count, guidance, ...words }) {
  if (name !== undefined && name !== by("model").value && choose(by("model"), name)) fit(model());
  choose(by("solver"), solver);
  put("steps", steps);
  if (second !== undefined) {
    by("compare").checked = second !== null;
    by("second").hidden = second === null;
    choose(by("solver2"), second?.solver);
    put("steps2", second?.steps);
  }
  if (classes !== undefined) {
    for (const button of by("classes").children)
      button.setAttribute("aria-pressed", classes.includes(Number(button.value)));
    if (!by("class-list").disabled) by("class-list").value = classes.join(", ");
  }
  prompts.write(words);
  put("seed", seed);
  put("count", count);
  put("guidance", guidance);
  keep();
}

function choose(select, value) {
  const option = [...select.options].find((one) => one.value === value);
  if (option) option.selected = true;
  return Boolean(option);
}

/** A number into a field, where the field takes it. */
function put(id, value) {
  const before = by(id).value;
  if (!NUMBER.test(value)) return;
  by(id).value = value;
  check();
  if (!by(id).checkValidity()) by(id).value = before;
}

/** A browser takes 1e3 and 2.0 for whole numbers, which a seed beyond 2^53 could not be written as. */
function check() {
  by("seed").setCustomValidity(/^\d+$/.test(by("seed").value) ? "" : "A seed is a whole number, in digits.");
}

/** Keeps the form in the address, so that a link shares it. */
function keep() {
  check();
  for (const id of ["solver", "solver2"]) {
    const about = solversOf(model()).find(({ name }) => name === by(id).value);
    by(`${id}-about`).textContent = [...kind(about), `${counted(about.calls, "call")} a step`].join(", ");
  }
  const { second, classes, prompts: listed, negative, ...rest } = read();
  const said = new URLSearchParams({ ...rest, classes: classes.join(" ") });
  if (listed.length) said.set("prompts", listed.join("\n"));
  if (negative) said.set("negative", negative);
  if (second) said.set("second", `${second.solver} ${second.steps}`);
  history.replaceState(null, "", `#${said}`);
  changed();
}

function fromLink() {
  const said = new URLSearchParams(location.hash.slice(1));
  const given = Object.fromEntries(
    ["model", "solver", "steps", "seed", "count", "guidance"].map((name) => [
      name,
      said.get(name) ?? undefined,
    ]),
  );
  const [solver, steps] = (said.get("second") ?? "").split(" ");
  const classes = said.has("classes")
    ? said.get("classes").split(" ").filter(Boolean).map(Number)
    : undefined;
  const words = { prompts: prompts.lines(said.get("prompts") ?? ""), negative: said.get("negative") ?? "" };
  write({ ...given, ...words, second: solver ? { solver, steps } : null, classes });
}

/** What each side of a run draws: {title, note, body, samples, shape, group}. */
export function sides() {
  const { second, solver, steps, ...shared } = read();
  return [{ solver, steps }, ...(second ? [second] : [])].map((method) => side(method, shared));
}

function side({ solver, steps }, { model: name, classes, prompts: texts, negative, seed, count, guidance }) {
  const about = model();
  const given = about.text ? texts : classes;
  const own = about.default.solver; // comes with the options that the model has it with
  const labels = given.length ? given : [null];
  const seeds = Array.from({ length: count }, (_, i) => BigInt(seed) + BigInt(i));
  const pairs = seeds.flatMap((one) => labels.map((label) => ({ label, seed: one })));
  const body = {
    model: name,
    spec: { solver: named(own) === solver ? own : solver, steps },
    seeds: pairs.map((pair) => pair.seed),
    preview: Math.ceil(steps / SHOWN),
  };
  if (given.length) body.condition = pairs.map((pair) => pair.label);
  if (given.length && (about.guided || about.reads_scale)) body.guidance = guidance;
  if (given.length && negative) body.negative = negative;
  return {
    title: solver,
    note: [counted(steps, "step"), ...kind(solversOf(about).find((one) => one.name === solver))].join(", "),
    body,
    samples: pairs.map((pair) => ({
      label: labelled(about, pair.label ?? about.classes),
      seed: String(pair.seed),
    })),
    shape: about.decoded,
    group: given.length > 1 ? given.length : count,
  };
}

const kind = ({ order, stochastic }) => [
  ...(order ? [`order ${order}`] : []),
  stochastic ? "with noise" : "deterministic",
];
