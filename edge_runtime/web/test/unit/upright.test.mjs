import assert from "node:assert/strict";
import { test } from "node:test";

import { turned, webpOrientation } from "../../dist/upright.js";

const text = (value) => [...Buffer.from(value, "latin1")];
const long = (value) => [value & 255, (value >> 8) & 255, 0, 0];

function webp(exif, flags = 8) {
  const chunks = [
    ...text("VP8X"), ...long(10), flags, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ...text("VP8L"), ...long(3), 1, 2, 3, 0, // an odd chunk is padded
    ...text("EXIF"), ...long(exif.length), ...exif,
  ];
  const bytes = [...text("RIFF"), ...long(chunks.length + 4), ...text("WEBP"), ...chunks];
  return webpOrientation(new Blob([Uint8Array.from(bytes)]));
}

const BIG = [...text("MM"), 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0];
const LITTLE = [...text("II"), 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 8, 0, 0, 0];

test("a WebP's orientation, in either byte order, with JPEG's prefix or without", async () => {
  assert.equal(await webp(BIG), 6);
  assert.equal(await webp(LITTLE), 8);
  assert.equal(await webp([...text("Exif\0\0"), ...LITTLE]), 8);
});

test("no orientation where there is none, or none that can be read", async () => {
  assert.equal(await webp(BIG, 0), 1);
  assert.equal(await webp(BIG.slice(0, 15)), 1);
  assert.equal(await webp([]), 1);
  assert.equal(await webp([...BIG.slice(0, 19), 0, 9, 0, 0].with(18, 0).with(19, 9)), 1);
  assert.equal(await webpOrientation(new Blob(["no picture, but long enough"])), 1);
});

test("every orientation turns as EXIF says", () => {
  // 1 2 3
  // 4 5 6
  const data = Uint8Array.from([1, 2, 3, 4, 5, 6].flatMap((v) => [v, v, v]));
  const rows = (orientation) => {
    const { data: made, width } = turned({ data, width: 3, height: 2 }, orientation);
    const levels = [...made].filter((_, i) => i % 3 === 0).join("");
    return levels.match(new RegExp(`.{${width}}`, "g")).join(" ");
  };
  assert.deepEqual([1, 2, 3, 4].map(rows), ["123 456", "321 654", "654 321", "456 123"]);
  assert.deepEqual([5, 6, 7, 8].map(rows), ["14 25 36", "41 52 63", "63 52 41", "36 25 14"]);
});
