// checkBundle: in agreement, and at the right stage where it is not.

import assert from "node:assert/strict";
import { test } from "node:test";

async function check(url) {
  const { checkBundle } = await import("samespace-edge");
  return checkBundle(url);
}

/** The largest error of each stage, and of each variant where vectors are compared. */
export function worstOf({ results }) {
  const worst = {};
  for (const { stage, subject, error } of results) {
    const key = [stage, ...subject.split(" ").slice(1)].join(" ");
    worst[key] = Math.max(worst[key] ?? 0, error);
  }
  return worst;
}

export function checkTests(at) {
  const spoiledGolden = (name, change) =>
    at().golden(name, (before) => {
      const value = JSON.parse(before);
      change(value);
      return JSON.stringify(value);
    });

  test("this browser agrees with Python at every stage", async (t) => {
    const found = await at().page.evaluate(check, "/files/edge.bundle");
    assert.ok(found.ok, JSON.stringify(found, null, 1));
    assert.equal(found.departsAt, null);
    assert.equal(found.name, at().identity.name);
    const onnx = at().json("manifest.json").variants.filter(({ format }) => format === "onnx");
    assert.deepEqual(Object.keys(found.providers), onnx.map(({ name }) => name));
    const golden = at().json("golden/golden.json");
    assert.equal(found.results.length, golden.images.length * 4 * onnx.length);
    const worst = worstOf(found);
    assert.equal(worst.resize, 0);
    t.diagnostic(`largest error by stage: ${JSON.stringify(worst)}`);
  });

  test("the first stage that departs is named", async () => {
    const stages = {
      decode: (entry, other) => (entry.decoded = other.decoded),
      resize: (entry, other) => (entry.resized = other.resized),
      embed: (entry) => (entry.embedded["onnx-fp32"] = entry.embedded["onnx-fp32"].map((x) => -x)),
    };
    for (const [stage, spoil] of Object.entries(stages)) {
      const url = spoiledGolden(`departs-${stage}`, ({ images }) => spoil(images[0], images[1]));
      const found = await at().page.evaluate(check, url);
      assert.equal(found.departsAt, stage);
      assert.equal(found.ok, false);
    }
  });

  test("a file that changed is a problem, and nothing is replayed", async () => {
    const change = (content) => Buffer.concat([content, Buffer.from(" ")]);
    const url = at().spoiled("longer", { file: "golden/golden.json", change });
    const found = await at().page.evaluate(check, url);
    assert.equal(found.departsAt, "files");
    assert.equal(found.ok, false);
    assert.deepEqual(found.results, []);
    assert.match(found.problems.join(), /golden\.json is not the file that was exported/);
  });

  test("a bundle that nothing here runs is not ok", async () => {
    const manifest = (m) => {
      const variant = m.variants.find(({ format }) => format === "onnx");
      m.variants = [{ ...variant, name: "tflite-fp32", format: "tflite" }];
      return m;
    };
    const found = await at().page.evaluate(check, at().spoiled("check-tflite", { manifest }));
    assert.equal(found.ok, false);
    assert.equal(found.departsAt, null);
    assert.match(found.skipped.join(), /tflite-fp32: a browser runs ONNX files/);
  });
}
