/**
 * PNG files of 8-bit RGB, as exporters write them, without a canvas: browsers that add noise to a
 * canvas would change what a graph is compared by.
 */

import type { Pixels } from "./triangle.js";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
// Bit depth 8, colour type RGB, and the only compression, filter method and order of lines.
const PLAIN_RGB = [8, 2, 0, 0, 0];
const CHANNELS = 3;

/**
 * Decode a PNG of 8-bit RGB that is not interlaced.
 *
 * @returns undefined for any other file, and where the browser inflates nothing.
 * @throws an error of the browser for compressed data that are damaged, RangeError for lines that
 * lack.
 */
export async function readRgbPng(content: Uint8Array<ArrayBuffer>): Promise<Pixels | undefined> {
  if (SIGNATURE.some((byte, i) => content[i] !== byte)) return undefined;
  if (typeof DecompressionStream === "undefined") return undefined;
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const packed: Uint8Array<ArrayBuffer>[] = [];
  let size: { width: number; height: number } | undefined;
  for (let at = SIGNATURE.length; at < content.length; ) {
    const length = view.getUint32(at);
    const data = content.subarray(at + 8, at + 8 + length);
    const type = String.fromCharCode(...content.subarray(at + 4, at + 8));
    if (type === "IHDR") {
      if (PLAIN_RGB.some((byte, i) => data[8 + i] !== byte)) return undefined;
      size = { width: view.getUint32(at + 8), height: view.getUint32(at + 12) };
    }
    if (type === "IDAT") packed.push(data);
    at += 12 + length;
  }
  if (!size) return undefined;
  const inflated = new Blob(packed).stream().pipeThrough(new DecompressionStream("deflate"));
  const lines = new Uint8Array(await new Response(inflated).arrayBuffer());
  return { data: unfiltered(lines, size.width * CHANNELS, size.height), ...size };
}

/** Undo the filters of PNG, section 9 of its specification: each line starts with its filter. */
function unfiltered(lines: Uint8Array, stride: number, height: number): Uint8Array {
  if (lines.length !== height * (stride + 1)) throw new RangeError("the PNG lacks lines");
  const pixels = new Uint8Array(height * stride);
  for (let y = 0; y < height; y++) {
    const filter = lines[y * (stride + 1)]!;
    const from = y * (stride + 1) + 1;
    const to = y * stride;
    for (let x = 0; x < stride; x++) {
      const left = x < CHANNELS ? 0 : pixels[to + x - CHANNELS]!;
      const above = y === 0 ? 0 : pixels[to + x - stride]!;
      const corner = x < CHANNELS || y === 0 ? 0 : pixels[to + x - stride - CHANNELS]!;
      pixels[to + x] = lines[from + x]! + predicted(filter, left, above, corner);
    }
  }
  return pixels;
}

function predicted(filter: number, left: number, above: number, corner: number): number {
  switch (filter) {
    case 0:
      return 0;
    case 1:
      return left;
    case 2:
      return above;
    case 3:
      return (left + above) >> 1;
    case 4:
      return paeth(left, above, corner);
    default:
      throw new RangeError(`the PNG has a line with filter ${filter}`);
  }
}

function paeth(left: number, above: number, corner: number): number {
  const toLeft = Math.abs(above - corner);
  const toAbove = Math.abs(left - corner);
  const toCorner = Math.abs(left + above - 2 * corner);
  if (toLeft <= toAbove && toLeft <= toCorner) return left;
  return toAbove <= toCorner ? above : corner;
}
