// PNG, as the format's specification has it: texts, and the pixels of plain 8-bit pictures.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CHANNELS = { 0: 1, 2: 3, 4: 2, 6: 4 };
const MOST = 1 << 26; // bytes that a chunk may unpack to

const latin1 = new TextDecoder("latin1");
const utf8 = new TextDecoder();

/** The chunks of a file: {type, data}. Throws an Error, a sentence, where it is no PNG. */
export function chunks(bytes) {
  if (!SIGNATURE.every((byte, i) => bytes[i] === byte)) throw new Error("This file is no PNG.");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = [];
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    if (at + 12 + length > bytes.length) break;
    found.push({
      type: latin1.decode(bytes.subarray(at + 4, at + 8)),
      data: bytes.subarray(at + 8, at + 8 + length),
    });
    if (found.at(-1).type === "IEND") return found;
    at += 12 + length;
  }
  throw new Error("This PNG is cut off or damaged.");
}

/** The text that a PNG keeps under a keyword, null where it has none. */
export async function text(found, keyword) {
  for (const { type, data } of found) {
    if (!["tEXt", "zTXt", "iTXt"].includes(type)) continue;
    const end = data.indexOf(0);
    if (end < 0 || latin1.decode(data.subarray(0, end)) !== keyword) continue;
    const rest = data.subarray(end + 1);
    if (type === "tEXt") return latin1.decode(rest);
    if (type === "zTXt") return latin1.decode(await unpacked(rest.subarray(1)));
    return international(rest);
  }
  return null;
}

/** Of an iTXt chunk behind its keyword: packed?, method, language, 0, keyword, 0, text. */
async function international(rest) {
  const language = rest.indexOf(0, 2);
  const translated = language < 0 ? -1 : rest.indexOf(0, language + 1);
  if (translated < 0) throw new Error("The text in this PNG is damaged.");
  const content = rest.subarray(translated + 1);
  return utf8.decode(rest[0] ? await unpacked(content) : content);
}

/** {width, height, channels, data} of an 8-bit picture, null where it is another kind of PNG. */
export async function pixels(found) {
  const header = found.find((chunk) => chunk.type === "IHDR")?.data;
  if (header?.length !== 13) return null;
  const view = new DataView(header.buffer, header.byteOffset, 13);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [depth, colour, , , interlaced] = header.subarray(8);
  const channels = CHANNELS[colour];
  if (depth !== 8 || !channels || interlaced || width * height * channels > MOST) return null;
  const data = await unpacked(
    joined(found.filter((chunk) => chunk.type === "IDAT").map((chunk) => chunk.data)),
  );
  if (data.length !== height * (width * channels + 1)) return null;
  return { width, height, channels, data: unfiltered(data, width * channels, height, channels) };
}

/** The bytes of scanlines without their filters (PNG 3, section 9). */
function unfiltered(data, stride, height, channels) {
  const out = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = data[y * (stride + 1)];
    for (let x = 0; x < stride; x++) {
      const at = y * stride + x;
      const left = x >= channels ? out[at - channels] : 0;
      const up = y ? out[at - stride] : 0;
      const corner = y && x >= channels ? out[at - stride - channels] : 0;
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter] ?? 0;
      out[at] = data[at + y + 1] + guess;
    }
  }
  return out;
}

function paeth(left, up, corner) {
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

/** What a zlib stream holds. Throws where it is damaged, or unpacks to more than fits. */
async function unpacked(bytes) {
  const parts = [];
  let size = 0;
  try {
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return joined(parts);
      size += value.length;
      if (size > MOST) {
        await reader.cancel();
        break;
      }
      parts.push(value);
    }
  } catch {
    throw new Error("What this PNG holds is damaged.");
  }
  throw new Error("This PNG is too large.");
}

function joined(parts) {
  const out = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
