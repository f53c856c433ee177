// WebGPU: on an adapter that Chromium computes itself, and where it fails.

import assert from "node:assert/strict";
import { test } from "node:test";

import { worstOf } from "./check.mjs";
import { SOFTWARE_GPU, failure, launch } from "./harness.mjs";

async function providerOf(options) {
  const { Embedder } = await import("samespace-edge");
  return (await Embedder.load("/files/edge.bundle", options)).provider;
}

/** In the page: what runs a bundle's fp32 file. */
async function providerFor([url, options]) {
  const { Embedder } = await import("samespace-edge");
  const embedder = await Embedder.load(url, { variant: "onnx-fp32", ...options });
  await embedder.dispose();
  return embedder.provider;
}

export function webgpuTests(at) {
  test("WebGPU agrees with Python at every stage", async (t) => {
    const browser = await launch(SOFTWARE_GPU);
    try {
      const page = await browser.newPage();
      await page.goto(at().origin);
      const adapter = await page.evaluate(() => navigator.gpu?.requestAdapter().then(Boolean));
      if (!adapter) return t.skip("this Chromium has no software adapter");
      const found = await page.evaluate(async () => {
        const { checkBundle } = await import("samespace-edge");
        return checkBundle("/files/edge.bundle");
      });
      assert.ok(found.ok, JSON.stringify(found, null, 1));
      assert.equal(found.providers["onnx-fp32"], "webgpu");
      assert.equal(await page.evaluate(providerOf, { providers: ["wasm"] }), "wasm");
      t.diagnostic(`ran on: ${JSON.stringify(found.providers)}`);
      t.diagnostic(`largest error by stage: ${JSON.stringify(worstOf(found))}`);
    } finally {
      await browser.close();
    }
  });

  test("WebGPU may depart by what an fp16 file may, and leaves the rest to wasm", async (t) => {
    const browser = await launch(SOFTWARE_GPU);
    try {
      const page = await browser.newPage();
      await page.goto(at().origin);
      const adapter = await page.evaluate(() => navigator.gpu?.requestAdapter().then(Boolean));
      if (!adapter) return t.skip("this Chromium has no software adapter");
      const near = at().departing("near", { "onnx-fp32": 9e-4 });
      assert.equal(await page.evaluate(providerFor, [near]), "webgpu");
      const wasm = await failure(page, providerFor, [near, { providers: ["wasm"] }]);
      assert.match(wasm.message, /onnx-fp32 on wasm by 0\.0009, where 0\.00001 passes/);
      const far = at().departing("far", { "onnx-fp32": 1.1e-3 });
      const both = await failure(page, providerFor, [far]);
      assert.match(both.message, /fp32 on webgpu by 0\.0011, where 0\.001 passes; onnx-fp32 on w/);
      // A card that departs, as far as what is kept goes.
      const agreeing = "/files/edge.bundle";
      const count = () => page.evaluate(() => Object.keys(localStorage).length);
      await page.evaluate(() => localStorage.clear());
      assert.equal(await page.evaluate(providerFor, [agreeing]), "webgpu");
      assert.equal(await count(), 1);
      await page.evaluate(() => localStorage.setItem(Object.keys(localStorage)[0], "0.5 0.001"));
      await page.reload();
      await page.route("**/ort-wasm-simd-threaded.wasm", (route) => route.abort());
      const neither = await failure(page, providerFor, [agreeing]);
      assert.equal(neither.name, "DepartingGraphError");
      assert.match(neither.message, /on webgpu by 0\.5, where 0\.001 passes; .*cannot run onnx-fp/);
      assert.match(neither.message, /Use variant 'onnx-fp16', which agrees here/);
      await page.unrouteAll();
      await page.reload();
      assert.equal(await page.evaluate(providerFor, [agreeing]), "wasm");
      assert.equal(await count(), 3); // fp32 on both, and the file to use instead
    } finally {
      await browser.close();
    }
  });

  test("an adapter that fails leaves the work to wasm", async () => {
    const page = await at().browser.newPage();
    await page.addInitScript(() => {
      Object.defineProperty(navigator, "gpu", { value: { requestAdapter: async () => ({}) } });
    });
    await page.goto(at().origin);
    assert.equal(await page.evaluate(providerOf), "wasm");
    const only = await failure(page, providerOf, { providers: ["webgpu"] });
    assert.match(only.message, /cannot run onnx-fp32: webgpu: /);
    await page.close();
  });

  test("WebGPU alone, where there is none", async () => {
    const error = await failure(at().page, providerOf, { providers: ["webgpu"] });
    assert.equal(error.name, "RuntimeUnavailableError");
    assert.match(error.message, /webgpu: this browser, or this machine, offers no adapter/);
  });
}
