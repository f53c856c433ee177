/** `golden/golden.json`: pictures, and what every device has to make of them. */

import type { Bundle } from "./bundle.js";
import { decode } from "./decode.js";
import { BundleFormatError } from "./errors.js";
import { readRgbPng } from "./png.js";
import type { Pixels } from "./triangle.js";

/** The file that lists the golden pictures. */
export const GOLDEN = "golden/golden.json";

/** One picture: three files, and the expected vector of every variant. */
export interface GoldenPicture {
  readonly image: string;
  readonly decoded: string;
  readonly resized: string;
  readonly embedded: { readonly [variant: string]: readonly number[] };
}

/** The content of `golden.json`, whose hash was checked. */
export interface Golden {
  readonly tolerance: {
    readonly decode: number;
    readonly resize: number;
    readonly "end to end": number;
    readonly embed: { readonly [variant: string]: number };
  };
  readonly images: readonly GoldenPicture[];
}

/** What is expected of one picture through one variant. */
export interface Expected {
  readonly vector: readonly number[];
  readonly tolerance: number;
}

// How far from 1 the length of a vector may be.
const UNIT = 1e-2;

/**
 * Read the golden pictures of a bundle.
 *
 * @throws BundleFormatError where the file is no JSON, or lacks its tolerances or its pictures.
 */
export async function readGolden(bundle: Bundle): Promise<Golden> {
  const content = new TextDecoder().decode(await bundle.read(GOLDEN));
  let value: Golden | null;
  try {
    value = JSON.parse(content) as Golden | null;
  } catch (error) {
    throw malformedGolden(String(error));
  }
  if (!value?.tolerance?.embed) throw malformedGolden("it has no tolerances");
  if (!Array.isArray(value.images)) throw malformedGolden("it has no pictures");
  return value;
}

/**
 * The expected pixels in a PNG of `golden/`.
 *
 * @throws BundleFormatError for a file that is no picture.
 */
export async function goldenPixels(bundle: Bundle, name: string): Promise<Pixels> {
  const file = `golden/${name}`;
  const content = await bundle.read(file);
  try {
    return (await readRgbPng(content)) ?? (await decode(new File([content], file)));
  } catch (error) {
    throw malformedGolden(`${file} cannot be read (${String(error)})`);
  }
}

/**
 * What `variant` should make of `picture`.
 *
 * @throws BundleFormatError where the golden file says nothing of it.
 */
export function expectedOf(golden: Golden, picture: GoldenPicture, variant: string): Expected {
  const vector = picture.embedded?.[variant];
  const tolerance = golden.tolerance.embed[variant];
  if (vector && tolerance !== undefined) return { vector, tolerance };
  throw new BundleFormatError(
    `${GOLDEN} says nothing of variant ${variant} and ${picture.image}; export the bundle again`,
  );
}

/**
 * Return 1 - cosine of two unit vectors; infinity where `a` is none, or `b` is of another width.
 *
 * A model may give zeros for a picture. Then `b` is zero, and the largest number of `a` counts.
 */
export function angle(a: Float32Array, b: readonly number[]): number {
  if (a.length !== b.length) return Infinity;
  if (!b.some(Boolean)) return a.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  let square = 0;
  let product = 0;
  for (const [i, value] of a.entries()) {
    square += value * value;
    product += value * b[i]!;
  }
  return Math.abs(Math.sqrt(square) - 1) < UNIT ? Math.max(0, 1 - product) : Infinity;
}

/** The error for a golden file in which `problem` was found. */
export function malformedGolden(problem: string): BundleFormatError {
  return new BundleFormatError(`${GOLDEN} is malformed: ${problem}; export the bundle again`);
}
