import assert from "node:assert/strict";
import { test } from "node:test";

import { Float, canonicalJson, pythonFloat } from "../../dist/canonical.js";
import { fixtures } from "../fixtures.mjs";

test("floats are written as Python writes them", () => {
  for (const text of fixtures.floats) assert.equal(pythonFloat(Number(text)), text);
  assert.throws(() => pythonFloat(NaN), RangeError);
  assert.throws(() => pythonFloat(Infinity), RangeError);
});

test("canonical JSON is Python's", () => {
  const float = (value) => new Float(value);
  const values = [
    { b: 1, a: [float(0.5), float(1), -2, float(1e-5)], aa: {} },
    { text: 'quote " backslash \\ tab \t bell \x07 delete \x7f é 猫 \u2028', "": [] },
    { "\u{1f408}": 1, "\ufb01": 2, Z: 3, a: 4, é: 5 },
  ];
  assert.deepEqual(values.map(canonicalJson), fixtures.canonical);
});

test("a plain number has to be an integer", () => {
  assert.throws(() => canonicalJson({ a: 0.5 }), RangeError);
});
