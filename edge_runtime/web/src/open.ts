/** Which file of a bundle runs in this browser, and on which provider. */

import { agreement, agrees, keptAgreement, type Agreement } from "./agreement.js";
import type { Bundle } from "./bundle.js";
import { DepartingGraphError, RuntimeUnavailableError, SamespaceError } from "./errors.js";
import type { Variant } from "./manifest.js";
import {
  loadGraph,
  providersOf,
  type Graph,
  type Provider,
  type RuntimeOptions,
} from "./runtime.js";

/** How a bundle is loaded. */
export interface LoadOptions extends RuntimeOptions {
  /**
   * Which graph file, by name (`onnx-fp32`); by default the bundle's first ONNX file that agrees
   * with its golden vectors here.
   */
  readonly variant?: string;
  /**
   * Compare the file with its golden vectors, the first time that it is loaded in this browser;
   * true by default. The verdict is kept in `localStorage`. A provider that departs is passed over
   * for the next one. A file that departs on all of them is refused; where no `variant` is named,
   * the next file is taken instead.
   */
  readonly check?: boolean;
}

/** A loaded file. */
export interface Opened {
  readonly variant: Variant;
  readonly graph: Graph;
}

/**
 * Load the first file that agrees with its golden vectors.
 *
 * @throws DepartingGraphError where there is none, and what `Embedder.load` throws.
 */
export async function openGraph(bundle: Bundle, options: LoadOptions): Promise<Opened> {
  const candidates = onnxFiles(bundle, options.variant);
  const departing: string[] = [];
  for (const variant of candidates) {
    const graph = await openVariant(bundle, variant, options, departing);
    if (graph) return { variant, graph };
  }
  throw new DepartingGraphError(
    `in this browser, bundle '${bundle.manifest.name}' gives other vectors than its golden ` +
      `vectors (1 - cosine): ${departing.join("; ")}. Such vectors would find other things in a ` +
      `gallery. ${await instead(bundle, candidates, options)}`,
  );
}

/** Load `variant` on the first provider that agrees; undefined, and why, where there is none. */
async function openVariant(
  bundle: Bundle,
  variant: Variant,
  options: LoadOptions,
  departing: string[],
): Promise<Graph | undefined> {
  const { check = true } = options;
  const { width, height } = bundle.manifest.resize;
  let bytes: Uint8Array | undefined;
  for (let left = providersOf(options); left.length; ) {
    const known = check ? await keptAgreement(bundle, variant, left, options) : undefined;
    if (known && !agrees(known)) {
      departing.push(departure(variant, known.provider, known));
      left = left.slice(left.indexOf(known.provider) + 1);
      continue; // and nothing is fetched
    }
    bytes ??= await bundle.read(variant.file);
    let graph: Graph;
    try {
      const some = { ...options, providers: left };
      graph = await loadGraph(bytes, variant.name, [1, height, width, 3], some);
    } catch (error) {
      if (!departing.length || !(error instanceof SamespaceError)) throw error;
      departing.push(error.message);
      return undefined;
    }
    const verdict = check ? await checked(bundle, variant, graph, options) : undefined;
    if (!verdict || agrees(verdict)) return graph;
    await graph.release();
    departing.push(departure(variant, graph.provider, verdict));
    left = left.slice(left.indexOf(graph.provider) + 1);
  }
  return undefined;
}

async function checked(
  bundle: Bundle,
  variant: Variant,
  graph: Graph,
  options: RuntimeOptions,
): Promise<Agreement | undefined> {
  try {
    return await agreement(bundle, variant, graph, options);
  } catch (error) {
    await graph.release();
    throw error;
  }
}

function departure(variant: Variant, provider: Provider, { error, tolerance }: Agreement): string {
  const by = Number(error.toPrecision(2));
  return `${variant.name} on ${provider} by ${by}, where ${tolerance} passes`;
}

/** Say which file of the bundle to use in place of the refused ones. */
async function instead(
  bundle: Bundle,
  refused: readonly Variant[],
  options: LoadOptions,
): Promise<string> {
  for (const variant of onnxFiles(bundle, undefined)) {
    if (refused.includes(variant)) continue;
    try {
      const graph = await openVariant(bundle, variant, options, []);
      const verdict = graph && (await checked(bundle, variant, graph, options));
      await graph?.release();
      if (verdict) return `Use variant '${variant.name}', which agrees here.`;
    } catch (error) {
      if (!(error instanceof SamespaceError)) throw error;
    }
  }
  return (
    "No other ONNX file of the bundle agrees here. Export the bundle again with this version, " +
    "whose int8 files give the same vectors on every processor."
  );
}

function onnxFiles(bundle: Bundle, name: string | undefined): readonly Variant[] {
  const variants = name === undefined ? bundle.manifest.variants : [bundle.variant(name)];
  const found = variants.filter((variant) => variant.format === "onnx");
  if (found.length) return found;
  const held = variants.map((variant) => variant.name).join(", ");
  throw new RuntimeUnavailableError(
    `a browser runs ONNX files; bundle '${bundle.manifest.name}' ` +
      `${name === undefined ? "has" : "was asked for"}: ${held}. Export it with an ONNX file.`,
  );
}
