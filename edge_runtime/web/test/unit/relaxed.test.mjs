import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { RELAXED } from "../relaxed.mjs";

const DIST = new URL("../../node_modules/onnxruntime-web/dist/", import.meta.url);

// The files that onnxruntime-web/wasm and onnxruntime-web/webgpu load.
for (const name of ["ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.asyncify.wasm"]) {
  test(`${name} uses no relaxed SIMD, whose results depend on the processor`, (t) => {
    if (WebAssembly.validate(new Uint8Array(RELAXED))) {
      return t.skip(`Node ${process.version} accepts relaxed SIMD, so it cannot tell; 20 can`);
    }
    assert.ok(WebAssembly.validate(readFileSync(new URL(name, DIST))));
  });
}
