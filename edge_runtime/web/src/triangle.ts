/**
 * The antialiased triangle filter of edge_runtime/README.md, bit for bit: rows before columns,
 * weights in double precision made into integers, each pass rounded to 8 bits.
 */

/** uint8 RGB, row by row: `data` has `height * width * 3` bytes. */
export interface Pixels {
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
}

/** A rectangle of a picture, in whole pixels. */
export interface Part {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

const BITS = 22;
const HALF = 1 << (BITS - 1);

/** `part` of a picture, resized to `width` x `height`. */
export function triangle(pixels: Pixels, part: Part, width: number, height: number): Pixels {
  return alongColumns(alongRows(pixels, part, width), height);
}

/** What one output pixel takes: source pixels from `first` on, by weight; the weights of all
 * add up to about 2^22, so that sums with 8-bit pixels stay below 2^31. */
interface Taps {
  readonly first: number;
  readonly weights: Int32Array;
}

function taps(length: number, size: number): Taps[] {
  const scale = length / size;
  const support = Math.max(1, scale);
  const inverse = 1 / support;
  return Array.from({ length: size }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - support + 0.5));
    const last = Math.min(length, Math.floor(centre + support + 0.5));
    const weights = new Float64Array(last - first);
    let total = 0;
    for (let k = 0; k < weights.length; k++) {
      const weight = Math.max(0, 1 - Math.abs((first + k - centre + 0.5) * inverse));
      weights[k] = weight;
      total += weight;
    }
    const fixed = weights.map((weight) => Math.floor((weight / total) * 2 ** BITS + 0.5));
    return { first, weights: Int32Array.from(fixed) };
  });
}

function alongRows(pixels: Pixels, part: Part, size: number): Pixels {
  const { left, top, width, height } = part;
  const source = pixels.data;
  const data = new Uint8Array(size * height * 3);
  const all = width === size ? [] : taps(width, size);
  for (let y = 0, to = 0; y < height; y++) {
    const row = ((top + y) * pixels.width + left) * 3;
    if (width === size) data.set(source.subarray(row, row + size * 3), y * size * 3);
    for (const { first, weights } of all) {
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      for (let k = 0, from = row + first * 3; k < weights.length; k++, from += 3) {
        const weight = weights[k]!;
        red += weight * source[from]!;
        green += weight * source[from + 1]!;
        blue += weight * source[from + 2]!;
      }
      data[to++] = level(red);
      data[to++] = level(green);
      data[to++] = level(blue);
    }
  }
  return { data, width: size, height };
}

function alongColumns(pixels: Pixels, size: number): Pixels {
  if (pixels.height === size) return pixels;
  const stride = pixels.width * 3;
  const source = pixels.data;
  const data = new Uint8Array(size * stride);
  const sums = new Int32Array(stride);
  taps(pixels.height, size).forEach(({ first, weights }, y) => {
    sums.fill(HALF);
    for (let k = 0, from = first * stride; k < weights.length; k++) {
      const weight = weights[k]!;
      for (let x = 0; x < stride; x++) sums[x]! += weight * source[from++]!;
    }
    for (let x = 0; x < stride; x++) data[y * stride + x] = level(sums[x]!);
  });
  return { data, width: pixels.width, height: size };
}

function level(sum: number): number {
  return Math.min(255, Math.max(0, sum >> BITS));
}
