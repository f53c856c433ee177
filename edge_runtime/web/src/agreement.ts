/**
 * Whether a graph file computes in this browser what the exporter expects.
 *
 * An int8 file can give other vectors on another processor, and any file on another graphics card,
 * without any error. So a file is compared with its golden vectors when it is opened. The verdict
 * is kept by the file and by what runs it, so that a page compares each file once.
 */

import type { Bundle } from "./bundle.js";
import {
  angle,
  expectedOf,
  GOLDEN,
  goldenPixels,
  malformedGolden,
  readGolden,
  type GoldenPicture,
} from "./golden.js";
import type { Variant } from "./manifest.js";
import { kernelsOf, type Graph, type Provider, type RuntimeOptions } from "./runtime.js";
import { sha256 } from "./sha256.js";

/** How far a file's vectors are from its golden vectors. */
export interface Agreement {
  /** Largest 1 - cosine over the golden pictures; infinity for vectors without length 1. */
  readonly error: number;
  /** The largest error that passes. */
  readonly tolerance: number;
}

// A graphics card may compute in 16 bits: what an fp16 file may depart by.
const ACCELERATED = 1e-3;
const PREFIX = "samespace-edge verdict ";

/** Whether a verdict lets the file run. */
export function agrees({ error, tolerance }: Agreement): boolean {
  return error <= tolerance;
}

/**
 * Compare a loaded file with its golden vectors, or look the verdict up.
 *
 * This fetches `golden.json` and the resized golden pictures.
 *
 * @returns undefined for a bundle without golden vectors of this file.
 * @throws BundleFormatError for golden vectors that cannot be read, BundleTamperedError and
 * BundleError as `Bundle.read` does.
 */
export async function agreement(
  bundle: Bundle,
  variant: Variant,
  graph: Graph,
  options: RuntimeOptions,
): Promise<Agreement | undefined> {
  const key = await keyOf(bundle, variant, graph.provider, options);
  const kept = key === undefined ? undefined : lookUp(key);
  if (kept) return kept;
  const found = await compare(bundle, variant, graph);
  if (found && key !== undefined) keep(key, found);
  return found;
}

/**
 * Look the verdict on a file up, without loading the file: on the first of `providers` that is
 * there. undefined where it is not kept.
 */
export async function keptAgreement(
  bundle: Bundle,
  variant: Variant,
  providers: readonly Provider[],
  options: RuntimeOptions,
): Promise<(Agreement & { readonly provider: Provider }) | undefined> {
  for (const provider of providers) {
    const key = await keyOf(bundle, variant, provider, options);
    if (key === undefined) continue;
    const kept = lookUp(key);
    return kept && { ...kept, provider };
  }
  return undefined;
}

async function compare(
  bundle: Bundle,
  variant: Variant,
  graph: Graph,
): Promise<Agreement | undefined> {
  if (!bundle.manifest.files.has(GOLDEN)) return undefined;
  const golden = await readGolden(bundle);
  const own = golden.tolerance.embed[variant.name];
  if (own === undefined || !golden.images.length) return undefined;
  const { dim, resize } = bundle.manifest;
  const inputs = await Promise.all(golden.images.map((picture) => inputOf(bundle, picture)));
  let error = 0;
  for (const [i, picture] of golden.images.entries()) {
    const { vector } = expectedOf(golden, picture, variant.name);
    if (vector.length !== dim) {
      throw malformedGolden(`a vector is ${vector.length} wide, not ${dim}`);
    }
    // One by one: a graphics card compiles a graph for every number of pictures.
    const { data } = await graph.run(inputs[i]!, [1, resize.height, resize.width, 3]);
    if (data.length !== dim) return undefined; // `embedPixels` refuses such vectors by their shape
    error = Math.max(error, angle(data, vector));
  }
  const tolerance = graph.provider === "webgpu" ? Math.max(own, ACCELERATED) : own;
  return { error, tolerance };
}

/** The pixels that the graph is given of a golden picture. */
async function inputOf(bundle: Bundle, { resized }: GoldenPicture): Promise<Uint8Array> {
  const { data, width, height } = await goldenPixels(bundle, resized);
  const { resize } = bundle.manifest;
  if (width === resize.width && height === resize.height) return data;
  throw malformedGolden(`golden/${resized} is not ${resize.width}x${resize.height}`);
}

/** What a verdict is kept by; undefined where there is nothing to compare, or nothing to run it. */
async function keyOf(
  bundle: Bundle,
  variant: Variant,
  provider: Provider,
  { wasmPaths = "" }: RuntimeOptions,
): Promise<string | undefined> {
  const golden = bundle.manifest.files.get(GOLDEN);
  const kernels = golden === undefined ? undefined : await kernelsOf(provider);
  if (golden === undefined || kernels === undefined) return undefined;
  const browser = globalThis.navigator?.userAgent ?? "";
  const decisive = [variant.name, variant.sha256, golden, ...kernels, wasmPaths, browser];
  return PREFIX + (await sha256(JSON.stringify(decisive)));
}

// Workers have no storage, and a page may be forbidden its own: each costs a comparison at every
// load, and no error.

function lookUp(key: string): Agreement | undefined {
  try {
    const [error, tolerance, ...more] = (localStorage.getItem(key) ?? "").split(" ").map(Number);
    if (error === undefined || tolerance === undefined || more.length) return undefined;
    return Number.isNaN(error) || Number.isNaN(tolerance) ? undefined : { error, tolerance };
  } catch {
    return undefined;
  }
}

function keep(key: string, { error, tolerance }: Agreement): void {
  try {
    localStorage.setItem(key, `${error} ${tolerance}`);
  } catch {
    // Compared again at the next load.
  }
}
