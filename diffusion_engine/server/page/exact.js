// JSON whose whole numbers stay exact: a seed may be any below 2^64, and a double holds those below 2^53.

const WHOLE = /^-?\d+$/;

/** As JSON.parse; whole numbers that a double does not hold are BigInts. */
export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
    return WHOLE.test(context?.source ?? "") ? BigInt(context.source) : value;
  });
}

/** As JSON.stringify, of values in which BigInts stand too. */
export function stringify(value) {
  return JSON.stringify(value, (_, part) => (typeof part === "bigint" ? whole(part) : part));
}

function whole(number) {
  const plain = Number(number);
  return Number.isSafeInteger(plain) ? plain : JSON.rawJSON(String(number));
}
