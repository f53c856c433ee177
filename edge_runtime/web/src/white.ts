import type { Pixels } from "./triangle.js";

/** RGBA, not premultiplied: what `ImageData` holds. */
interface Rgba {
  readonly data: Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

const WHITE = 255;

/**
 * Copy RGBA into RGB `pixels` at (`left`, `top`), laid on white with Pillow's arithmetic:
 * alpha_composite on an opaque ground, in steps of 1/128 level.
 */
export function copyOnWhite(from: Rgba, pixels: Pixels, left = 0, top = 0): void {
  const source = from.data;
  const target = pixels.data;
  for (let y = 0, at = 0; y < from.height; y++) {
    let to = ((top + y) * pixels.width + left) * 3;
    for (const end = at + from.width * 4; at < end; at += 4, to += 3) {
      const alpha = source[at + 3]!;
      const opaque = alpha === 255;
      target[to] = opaque ? source[at]! : onWhite(source[at]!, alpha);
      target[to + 1] = opaque ? source[at + 1]! : onWhite(source[at + 1]!, alpha);
      target[to + 2] = opaque ? source[at + 2]! : onWhite(source[at + 2]!, alpha);
    }
  }
}

function onWhite(level: number, alpha: number): number {
  const sum = (level * alpha + WHITE * (255 - alpha)) * 128 + 0x4000;
  return (((sum >> 8) + sum) >> 8) >> 7;
}
