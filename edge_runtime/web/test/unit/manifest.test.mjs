import assert from "node:assert/strict";
import { test } from "node:test";

import { BundleFormatError, BundleTamperedError, UnsafePathError } from "../../dist/errors.js";
import { readManifest } from "../../dist/manifest.js";
import { manifest } from "../fixtures.mjs";

test("a manifest that Python wrote has the fingerprint that Python computed", async () => {
  const read = await readManifest(manifest());
  assert.equal(read.fingerprint, manifest().fingerprint);
  assert.deepEqual(read.resize, { width: 48, height: 32, policy: "crop" });
  assert.deepEqual(read.variants.map((variant) => variant.format), ["tflite", "coreml", "onnx"]);
});

test("what is not hashed may change", async () => {
  await readManifest(manifest({ name: "other", created: "", producer: "", card: { a: 1 } }));
});

const EDITED = {
  mean: [0.5, 0.5, 0.5],
  std: [1, 0.224, 0.3333333333333334],
  dim: 25,
  architecture: "other",
  resize: { width: 48, height: 32, policy: "squash" },
  weights_sha256: "cd".repeat(32),
};
for (const [key, value] of Object.entries(EDITED)) {
  test(`an edited ${key} is found`, async () => {
    await assert.rejects(readManifest(manifest({ [key]: value })), BundleTamperedError);
  });
}

const MALFORMED = {
  "another schema": [{ schema: 1 }, /schema 1 .* reads schema 2; upgrade/],
  "an unknown key": [{ licence: "x" }, /unknown keys: licence/],
  "a role that there is not": [{ role: "both" }, /role "both" is none of cloud, edge/],
  "a width of half a number": [{ dim: 1.5 }, /dim has to be a whole number/],
  "a mean of two numbers": [{ mean: [0, 1] }, /mean has to be three numbers/],
  "an input that is too large": [
    { resize: { width: 5000, height: 1, policy: "crop" } },
    /width has to be a whole number, 1 to 4096, not 5000/,
  ],
  "an unknown policy": [{ resize: { width: 1, height: 1, policy: "fit" } }, /policy "fit"/],
  "no variant": [{ variants: [] }, /lists no variant/],
  "a hash that is none": [{ files: { "model.onnx": "AB".repeat(32) } }, /is not a sha256/],
  "a fingerprint that is none": [{ fingerprint: "12" }, /fingerprint: "12" is not a sha256/],
};
for (const [what, [changes, message]] of Object.entries(MALFORMED)) {
  test(`refused: ${what}`, async () => {
    await assert.rejects(readManifest(manifest(changes)), (error) => {
      assert.ok(error instanceof BundleFormatError, String(error));
      assert.match(error.message, message);
      return true;
    });
  });
}

test("refused: what is no manifest at all", async () => {
  for (const value of [null, [], 2, "x", {}]) {
    await assert.rejects(readManifest(value), BundleFormatError);
  }
});

test("a missing key is named", async () => {
  const { std, ...rest } = manifest();
  await assert.rejects(readManifest(rest), /lacks the keys: std/);
});

test("a path that leaves the bundle is refused, wherever it stands", async () => {
  const files = { ...manifest().files, "../x": "00".repeat(32) };
  await assert.rejects(readManifest(manifest({ files })), UnsafePathError);
  const variants = [{ ...manifest().variants[2], file: "/model.onnx" }];
  await assert.rejects(readManifest(manifest({ variants })), UnsafePathError);
});

test("a variant's hash has to be the one under files, of a folder as well", async () => {
  for (const index of [0, 1, 2]) {
    const { variants } = manifest();
    variants[index].sha256 = "ff".repeat(32);
    await assert.rejects(readManifest(manifest({ variants })), /sha256 is not the one under files/);
  }
});
