/**
 * Runs samespace bundles in the browser, in agreement with Python's `samespace_edge`.
 *
 *     import { Embedder } from "samespace-edge";
 *
 *     const embedder = await Embedder.load("/models/edge.bundle");
 *     const vector = await embedder.embed(input.files[0]);  // Float32Array, length embedder.dim
 *
 * @packageDocumentation
 */

export { checkBundle, type BundleCheck } from "./check.js";
export { MAX_PIXELS, type PictureSource } from "./decode.js";
export { Embedder } from "./embedder.js";
export {
  BundleError,
  BundleFormatError,
  BundleTamperedError,
  ConfigError,
  DecodeError,
  DepartingGraphError,
  ImageError,
  ImageTooLargeError,
  RuntimeUnavailableError,
  SamespaceError,
  UnsafePathError,
} from "./errors.js";
export { ModelIdentity } from "./identity.js";
export type { LoadOptions } from "./open.js";
export type { StageName, StageResult } from "./replay.js";
export { resizePixels, type Resize } from "./resize.js";
export type { Provider, RuntimeOptions } from "./runtime.js";
export type { Pixels } from "./triangle.js";
