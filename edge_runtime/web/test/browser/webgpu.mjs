// WebGPU: on an adapter that Chromium computes itself, and where it fails.

import assert from "node:assert/strict";
import { test } from "node:test";

import { worstOf } from "./check.mjs";
import { SOFTWARE_GPU, failure, launch } from "./harness.mjs";

async function providerOf(options) {
  const { Embedder } = await import("samespace-edge");
  return (await Embedder.load("/files/edge.bundle", options)).provider;
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
