/**
 * EXIF orientation of WebP files. Browsers turn JPEG and PNG pictures upright; Chromium leaves
 * WebP as it is, others do not, so the browser is tried once and what it leaves out is done here.
 */

import { MAX_SEGMENTS, view } from "./header.js";
import type { Pixels } from "./triangle.js";

const ORIENTATION = 0x0112;
const MAX_EXIF = 65536;
// 2x1 pixels, to be turned by 90 degrees.
const PROBE =
  "UklGRk4AAABXRUJQVlA4WAoAAAAIAAAAAQAAAAAAVlA4TA4AAAAvAQAAAAcQEf0P" +
  "RET/A0VYSUYaAAAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA=";

let applied: Promise<boolean> | undefined;

/** The orientation, 1 to 8, that decoding `file` leaves to be applied. */
export async function orientationLeft(file: Blob): Promise<number> {
  const orientation = await webpOrientation(file);
  if (orientation === 1) return 1;
  applied ??= isApplied();
  return (await applied) ? 1 : orientation;
}

async function isApplied(): Promise<boolean> {
  const bytes = Uint8Array.from(atob(PROBE), (character) => character.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes]), { imageOrientation: "from-image" });
  const turned = bitmap.height > bitmap.width;
  bitmap.close();
  return turned;
}

/** The orientation in a WebP file's EXIF chunk; 1 for every other file. */
export async function webpOrientation(file: Blob): Promise<number> {
  const head = await view(file, 0, 21);
  if (head.byteLength < 21 || fourLetters(head, 0) !== "RIFF") return 1;
  const hasExif = fourLetters(head, 12) === "VP8X" && (head.getUint8(20) & 8) !== 0;
  if (fourLetters(head, 8) !== "WEBP" || !hasExif) return 1;
  for (let at = 12, segment = 0; at + 8 <= file.size && segment < MAX_SEGMENTS; segment++) {
    const chunk = await view(file, at, 8);
    const size = chunk.getUint32(4, true);
    if (fourLetters(chunk, 0) === "EXIF") {
      return tiffOrientation(await view(file, at + 8, Math.min(size, MAX_EXIF)));
    }
    at += 8 + size + (size % 2);
  }
  return 1;
}

function tiffOrientation(exif: DataView): number {
  try {
    // Some writers keep the prefix that JPEG has.
    const start = fourLetters(exif, 0) === "Exif" ? 6 : 0;
    const little = exif.getUint16(start) === 0x4949;
    const directory = start + exif.getUint32(start + 4, little);
    const count = exif.getUint16(directory, little);
    for (let entry = directory + 2; entry < directory + 2 + count * 12; entry += 12) {
      if (exif.getUint16(entry, little) !== ORIENTATION) continue;
      const value = exif.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // cut off: no orientation, as in Python
  }
  return 1;
}

/** Pixels turned upright by an EXIF orientation. */
export function turned(pixels: Pixels, orientation: number): Pixels {
  if (orientation === 1) return pixels;
  const { data: source, width: w, height: h } = pixels;
  const [width, height] = orientation < 5 ? [w, h] : [h, w];
  const data = new Uint8Array(source.length);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += 3) {
      const [a, b] = orientation < 5 ? [x, y] : [y, x];
      const left = [2, 3, 7, 8].includes(orientation) ? w - 1 - a : a;
      const top = [3, 4, 6, 7].includes(orientation) ? h - 1 - b : b;
      const from = (top * w + left) * 3;
      data[to] = source[from]!;
      data[to + 1] = source[from + 1]!;
      data[to + 2] = source[from + 2]!;
    }
  }
  return { data, width, height };
}

function fourLetters(bytes: DataView, at: number): string {
  return String.fromCharCode(...[0, 1, 2, 3].map((i) => bytes.getUint8(at + i)));
}
