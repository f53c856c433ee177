import { Bundle } from "./bundle.js";
import { decode, type PictureSource } from "./decode.js";
import { BundleFormatError, DecodeError, ImageError } from "./errors.js";
import { ModelIdentity } from "./identity.js";
import type { Variant } from "./manifest.js";
import { openGraph, type LoadOptions } from "./open.js";
import { resizePixels } from "./resize.js";
import type { Graph, Provider } from "./runtime.js";
import type { Pixels } from "./triangle.js";

// Bounds the memory of embedAll: only so many pictures are held as the graph's input at once.
const BATCH = 16;

/**
 * Runs a bundle: pictures in, unit vectors out, equal to Python's within the bundle's tolerances.
 *
 * Calls may overlap: each gets the vectors of the pictures that it gave. Graphs are run one after
 * the other, so calls that overlap wait for one another. Pixels are copied when a call begins, so
 * their memory may be used again at once. `embedAll` reads its pictures one by one: do not change
 * them until it is done.
 */
export class Embedder {
  private constructor(
    private readonly bundle: Bundle,
    private readonly chosen: Variant,
    private readonly graph: Graph,
  ) {}

  /**
   * Fetch the bundle in the folder `url`, check it and load its graph.
   *
   * Manifest, paths and fingerprint are checked, and the graph that runs is made of the very
   * bytes that were hashed. Where WebGPU is missing, refuses the graph or departs from its golden
   * vectors, wasm runs it: see `provider`. The first load in a browser also fetches those vectors
   * and their pictures: see `check`.
   *
   * @throws BundleFormatError, BundleTamperedError, UnsafePathError for a bundle that cannot be
   * used, DepartingGraphError for a file that departs from its golden vectors in this browser,
   * BundleError where the network fails, RuntimeUnavailableError where the bundle has no ONNX
   * file, the page is no secure context or no provider runs, ConfigError for options.
   */
  static async load(url: string | URL, options: LoadOptions = {}): Promise<Embedder> {
    return Embedder.of(await Bundle.open(url), options);
  }

  /** As `load`, for a bundle that is open already. @internal */
  static async of(bundle: Bundle, options: LoadOptions): Promise<Embedder> {
    const { variant, graph } = await openGraph(bundle, options);
    return new Embedder(bundle, variant, graph);
  }

  /** What runs the graph. */
  get provider(): Provider {
    return this.graph.provider;
  }

  /** Who makes these vectors: what a gallery asks for. */
  get identity(): ModelIdentity {
    const { name, fingerprint, space, dim } = this.bundle.manifest;
    const { name: variant, sha256 } = this.chosen;
    return new ModelIdentity(name, fingerprint, variant, sha256, space, dim);
  }

  /** Width of the vectors. */
  get dim(): number {
    return this.bundle.manifest.dim;
  }

  /**
   * Decode and resize one picture to the graph's input: uint8 RGB (height, width, 3).
   *
   * @throws DecodeError, ImageTooLargeError; they name the file.
   */
  async preprocess(source: PictureSource): Promise<Pixels> {
    return resizePixels(await decode(source), this.bundle.manifest.resize);
  }

  /**
   * Embed one picture to a unit vector of length `dim`.
   *
   * @throws DecodeError, ImageTooLargeError; they name the file.
   */
  async embed(source: PictureSource): Promise<Float32Array> {
    return this.embedPixels((await this.preprocess(source)).data, 1);
  }

  /**
   * Embed many pictures: one unit vector of length `dim` for each, in the order given.
   *
   * @throws DecodeError, ImageTooLargeError; they name the file and its position.
   */
  async embedAll(sources: Iterable<PictureSource>): Promise<Float32Array[]> {
    const all = [...sources];
    const vectors: Float32Array[] = [];
    for (let from = 0; from < all.length; from += BATCH) {
      const inputs = await this.batch(all.slice(from, from + BATCH), from);
      const rows = await this.embedPixels(inputs, Math.min(BATCH, all.length - from));
      for (let at = 0; at < rows.length; at += this.dim) {
        vectors.push(rows.slice(at, at + this.dim));
      }
    }
    return vectors;
  }

  /**
   * Preprocessed pixels to unit vectors.
   *
   * @param pixels - uint8 RGB (count, height, width, 3) of the size that the manifest says.
   * @returns float32 (count, dim), one vector after the other.
   * @throws DecodeError for pixels of another size, BundleFormatError where the graph returns
   * another shape than promised, NaN or infinity.
   */
  async embedPixels(pixels: Uint8Array, count: number): Promise<Float32Array> {
    const { width, height } = this.bundle.manifest.resize;
    if (!Number.isInteger(count) || count < 0 || pixels.length !== count * height * width * 3) {
      throw new DecodeError(
        `a batch of ${count} with ${width}x${height} RGB pixels each has ` +
          `${count * height * width * 3} bytes, not ${pixels.length}; preprocess() makes them`,
      );
    }
    if (count === 0) return new Float32Array();
    const { data, dims } = await this.graph.run(pixels, [count, height, width, 3]);
    if (dims.length !== 2 || dims[0] !== count || dims[1] !== this.dim) {
      throw new BundleFormatError(
        `the graph of ${this.label} returned (${dims.join(", ")}) for ${count} pictures; ` +
          `the manifest promises (${count}, ${this.dim})`,
      );
    }
    if (!data.every(Number.isFinite)) {
      throw new BundleFormatError(
        `the graph of ${this.label} returned NaN or infinity; run checkBundle on this device`,
      );
    }
    return data;
  }

  /** Give back the graph's memory; the embedder cannot be used afterwards. */
  async dispose(): Promise<void> {
    await this.graph.release();
  }

  private get label(): string {
    const { name, fingerprint, variant } = this.identity;
    return `${name} ${fingerprint.slice(0, 12)} (${variant}, ${this.provider})`;
  }

  private async batch(sources: PictureSource[], offset: number): Promise<Uint8Array> {
    const { width, height } = this.bundle.manifest.resize;
    const size = height * width * 3;
    const inputs = new Uint8Array(sources.length * size);
    for (const [i, source] of sources.entries()) {
      try {
        inputs.set((await this.preprocess(source)).data, i * size);
      } catch (error) {
        if (error instanceof ImageError) error.message = `picture ${offset + i}: ${error.message}`;
        throw error;
      }
    }
    return inputs;
  }
}
