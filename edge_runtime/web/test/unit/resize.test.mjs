import assert from "node:assert/strict";
import { test } from "node:test";

import { resizePixels } from "../../dist/resize.js";
import { copyOnWhite } from "../../dist/white.js";
import { bytes, fixtures } from "../fixtures.mjs";

for (const { width, height, pixels, resize, expected } of fixtures.resize) {
  const title = `${width}x${height} to ${resize.width}x${resize.height}, ${resize.policy}`;
  test(`resize is Python's, bit for bit: ${title}`, () => {
    const source = { data: bytes(pixels), width, height };
    const result = resizePixels(source, resize);
    assert.deepEqual([result.width, result.height], [resize.width, resize.height]);
    assert.deepEqual(result.data, bytes(expected));
    assert.notEqual(result.data.buffer, source.data.buffer);
    assert.deepEqual(source.data, bytes(pixels), "the source stays as it was");
  });
}

test("transparency on white is Pillow's, bit for bit", () => {
  const { width, height, rgba, expected } = fixtures.white;
  const pixels = { data: new Uint8Array(width * height * 3), width, height };
  copyOnWhite({ data: new Uint8ClampedArray(bytes(rgba)), width, height }, pixels);
  assert.deepEqual(pixels.data, bytes(expected));
});
