// A ZIP file of files that are packed already (APPNOTE 6.3, method 0).

const DATE = 0x21; // 1980-01-01, the first that the format knows

/** A blob that holds files {name, bytes}. */
export function zip(files) {
  const parts = [];
  const directory = [];
  let at = 0;
  for (const { name, bytes } of files) {
    const title = new TextEncoder().encode(name);
    const about = fields(
      [20, 0x800, 0, 0, DATE],
      [crc32(bytes), bytes.length, bytes.length],
      [title.length, 0],
    );
    parts.push(fields([], [0x04034b50], []), about, title, bytes);
    directory.push(fields([], [0x02014b50], [20]), about, fields([0, 0, 0], [0, at], []), title);
    at += 4 + about.length + title.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = fields([], [0x06054b50], [0, 0, files.length, files.length]);
  return new Blob([...parts, ...directory, end, fields([], [size, at], [0])], { type: "application/zip" });
}

/** Little-endian: numbers of two bytes, of four, and of two again. */
function fields(first, middle, last) {
  const view = new DataView(new ArrayBuffer(2 * first.length + 4 * middle.length + 2 * last.length));
  let at = 0;
  for (const value of first) view.setUint16((at += 2) - 2, value, true);
  for (const value of middle) view.setUint32((at += 4) - 4, value, true);
  for (const value of last) view.setUint16((at += 2) - 2, value, true);
  return new Uint8Array(view.buffer);
}

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc32(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}
