/**
 * EXIF orientation that browsers leave out. All turn JPEG pictures upright, and PNG pictures whose
 * EXIF stands before the pixels. Chromium leaves WebP as it is, and PNG whose EXIF comes last (as
 * ImageMagick writes it); others do not. So the browser is tried once with each kind, and what it
 * leaves out is done here.
 */

import { MAX_SEGMENTS, view } from "./header.js";
import type { Pixels } from "./triangle.js";

const ORIENTATION = 0x0112;
const MAX_EXIF = 65536;
const SHORT = 3;
const PNG_SIGNATURE = [0x89504e47, 0x0d0a1a0a];
// 2x1 pixels each, to be turned by 90 degrees.
const PROBES = {
  webp:
    "UklGRk4AAABXRUJQVlA4WAoAAAAIAAAAAQAAAAAAVlA4TA4AAAAvAQAAAAcQEf0P" +
    "RET/A0VYSUYaAAAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA=",
  latePng:
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAAAAADRSSBWAAAAC0lEQVR42mNg+A8AAQIBANEay48A" +
    "AAAaZVhJZk1NACoAAAAIAAEBEgADAAAAAQAGAAAAAAAA1mdLaQAAAABJRU5ErkJggg==",
};

const applied = new Map<string, Promise<boolean>>();

/** The orientation, 1 to 8, that decoding `file` leaves to be applied. */
export async function orientationLeft(file: Blob): Promise<number> {
  const webp = await webpOrientation(file);
  if (webp !== 1) return (await isApplied(PROBES.webp)) ? 1 : webp;
  const png = await latePngOrientation(file);
  return png === 1 || (await isApplied(PROBES.latePng)) ? 1 : png;
}

function isApplied(probe: string): Promise<boolean> {
  const known = applied.get(probe);
  if (known) return known;
  const found = tried(probe);
  applied.set(probe, found);
  return found;
}

async function tried(probe: string): Promise<boolean> {
  const bytes = Uint8Array.from(atob(probe), (character) => character.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes]), { imageOrientation: "from-image" });
  const isTurned = bitmap.height > bitmap.width;
  bitmap.close();
  return isTurned;
}

/** The orientation of a PNG whose EXIF chunk stands behind its pixels; 1 for every other file. */
export async function latePngOrientation(file: Blob): Promise<number> {
  const head = await view(file, 0, 8);
  if (head.byteLength < 8 || PNG_SIGNATURE.some((word, i) => head.getUint32(4 * i) !== word)) {
    return 1;
  }
  // Pixels come in thousands of chunks, so the file is read at once.
  const content = await view(file, 0, file.size);
  let isBehind = false;
  for (let at = 8; at + 12 <= content.byteLength; ) {
    const size = content.getUint32(at);
    const kind = fourLetters(content, at + 4);
    if (kind === "IEND" || at + 12 + size > content.byteLength) return 1;
    if (kind === "IDAT") isBehind = true;
    if (kind === "eXIf" && isRight(content, at, size)) {
      return isBehind ? tiffOrientation(new DataView(content.buffer, at + 8, size)) : 1;
    }
    at += 12 + size;
  }
  return 1;
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

/** One 16-bit number from 1 to 8 in the first directory, as in Python; otherwise 1. */
function tiffOrientation(exif: DataView): number {
  try {
    // Some writers keep the prefix that JPEG has.
    const start = fourLetters(exif, 0) === "Exif" ? 6 : 0;
    const order = exif.getUint16(start);
    const little = order === 0x4949;
    if ((!little && order !== 0x4d4d) || exif.getUint16(start + 2, little) !== 42) return 1;
    const directory = start + exif.getUint32(start + 4, little);
    const count = exif.getUint16(directory, little);
    for (let entry = directory + 2; entry < directory + 2 + count * 12; entry += 12) {
      const isOne =
        exif.getUint16(entry, little) === ORIENTATION &&
        exif.getUint16(entry + 2, little) === SHORT &&
        exif.getUint32(entry + 4, little) === 1;
      const value = exif.getUint16(entry + 8, little);
      if (isOne && value >= 1 && value <= 8) return value;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // cut off: no orientation, as in Python
  }
  return 1;
}

/** Whether the checksum of a PNG chunk, which begins at `at`, is the one that stands behind it. */
function isRight(content: DataView, at: number, size: number): boolean {
  let crc = 0xffffffff;
  for (let i = at + 4; i < at + 8 + size; i++) {
    crc ^= content.getUint8(i);
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (~crc >>> 0) === content.getUint32(at + 8 + size);
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
