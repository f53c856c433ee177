import type { Bundle } from "./bundle.js";
import { decode } from "./decode.js";
import type { Embedder } from "./embedder.js";
import { angle, expectedOf, goldenPixels, type Golden, type GoldenPicture } from "./golden.js";
import { resizePixels } from "./resize.js";
import type { Pixels } from "./triangle.js";

/** The stages at which a device can depart, in the order in which they run. */
export type StageName = "decode" | "resize" | "embed" | "end to end";

/** One stage of one golden picture, replayed from what the stage before should have given. */
export interface StageResult {
  readonly stage: StageName;
  /** The picture; with its variant where vectors are compared. */
  readonly subject: string;
  /** Largest difference of a pixel (0 to 255), or 1 - cosine for vectors. */
  readonly error: number;
  /** The largest error that passes, from the bundle. */
  readonly tolerance: number;
  readonly ok: boolean;
}

/** Every stage of one golden picture. */
export async function replay(
  bundle: Bundle,
  embedder: Embedder,
  golden: Golden,
  picture: GoldenPicture,
): Promise<StageResult[]> {
  const name = `golden/${picture.image}`;
  const variant = embedder.identity.variant;
  const subject = `${name} ${variant}`;
  const { tolerance } = golden;
  const expected = expectedOf(golden, picture, variant);
  const encoded = new File([await bundle.read(name)], name);
  const pixels = await goldenPixels(bundle, picture.decoded);
  const input = await goldenPixels(bundle, picture.resized);

  const decoded = difference(await decode(encoded), pixels);
  const resized = difference(resizePixels(pixels, bundle.manifest.resize), input);
  const embedded = angle(await embedder.embedPixels(input.data, 1), expected.vector);
  const whole = angle(await embedder.embed(encoded), expected.vector);
  return [
    result("decode", name, decoded, tolerance.decode),
    result("resize", name, resized, tolerance.resize),
    result("embed", subject, embedded, expected.tolerance),
    // Never less than what the graph alone is allowed.
    result("end to end", subject, whole, Math.max(tolerance["end to end"], expected.tolerance)),
  ];
}

function result(stage: StageName, subject: string, error: number, tolerance: number): StageResult {
  return { stage, subject, error, tolerance, ok: error <= tolerance };
}

function difference(a: Pixels, b: Pixels): number {
  if (a.width !== b.width || a.height !== b.height) return Infinity;
  let largest = 0;
  for (let i = 0; i < a.data.length; i++) {
    largest = Math.max(largest, Math.abs(a.data[i]! - b.data[i]!));
  }
  return largest;
}
