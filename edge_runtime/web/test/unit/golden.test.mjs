import assert from "node:assert/strict";
import { test } from "node:test";

import { DepartingGraphError } from "../../dist/errors.js";
import { angle } from "../../dist/golden.js";
import * as door from "../../dist/index.js";

const close = (found, expected) => assert.ok(Math.abs(found - expected) < 1e-7, String(found));

test("1 - cosine of unit vectors", () => {
  const [c, s] = [Math.cos(0.1), Math.sin(0.1)];
  close(angle(new Float32Array([c, s, 0]), [1, 0, 0]), 1 - c);
  close(angle(new Float32Array([1, 0, 0]), [-1, 0, 0]), 2);
  assert.equal(angle(new Float32Array([1.005, 0]), [1, 0]), 0);
});

test("what is no unit vector, or of another width, is infinitely far", () => {
  for (const vector of [[0.9, 0], [0, 0], [NaN, 0], [1, 0, 0], [1]]) {
    assert.equal(angle(new Float32Array(vector), [1, 0]), Infinity);
  }
});

test("where zeros are expected, the largest number counts", () => {
  close(angle(new Float32Array([0.25, -0.5]), [0, 0]), 0.5);
  assert.equal(angle(new Float32Array(2), [0, 0]), 0);
});

test("the error's kind is public", () => {
  assert.equal(door.DepartingGraphError, DepartingGraphError);
  const error = new DepartingGraphError("x");
  assert.equal(error.name, "DepartingGraphError");
  assert.ok(error instanceof door.BundleError);
});
