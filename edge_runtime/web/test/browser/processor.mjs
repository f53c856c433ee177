// int8 files in Chromium on another processor: this one, without its newer instruction sets.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

import { RELAXED, relaxedSum } from "../relaxed.mjs";
import { NO_GPU, TEST, distance, launch } from "./harness.mjs";

const SOURCE = join(TEST, "../../../tests/older_processor.c");

/** In the page: the vectors of some pictures, by a graph file. */
async function vectors([file, names]) {
  const { Embedder } = await import("samespace-edge");
  const { loadGraph } = await import("/dist/runtime.js");
  const embedder = await Embedder.load("/files/edge.bundle", { providers: ["wasm"] });
  const content = new Uint8Array(await (await fetch(`/files/${file}`)).arrayBuffer());
  let graph;
  const made = [];
  for (const name of names) {
    const blob = await (await fetch(`/files/pictures/${name}`)).blob();
    const { data, width, height } = await embedder.preprocess(blob);
    const shape = [1, height, width, 3];
    graph ??= await loadGraph(content, file, shape, { providers: ["wasm"] });
    made.push(...(await graph.run(data, shape)).data);
  }
  await graph.release();
  await embedder.dispose();
  return made;
}

/** The library that hides the newer sets, or why there is none. */
function older(folder) {
  const library = join(folder, "older_processor.so");
  try {
    execFileSync("gcc", ["-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"]);
  } catch (error) {
    return { lacking: `hiding instruction sets needs gcc on x86-64 Linux: ${error.message}` };
  }
  const tried = spawnSync("true", { env: { ...process.env, LD_PRELOAD: library } });
  return tried.status === 0 ? { library } : { lacking: String(tried.stderr).trim() };
}

export function processorTests(at) {
  test("int8 files have the same vectors, bit for bit, where there is AVX2 alone", async (t) => {
    const { library, lacking } = older(at().folder);
    if (lacking) return t.skip(lacking);
    const browser = await launch(NO_GPU, { LD_PRELOAD: library });
    try {
      const page = await browser.newPage();
      await page.goto(at().origin);
      const sums = [at().page, page].map((one) => one.evaluate(relaxedSum, RELAXED));
      const [here, there] = await Promise.all(sums);
      if (here === 65534) return t.skip("this processor has no VNNI, so there is no other here");
      assert.deepEqual([here, there], [129540, 65534]); // Chromium took the other instructions
      const names = Object.keys(at().pictures).filter((name) => at().pictures[name].vector);
      for (const file of ["edge.bundle/model.int8.onnx", "usual.onnx"]) {
        const own = await at().page.evaluate(vectors, [file, names]);
        const others = await page.evaluate(vectors, [file, names]);
        assert.equal(own.length, names.length * at().identity.dim);
        assert.equal(distance(own, others).largest, 0, file);
      }
    } finally {
      await browser.close();
    }
  });
}
