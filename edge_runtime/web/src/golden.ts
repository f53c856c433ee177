/** `golden/golden.json`: pictures, and what every device has to make of them. */

import type { Bundle } from "./bundle.js";
import { BundleFormatError } from "./errors.js";

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

/** Read the golden pictures of a bundle. */
export async function readGolden(bundle: Bundle): Promise<Golden> {
  return JSON.parse(new TextDecoder().decode(await bundle.read(GOLDEN))) as Golden;
}

/**
 * What `variant` should make of `picture`.
 *
 * @throws BundleFormatError where the golden file says nothing of it.
 */
export function expectedOf(golden: Golden, picture: GoldenPicture, variant: string): Expected {
  const vector = picture.embedded[variant];
  const tolerance = golden.tolerance.embed[variant];
  if (vector && tolerance !== undefined) return { vector, tolerance };
  throw new BundleFormatError(
    `${GOLDEN} says nothing of variant ${variant} and ${picture.image}; export the bundle again`,
  );
}
