/** onnxruntime-web behind one function: a graph, run by the first provider that takes it. */

import type { InferenceSession } from "onnxruntime-web";

import {
  BundleFormatError,
  ConfigError,
  RuntimeUnavailableError,
  SamespaceError,
} from "./errors.js";

/** What runs a graph: the graphics card, or the processor. */
export type Provider = "webgpu" | "wasm";

/** How graphs are run. */
export interface RuntimeOptions {
  /** Tried in this order; by default WebGPU, then wasm. */
  readonly providers?: readonly Provider[];
  /**
   * Threads of the wasm provider; 1 by default, usually the fastest for edge models. More need a
   * cross-origin isolated page. onnxruntime-web has one number for the whole page, fixed by the
   * first bundle that is loaded.
   */
  readonly threads?: number;
  /** Where onnxruntime-web's `.wasm` files lie, if not beside its script; for the whole page. */
  readonly wasmPaths?: string;
}

type Ort = typeof import("onnxruntime-web");

/** What TypeScript's library does not know of WebGPU. */
interface WithGpu {
  readonly gpu?: { requestAdapter(): Promise<{ info?: Readonly<Record<string, string>> } | null> };
}

const INPUT = "image";
const OUTPUT = "embedding";

// onnxruntime-web runs one thing at a time, whatever the session; callers need not know.
let last: Promise<unknown> = Promise.resolve();

function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const turn = last.then(work);
  last = turn.catch(() => undefined);
  return turn;
}

/** A loaded graph. */
export class Graph {
  private released = false;

  constructor(
    private readonly ort: Ort,
    private readonly session: InferenceSession,
    readonly provider: Provider,
  ) {}

  /** uint8 RGB (N, H, W, 3) to float32 vectors, and the shape that the graph gave them. */
  async run(
    pixels: Uint8Array,
    shape: InputShape,
  ): Promise<{ data: Float32Array; dims: readonly number[] }> {
    if (this.released) throw new SamespaceError("this embedder was disposed of; load it again");
    // A copy: until its turn comes, the caller may have put the next picture into the same memory.
    const input = new this.ort.Tensor("uint8", pixels.slice(), shape);
    const output = (await inTurn(() => this.session.run({ [INPUT]: input })))[OUTPUT];
    if (!(output?.data instanceof Float32Array)) {
      throw new BundleFormatError(`the graph's ${OUTPUT} is not float32; export the bundle again`);
    }
    return { data: output.data, dims: output.dims };
  }

  /** Give back its memory, once what was asked of it is done. */
  async release(): Promise<void> {
    if (this.released) return;
    this.released = true;
    await inTurn(() => this.session.release());
  }
}

/** The shape of a graph's input: uint8 RGB (N, H, W, 3). */
export type InputShape = readonly [count: number, height: number, width: number, channels: 3];

/**
 * Load the graph of `variant` with the first provider that takes it and runs one black picture.
 *
 * @param shape - of one picture.
 * @throws RuntimeUnavailableError where no provider is there, BundleFormatError where one is but
 * cannot run the graph, ConfigError for options that there are not.
 */
export async function loadGraph(
  bytes: Uint8Array,
  variant: string,
  shape: InputShape,
  options: RuntimeOptions,
): Promise<Graph> {
  const { threads = 1, wasmPaths } = options;
  const providers = providersOf(options);
  const reasons: string[] = [];
  let available = false;
  for (const provider of providers) {
    try {
      const ort = await load(provider);
      ort.env.wasm.numThreads = threads;
      if (wasmPaths !== undefined) ort.env.wasm.wasmPaths = wasmPaths;
      const graph = await create(ort, bytes, provider);
      // A graphics card can take a graph and then fail to compile a part of it.
      await graph.run(new Uint8Array(shape.reduce((a, b) => a * b)), shape);
      return graph;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      available ||= !(error instanceof RuntimeUnavailableError);
      reasons.push(`${provider}: ${message}`);
    }
  }
  const Kind = available ? BundleFormatError : RuntimeUnavailableError;
  throw new Kind(`onnxruntime-web cannot run ${variant}: ${reasons.join("; ")}`);
}

/**
 * The providers to try, in order.
 *
 * @throws ConfigError for options that there are not.
 */
export function providersOf({
  providers = ["webgpu", "wasm"],
  threads = 1,
}: RuntimeOptions): readonly Provider[] {
  const unknown = providers.filter((name) => name !== "webgpu" && name !== "wasm");
  if (unknown.length || !providers.length) {
    throw new ConfigError(`providers has to name webgpu, wasm or both, not [${unknown.join()}]`);
  }
  if (!Number.isInteger(threads) || threads < 1) {
    throw new ConfigError(`threads has to be 1 or more, not ${threads}`);
  }
  return providers;
}

/**
 * Name what decides over a provider's arithmetic: the provider, the graphics card, the version of
 * onnxruntime-web. undefined where the provider is not there.
 */
export async function kernelsOf(provider: Provider): Promise<string[] | undefined> {
  try {
    const { env } = await load(provider);
    const card = provider === "webgpu" ? await adapterName() : undefined;
    return [provider, card ?? "", env.versions.web ?? env.versions.common];
  } catch (error) {
    if (error instanceof RuntimeUnavailableError) return undefined;
    throw error;
  }
}

async function create(ort: Ort, bytes: Uint8Array, provider: Provider): Promise<Graph> {
  const options = { executionProviders: [provider], logSeverityLevel: 3 } as const;
  let session: InferenceSession;
  try {
    session = await inTurn(() => ort.InferenceSession.create(bytes, options));
  } catch (error) {
    // How onnxruntime-web says that its own .wasm file did not load.
    if (!String(error).includes("no available backend")) throw error;
    throw new RuntimeUnavailableError(`${String(error)}; are its files served, or wasmPaths set?`);
  }
  checkName(session.inputNames, INPUT, "input");
  checkName(session.outputNames, OUTPUT, "output");
  return new Graph(ort, session, provider);
}

// Two builds of onnxruntime-web: the one without WebGPU is half the download.
async function load(provider: Provider): Promise<Ort> {
  if (provider === "webgpu" && (await adapterName()) === undefined) {
    throw new RuntimeUnavailableError("this browser, or this machine, offers no adapter");
  }
  try {
    return await (provider === "webgpu"
      ? import("onnxruntime-web/webgpu")
      : import("onnxruntime-web/wasm"));
  } catch (error) {
    throw new RuntimeUnavailableError(`its script did not load (${String(error)})`);
  }
}

/** The graphics card, as far as the browser names it; undefined without one. */
async function adapterName(): Promise<string | undefined> {
  try {
    const adapter = await (globalThis.navigator as WithGpu).gpu?.requestAdapter();
    if (!adapter) return undefined;
    const { vendor, architecture, device, description } = adapter.info ?? {};
    return [vendor, architecture, device, description].join(" ");
  } catch {
    return undefined;
  }
}

function checkName(found: readonly string[], expected: string, what: string): void {
  if (found.length === 1 && found[0] === expected) return;
  throw new BundleFormatError(
    `the graph's ${what} is called ${found.join(", ")}; a bundle's is '${expected}'`,
  );
}
