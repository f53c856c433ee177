/** Replay a bundle's golden pictures here, and name the stage at which this browser departs. */

import { Bundle } from "./bundle.js";
import { Embedder } from "./embedder.js";
import { BundleError, RuntimeUnavailableError } from "./errors.js";
import { GOLDEN, readGolden, type Golden } from "./golden.js";
import type { LoadOptions } from "./open.js";
import { replay, type StageName, type StageResult } from "./replay.js";
import type { Provider, RuntimeOptions } from "./runtime.js";

/** What `checkBundle` found. */
export interface BundleCheck {
  readonly name: string;
  /** Every stage of every golden picture, in the order in which they ran. */
  readonly results: readonly StageResult[];
  /** Files that are missing or changed. Files that nobody listed cannot be seen over HTTP. */
  readonly problems: readonly string[];
  /** Variants that did not run here, and why. */
  readonly skipped: readonly string[];
  /** What ran each variant, by the variant's name. */
  readonly providers: Readonly<Record<string, Provider>>;
  /** Whether everything is as exported, a variant ran here, and this browser agrees. */
  readonly ok: boolean;
  /** The first stage at which this browser departs; null if it does not. */
  readonly departsAt: StageName | "files" | null;
}

const ORDER: readonly StageName[] = ["decode", "resize", "embed", "end to end"];

/**
 * Check every hash of the bundle in the folder `url` and replay its golden pictures through every
 * ONNX file. This fetches the whole bundle: it is for trying a device, not for every visit.
 *
 * @throws the errors of `Embedder.load` where there is nothing to check; whatever is wrong inside
 * is in the result.
 */
export async function checkBundle(
  url: string | URL,
  options: RuntimeOptions = {},
): Promise<BundleCheck> {
  const bundle = await Bundle.open(url);
  const problems = await fileProblems(bundle);
  const results: StageResult[] = [];
  const skipped: string[] = [];
  const providers: Record<string, Provider> = {};
  if (!problems.length) {
    const golden = await readGolden(bundle);
    for (const { name } of bundle.manifest.variants) {
      const chosen = { ...options, variant: name, check: false }; // that is what is found out here
      const embedder = await loadOrSkip(bundle, chosen, skipped);
      if (!embedder) continue;
      providers[name] = embedder.provider;
      results.push(...(await replayAll(bundle, embedder, golden)));
    }
  }
  const failed = new Set(results.filter((result) => !result.ok).map((result) => result.stage));
  return {
    name: bundle.manifest.name,
    results,
    problems,
    skipped,
    providers,
    ok: problems.length === 0 && results.length > 0 && failed.size === 0,
    departsAt: problems.length ? "files" : (ORDER.find((stage) => failed.has(stage)) ?? null),
  };
}

async function fileProblems(bundle: Bundle): Promise<string[]> {
  const problems: string[] = [];
  for (const member of [...bundle.manifest.files.keys()].sort()) {
    try {
      await bundle.read(member);
    } catch (error) {
      if (!(error instanceof BundleError)) throw error;
      problems.push(error.message);
    }
  }
  if (!bundle.manifest.files.has(GOLDEN)) {
    problems.push(`the bundle has no ${GOLDEN}, so this device cannot be checked`);
  }
  return problems;
}

async function loadOrSkip(
  bundle: Bundle,
  options: LoadOptions & { variant: string },
  skipped: string[],
): Promise<Embedder | undefined> {
  try {
    return await Embedder.of(bundle, options);
  } catch (error) {
    if (!(error instanceof RuntimeUnavailableError)) throw error;
    skipped.push(`${options.variant}: ${error.message}`);
    return undefined;
  }
}

async function replayAll(
  bundle: Bundle,
  embedder: Embedder,
  golden: Golden,
): Promise<StageResult[]> {
  const results: StageResult[] = [];
  try {
    for (const picture of golden.images) {
      results.push(...(await replay(bundle, embedder, golden, picture)));
    }
  } finally {
    await embedder.dispose();
  }
  return results;
}
