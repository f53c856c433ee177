/** From what a page has to upright RGB pixels: the first stage of edge_runtime/README.md. */

import { readPixels } from "./canvas.js";
import { DecodeError, ImageTooLargeError } from "./errors.js";
import { declaredSize, type Size } from "./header.js";
import type { Pixels } from "./triangle.js";
import { orientationLeft, turned } from "./upright.js";
import { copyOnWhite } from "./white.js";

/**
 * A picture: an encoded file (`File`, `Blob`), or what the browser has decoded already.
 *
 * Give the file where there is one: it is decoded without the colour profile that Python leaves
 * out as well. An `<img>` is drawn as the page shows it, with its profile, at its natural size.
 */
export type PictureSource = Blob | ImageBitmap | ImageData | HTMLImageElement;

/** Largest picture that is decoded, in pixels, as in Python. */
export const MAX_PIXELS = 64_000_000;

/**
 * Decode to upright uint8 RGB: EXIF orientation applied, transparency laid on white, the first
 * frame of an animation.
 *
 * @throws DecodeError for what is no image, is damaged or may not be read, ImageTooLargeError for
 * more than `MAX_PIXELS`.
 */
export async function decode(source: PictureSource): Promise<Pixels> {
  if (source instanceof Blob) return decodeFile(source);
  if (isA(source, "ImageBitmap")) {
    return readPixels(source, ...usable(source, "the ImageBitmap"), "the ImageBitmap");
  }
  if (isA(source, "ImageData")) return fromImageData(source);
  if (isA(source, "HTMLImageElement")) return fromElement(source);
  throw new DecodeError(
    `cannot read a picture from ${Object.prototype.toString.call(source)}; ` +
      "give a File, a Blob, an ImageBitmap, an ImageData or an <img> element",
  );
}

async function decodeFile(file: Blob): Promise<Pixels> {
  const name = "name" in file && file.name ? String(file.name) : `the ${file.size} bytes given`;
  let bitmap: ImageBitmap;
  let orientation: number;
  try {
    const declared = await declaredSize(file);
    if (declared) refuseTooLarge(declared, name);
    orientation = await orientationLeft(file);
    bitmap = await createImageBitmap(file, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch (error) {
    if (error instanceof ImageTooLargeError) throw error;
    throw new DecodeError(
      `${name}: not an image in a format that this browser reads, or damaged (${String(error)})`,
    );
  }
  try {
    return turned(readPixels(bitmap, ...usable(bitmap, name), name), orientation);
  } finally {
    bitmap.close();
  }
}

async function fromElement(image: HTMLImageElement): Promise<Pixels> {
  const name = image.currentSrc || image.src || "the <img> element";
  try {
    await image.decode();
  } catch {
    throw new DecodeError(`${name}: the picture cannot be loaded, or is damaged`);
  }
  const size = { width: image.naturalWidth, height: image.naturalHeight };
  return readPixels(image, ...usable(size, name), name);
}

function fromImageData(image: ImageData): Pixels {
  // Newer browsers also have ImageData of 16-bit floats.
  if (!(image.data instanceof Uint8ClampedArray)) {
    throw new DecodeError("the ImageData has no 8-bit pixels; ask for pixelFormat rgba-unorm8");
  }
  const [width, height] = usable(image, "the ImageData");
  const pixels = { data: new Uint8Array(width * height * 3), width, height };
  copyOnWhite(image, pixels);
  return pixels;
}

function usable(size: Size, name: string): [number, number] {
  refuseTooLarge(size, name);
  if (size.width < 1 || size.height < 1) {
    throw new DecodeError(`${name} has no pixels: it is empty, closed, or has no size of its own`);
  }
  return [size.width, size.height];
}

function refuseTooLarge({ width, height }: Size, name: string): void {
  if (width * height <= MAX_PIXELS) return;
  throw new ImageTooLargeError(
    `${name} has ${width}x${height} pixels; the limit is ` +
      `${MAX_PIXELS.toLocaleString("en")} pixels. Reduce it before embedding it.`,
  );
}

interface Kinds {
  ImageBitmap: ImageBitmap;
  ImageData: ImageData;
  HTMLImageElement: HTMLImageElement;
}

/** instanceof for classes that a worker may lack. */
function isA<K extends keyof Kinds>(value: unknown, kind: K): value is Kinds[K] {
  const known: unknown = (globalThis as Record<string, unknown>)[kind];
  return typeof known === "function" && value instanceof known;
}
