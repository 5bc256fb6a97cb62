// What the page asks of its server. Errors are `Refusal`s, whose message is a sentence to show.

import { events } from "./events.js";
import { parse, stringify } from "./exact.js";

const KEPT = "diffusion-engine-key";
const SILENT = "The server does not answer. Is it running, and is this machine connected to it?";

export class Refusal extends Error {
  constructor(message, status = null, wait = null) {
    super(message);
    this.status = status;
    this.wait = wait; // seconds until it may be asked again
  }
}

let askForKey = async () => null;
let asking = null; // the key that somebody types now: several requests may want it

/** Sets what is called where the server wants a key: (whether one was refused) -> key or null. */
export function keyFrom(ask) {
  askForKey = ask;
}

/** An answer of the server. Asks for the key where it wants one. */
export async function ask(path, { quiet = false, ...options } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEPT);
    const answer = await send(path, options, key);
    if (answer.ok) return answer;
    const refusal = await refused(answer);
    if (answer.status !== 401 || quiet) throw refusal;
    if (key !== null && key === sessionStorage.getItem(KEPT)) sessionStorage.removeItem(KEPT);
    if (sessionStorage.getItem(KEPT) !== null) continue; // given meanwhile
    asking ??= askForKey(key !== null).finally(() => (asking = null));
    const given = await asking;
    if (given === null) throw refusal;
    sessionStorage.setItem(KEPT, given);
  }
}

async function send(path, options, key) {
  const headers = { ...options.headers, ...(key === null ? {} : { authorization: `Bearer ${key}` }) };
  try {
    return await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(SILENT);
  }
}

/** The server's own sentence: {"error": {"message", ...}}. */
async function refused(answer) {
  const said = await answer.json().catch(() => null);
  const message = said?.error?.message;
  const wait = Number.parseFloat(answer.headers.get("retry-after") ?? "");
  return new Refusal(
    typeof message === "string"
      ? sentence(message)
      : `The server answers ${answer.status} and does not say why.`,
    answer.status,
    Number.isFinite(wait) ? wait : null,
  );
}

function sentence(message) {
  const text = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** The models that are served. */
export async function models() {
  return (await (await ask("v1/models")).json()).data;
}

/** Yields {kind, ...} of what becomes of a request for samples, to the end: the last is done.
 *  signal  gives it up: the server does so where its client hangs up */
export async function* draw(body, signal) {
  const answer = await ask("v1/samples", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream" },
    body: stringify({ ...body, stream: true }),
    signal,
  });
  try {
    for await (const { name, data } of events(answer.body)) {
      const said = parse(data);
      if (said.error) throw new Refusal(sentence(String(said.error.message)));
      yield { ...said, kind: name };
      if (name === "done") return;
    }
  } catch (error) {
    if (signal?.aborted) throw new DOMException("cancelled", "AbortError");
    throw error instanceof Refusal
      ? error
      : new Refusal("The server's answer broke off before the samples were done.");
  }
  throw new Refusal("The server's answer ended before the samples were done.");
}

/** The service's numbers by name, those of one name summed over labels: Prometheus' text format. */
export async function metrics() {
  const text = await (await ask("metrics", { quiet: true })).text();
  const found = new Map();
  for (const line of text.split("\n")) {
    const [, name, value] = /^(\w+)(?:\{.*\})? (\S+)/.exec(line) ?? [];
    if (name) found.set(name, (found.get(name) ?? 0) + Number(value));
  }
  return found;
}
