// Tensors: made, read from files, sent and received as bytes of the Open Inference Protocol.

const plain = (type, integer, range) => ({ type, integer, range, bytes: type.BYTES_PER_ELEMENT });

export const KINDS = {
  BOOL: plain(Uint8Array, true, [0, 1]),
  INT8: plain(Int8Array, true, [-128, 127]), INT16: plain(Int16Array, true, [-32768, 32767]),
  INT32: plain(Int32Array, true, [-(2 ** 31), 2 ** 31 - 1]), INT64: plain(BigInt64Array, true, [-(2n ** 63n), 2n ** 63n - 1n]),
  UINT8: plain(Uint8Array, true, [0, 255]), UINT16: plain(Uint16Array, true, [0, 65535]),
  UINT32: plain(Uint32Array, true, [0, 2 ** 32 - 1]), UINT64: plain(BigUint64Array, true, [0n, 2n ** 64n - 1n]),
  FP16: { type: Uint16Array, integer: false, bytes: 2, half: true },
  BF16: { type: Uint16Array, integer: false, bytes: 2, brain: true },
  FP32: plain(Float32Array, false), FP64: plain(Float64Array, false),
  BYTES: { integer: false, bytes: 0, text: true },
};

export const product = (shape) => shape.reduce((all, axis) => all * axis, 1);

// ---- made ----

export function zeros(kind, length) {
  return new Array(length).fill(KINDS[kind].text ? "" : 0);
}

// The same numbers for the same seed: normal ones with three decimals, zeros and ones for whole numbers.
export function randoms(kind, length, seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const values = new Array(length);
  for (let at = 0; at < length; at += 1) {
    if (KINDS[kind].text) values[at] = `text ${at + 1}`;
    else if (KINDS[kind].integer) values[at] = uniform() < 0.5 ? 0 : 1;
    else values[at] = Math.round(1000 * Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform())) / 1000 || 0;
  }
  return values;
}

// ---- read ----

// Returns values and shape of nested lists; a number alone has the shape of a scalar.
export function nested(told) {
  const shape = [];
  for (let at = told; Array.isArray(at); at = at[0]) shape.push(at.length);
  const values = [];
  const walk = (item, depth) => {
    if (!Array.isArray(item)) {
      if (depth !== shape.length) throw new Error("its lists are not of equal depth");
      values.push(item);
      return;
    }
    if (depth >= shape.length) throw new Error("its lists are not of equal depth");
    if (item.length !== shape[depth]) throw new Error("its lists are not of equal length");
    for (const inner of item) walk(inner, depth + 1);
  };
  walk(told, 0);
  return { values, shape };
}

// JSON writes no NaN and no infinity, and whole numbers beyond 2^53 lose digits: both are read as they stand.
export function readJson(text) {
  const quoted = text.replace(/"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b|(?<![.\deE+-])-?\d{16,}(?![\d.eE])/g, (found) => (found.startsWith('"') ? found : `"\\u0000${found}"`));
  return nested(JSON.parse(quoted, (_, value) => {
    if (typeof value !== "string" || !value.startsWith("\u0000")) return value;
    const bare = value.slice(1);
    return /^-?\d+$/.test(bare) ? BigInt(bare) : Number(bare);
  }));
}

const NUMPY = {
  f2: (view, at, little) => fromHalf(view.getUint16(at, little)), f4: (view, at, little) => view.getFloat32(at, little), f8: (view, at, little) => view.getFloat64(at, little),
  i1: (view, at) => view.getInt8(at), i2: (view, at, little) => view.getInt16(at, little), i4: (view, at, little) => view.getInt32(at, little), i8: (view, at, little) => view.getBigInt64(at, little),
  u1: (view, at) => view.getUint8(at), u2: (view, at, little) => view.getUint16(at, little), u4: (view, at, little) => view.getUint32(at, little), u8: (view, at, little) => view.getBigUint64(at, little),
  b1: (view, at) => (view.getUint8(at) ? 1 : 0),
};

export function readNumpy(content) {
  const view = new DataView(content);
  const magic = new Uint8Array(content, 0, Math.min(6, content.byteLength));
  if (String.fromCharCode(...magic) !== "\u0093NUMPY" || content.byteLength < 12) throw new Error("it is no .npy file");
  const wide = view.getUint8(6) >= 2;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const begin = (wide ? 12 : 10) + length;
  const header = new TextDecoder().decode(new Uint8Array(content, wide ? 12 : 10, Math.min(length, content.byteLength - (wide ? 12 : 10))));
  const descr = /'descr':\s*'([<>|=]?)([a-z]\d+)'/.exec(header);
  const axes = /'shape':\s*\(([^)]*)\)/.exec(header);
  const read = descr && NUMPY[descr[2]];
  if (!read || !axes) throw new Error(`it holds ${descr ? descr[2] : "something"} that is no number`);
  const shape = axes[1].split(",").map((axis) => axis.trim()).filter(Boolean).map(Number);
  const bytes = Number(descr[2].slice(1));
  const total = product(shape);
  if (begin + total * bytes > content.byteLength) throw new Error("it breaks off before its end");
  const values = new Array(total);
  for (let at = 0; at < total; at += 1) values[at] = read(view, begin + at * bytes, descr[1] !== ">");
  return { values: /'fortran_order':\s*True/.test(header) ? turned(values, shape) : values, shape };
}

// From the first axis running fastest to the last one running fastest.
function turned(values, shape) {
  const result = new Array(values.length);
  const steps = shape.map((_, axis) => product(shape.slice(0, axis)));
  const at = shape.map(() => 0);
  for (let to = 0; to < values.length; to += 1) {
    result[to] = values[at.reduce((sum, index, axis) => sum + index * steps[axis], 0)];
    for (let axis = shape.length - 1; axis >= 0 && ++at[axis] === shape[axis]; axis -= 1) at[axis] = 0;
  }
  return result;
}

// Returns the shape that values have as an input of a model, -1 standing for any size; a lone row gets its batch axis.
export function fitted(shape, wanted) {
  const fits = (told) => told.length === wanted.length && wanted.every((axis, index) => axis === -1 || axis === told[index]);
  if (fits(shape)) return shape;
  const row = [1, ...shape];
  if (fits(row)) return row;
  throw new Error(`its shape is (${shape.join(", ")}), and the model takes (${wanted.map((axis) => (axis === -1 ? "any" : axis)).join(", ")})`);
}

// ---- bytes ----

export function toBytes(kind, values) {
  const { type, integer, range, half, brain, text } = KINDS[kind];
  if (text) {
    const encoder = new TextEncoder();
    const pieces = values.map((value) => encoder.encode(String(value)));
    const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + 4 + piece.length, 0));
    const view = new DataView(bytes.buffer);
    let at = 0;
    for (const piece of pieces) {
      view.setUint32(at, piece.length, true);
      bytes.set(piece, at + 4);
      at += 4 + piece.length;
    }
    return bytes;
  }
  const array = new type(values.length);
  values.forEach((value, at) => {
    if (typeof value === "boolean") value = value ? 1 : 0;
    if (typeof value !== "number" && typeof value !== "bigint") throw new Error(`value ${at + 1} is no number`);
    if (integer) {
      if (typeof value === "number" && !Number.isInteger(value)) throw new Error(`value ${at + 1} is ${value}, and the model takes whole numbers`);
      if (value < range[0] || value > range[1]) throw new Error(`value ${at + 1} is ${value}, beyond what ${kind} holds`);
      array[at] = typeof range[0] === "bigint" ? BigInt(value) : Number(value);
    } else if (half) array[at] = toHalf(Number(value));
    else if (brain) array[at] = toBrain(Number(value));
    else array[at] = Number(value);
  });
  return new Uint8Array(array.buffer);
}

export function fromBytes(kind, bytes) {
  const { type, half, brain, text } = KINDS[kind];
  const own = bytes.slice().buffer; // begins where a typed array may begin
  if (text) {
    const view = new DataView(own);
    const values = [];
    const decoder = new TextDecoder();
    for (let at = 0; at < own.byteLength;) {
      const length = view.getUint32(at, true);
      values.push(decoder.decode(new Uint8Array(own, at + 4, length)));
      at += 4 + length;
    }
    return values;
  }
  const array = new type(own);
  if (half) return Array.from(array, fromHalf);
  if (brain) return Array.from(array, fromBrain);
  return kind === "BOOL" ? Array.from(array, Boolean) : Array.from(array);
}

export function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

// Rounded once, to the nearest, and to the even one of two.
export function toHalf(number) {
  const sign = number < 0 || Object.is(number, -0) ? 0x8000 : 0;
  const size = Math.abs(number);
  if (Number.isNaN(number)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(size || 2 ** -30)));
  const even = (told) => { const down = Math.floor(told); const rest = told - down; return rest > 0.5 || (rest === 0.5 && down % 2) ? down + 1 : down; };
  const scaled = even(size / 2 ** (exponent - 10));
  return sign | (scaled < 1024 ? scaled : ((exponent + 15) << 10) + (scaled - 1024));
}

const words = new Uint32Array(1);
const floats = new Float32Array(words.buffer);

export function fromBrain(bits) {
  words[0] = bits << 16;
  return floats[0];
}

export function toBrain(number) {
  floats[0] = number;
  if (Number.isNaN(number)) return 0x7fc0;
  return (words[0] + 0x7fff + ((words[0] >>> 16) & 1)) >>> 16;
}
