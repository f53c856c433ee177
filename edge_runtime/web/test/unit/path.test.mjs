import assert from "node:assert/strict";
import { test } from "node:test";

import { UnsafePathError } from "../../dist/errors.js";
import { memberUrl, safeMember } from "../../dist/path.js";

const UNSAFE = [
  "", ".", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a\\b", "C:x", "https://x/y",
  "weights.pkl", "a/model.PT", "x.joblib",
];

for (const path of UNSAFE) {
  test(`refused: ${JSON.stringify(path)}`, () => {
    assert.throws(() => safeMember(path), UnsafePathError);
  });
}

test("a name stays a name, whatever it looks like in an address", () => {
  const base = new URL("https://host/models/edge.bundle/");
  const address = (path) => memberUrl(base, path).href;
  assert.equal(address("model.onnx"), "https://host/models/edge.bundle/model.onnx");
  assert.equal(address("golden/./0.png"), "https://host/models/edge.bundle/golden/0.png");
  assert.equal(address("%2e%2e/x"), "https://host/models/edge.bundle/%252e%252e/x");
  assert.equal(address("a?b#c é"), "https://host/models/edge.bundle/a%3Fb%23c%20%C3%A9");
  assert.equal(address("..x/.pt"), "https://host/models/edge.bundle/..x/.pt");
});

test("a signed address stays signed", () => {
  const base = new URL("https://host/edge.bundle/?key=1");
  assert.equal(memberUrl(base, "model.onnx").href, "https://host/edge.bundle/model.onnx?key=1");
});
