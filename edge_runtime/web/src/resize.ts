/**
 * From a decoded picture to the graph's input, as edge_runtime/README.md defines it. No canvas:
 * how a canvas resizes is not defined, and differs between browsers.
 */

import { triangle, type Part, type Pixels } from "./triangle.js";

/**
 * How a decoded picture becomes the graph's input: `width` and `height` of the result in pixels,
 * 1 to 4096. `crop` takes the largest centred part that has the target's proportions, `squash` the
 * whole picture whatever its proportions, `pad` fits the whole picture in and fills with white.
 */
export interface Resize {
  readonly width: number;
  readonly height: number;
  readonly policy: "crop" | "squash" | "pad";
}

type Size = { readonly width: number; readonly height: number };

const WHITE = 255;

/**
 * Resize RGB pixels of any size, in the very arithmetic of Python.
 *
 * @param pixels - uint8 RGB (height, width, 3).
 * @returns uint8 RGB (how.height, how.width, 3), in memory of its own.
 */
export function resizePixels(pixels: Pixels, how: Resize): Pixels {
  if (how.policy === "pad") return pad(pixels, how);
  const part = how.policy === "crop" ? centredPart(pixels, how) : whole(pixels);
  return triangle(pixels, part, how.width, how.height);
}

/** The largest centred part of a picture that has the proportions of `target`. */
export function centredPart({ width, height }: Size, target: Size): Part {
  // Whole pixels, so that every language cuts at the same place.
  if (width * target.height > height * target.width) {
    const part = Math.max(1, Math.floor((height * target.width) / target.height));
    return { left: Math.floor((width - part) / 2), top: 0, width: part, height };
  }
  const part = Math.max(1, Math.floor((width * target.height) / target.width));
  return { left: 0, top: Math.floor((height - part) / 2), width, height: part };
}

function whole({ width, height }: Size): Part {
  return { left: 0, top: 0, width, height };
}

function pad(pixels: Pixels, target: Size): Pixels {
  const { width, height } = pixels;
  const wide = width * target.height > height * target.width;
  const innerWidth = wide ? target.width : nearest(width * target.height, height);
  const innerHeight = wide ? nearest(height * target.width, width) : target.height;
  const inner = triangle(pixels, whole(pixels), innerWidth, innerHeight);
  const left = Math.floor((target.width - innerWidth) / 2);
  const top = Math.floor((target.height - innerHeight) / 2);
  const data = new Uint8Array(target.width * target.height * 3).fill(WHITE);
  for (let y = 0; y < innerHeight; y++) {
    const row = inner.data.subarray(y * innerWidth * 3, (y + 1) * innerWidth * 3);
    data.set(row, ((top + y) * target.width + left) * 3);
  }
  return { data, width: target.width, height: target.height };
}

function nearest(numerator: number, denominator: number): number {
  return Math.max(1, Math.floor((2 * numerator + denominator) / (2 * denominator)));
}
