import assert from "node:assert/strict";
import { test } from "node:test";

import { readRgbPng } from "../../dist/png.js";
import { bytes, fixtures } from "../fixtures.mjs";

for (const [name, { png, width, height, pixels }] of Object.entries(fixtures.png)) {
  const what = pixels ? "read as Pillow does" : "left to the browser";
  test(`a PNG, ${name}: ${what}`, async () => {
    const found = await readRgbPng(bytes(png));
    assert.deepEqual(found, pixels ? { data: bytes(pixels), width, height } : undefined);
  });
}

test("every filter of the specification is among them", async () => {
  const content = Buffer.from(fixtures.png["every filter"].png, "base64");
  const { width, height } = fixtures.png["every filter"];
  const { inflateSync } = await import("node:zlib");
  const data = [];
  for (let at = 8; at < content.length; at += 12 + content.readUInt32BE(at)) {
    const type = content.toString("latin1", at + 4, at + 8);
    if (type === "IDAT") data.push(content.subarray(at + 8, at + 8 + content.readUInt32BE(at)));
  }
  assert.equal(data.length, 2);
  const lines = inflateSync(Buffer.concat(data));
  const filters = Array.from({ length: height }, (_, y) => lines[y * (3 * width + 1)]);
  assert.deepEqual([...new Set(filters)], [0, 1, 2, 3, 4]);
});

test("a file that is no PNG, and one that is damaged", async () => {
  assert.equal(await readRgbPng(new Uint8Array()), undefined);
  assert.equal(await readRgbPng(new TextEncoder().encode("GIF89a, and more")), undefined);
  const content = bytes(fixtures.png.noise.png);
  await assert.rejects(readRgbPng(content.slice(0, 60))); // each engine with an error of its own
  const taller = content.slice();
  taller[23] += 1; // the height
  await assert.rejects(readRgbPng(taller), /lacks lines/);
});
