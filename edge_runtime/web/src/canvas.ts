/** Reading the pixels of what a browser can draw. */

import { DecodeError } from "./errors.js";
import type { Pixels } from "./triangle.js";
import { copyOnWhite } from "./white.js";

type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

// In tiles, since a canvas the size of a photo is more than iOS allows (16.7 million pixels; it
// then draws nothing, without an error) and would hold it in memory twice.
const TILE = 2048;

/** `source`, which is `width` x `height` pixels, as RGB on white; nothing is resampled. */
export function readPixels(
  source: ImageBitmap | HTMLImageElement,
  width: number,
  height: number,
  name: string,
): Pixels {
  const pixels = { data: new Uint8Array(width * height * 3), width, height };
  const context = canvas(Math.min(width, TILE), Math.min(height, TILE), name);
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#fff";
  for (let top = 0; top < height; top += TILE) {
    for (let left = 0; left < width; left += TILE) {
      // White first: what a canvas returns of a transparent pixel has lost its colour.
      context.fillRect(0, 0, TILE, TILE);
      context.drawImage(source, -left, -top);
      const size = [Math.min(TILE, width - left), Math.min(TILE, height - top)] as const;
      copyOnWhite(imageData(context, ...size, name), pixels, left, top);
    }
  }
  return pixels;
}

function canvas(width: number, height: number, name: string): Context {
  const options: CanvasRenderingContext2DSettings = { willReadFrequently: true };
  let context: Context | null;
  if (typeof OffscreenCanvas === "undefined") {
    const element = document.createElement("canvas");
    element.width = width;
    element.height = height;
    context = element.getContext("2d", options);
  } else {
    context = new OffscreenCanvas(width, height).getContext("2d", options);
  }
  if (context) return context;
  throw new DecodeError(`${name}: the browser gives no canvas to read it with; free some memory`);
}

function imageData(context: Context, width: number, height: number, name: string): ImageData {
  try {
    return context.getImageData(0, 0, width, height);
  } catch (error) {
    if (!(error instanceof DOMException) || error.name !== "SecurityError") throw error;
    throw new DecodeError(
      `${name} comes from another origin, so this page may not read its pixels; ` +
        'load it with crossOrigin="anonymous" from a server that sends CORS headers',
    );
  }
}
