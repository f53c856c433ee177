import assert from "node:assert/strict";
import { test } from "node:test";

import { declaredSize } from "../../dist/header.js";

const size = (...parts) => declaredSize(new Blob(parts.map((part) => Uint8Array.from(part))));
const text = (value) => [...Buffer.from(value, "latin1")];
const rest = new Array(32).fill(0);

const FILES = {
  png: [text("\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), [0, 1, 0, 2, 0, 0, 3, 4], rest],
  gif: [text("GIF89a"), [2, 1, 4, 3], rest],
  "bmp, upside down": [
    text("BM"), rest.slice(0, 12), [40, 0, 0, 0, 2, 1, 0, 0, 0xfc, 255, 255, 255], rest,
  ],
  "webp, lossy": [text("RIFF....WEBPVP8 "), rest.slice(0, 10), [2, 0x41, 4, 0x83], rest],
  "webp, lossless": [text("RIFF....WEBPVP8L"), [0, 0, 0, 0, 0x2f, 1, 0x41, 0, 0], rest],
  "webp, extended": [text("RIFF....WEBPVP8X"), rest.slice(0, 8), [1, 0, 1, 2, 0, 0], rest],
  "jpeg behind a large segment": [
    [0xff, 0xd8, 0xff, 0xe1, 0xff, 0xff], new Array(0xfffd).fill(0xff),
    [0xff, 0xff, 0xff, 0xc4, 0, 3, 0], [0xff, 0xc2, 0, 11, 8, 1, 2, 3, 4, 0, 0, 0, 0],
  ],
};
const EXPECTED = {
  png: [0x10002, 0x304],
  gif: [0x102, 0x304],
  "bmp, upside down": [0x102, 4],
  "webp, lossy": [0x102, 0x304],
  "webp, lossless": [0x102, 2],
  "webp, extended": [0x10002, 3],
  "jpeg behind a large segment": [0x304, 0x102],
};

for (const [name, parts] of Object.entries(FILES)) {
  test(`size of a ${name}`, async () => {
    const { width, height } = await size(...parts);
    assert.deepEqual([width, height], EXPECTED[name]);
  });
}

test("no size of what says none", async () => {
  assert.equal(await size([]), undefined);
  assert.equal(await size([0xff, 0xd8]), undefined);
  assert.equal(await size([0xff, 0xd8, 0xff, 0xda], rest), undefined);
  assert.equal(await size([0xff, 0xd8, 0xff, 0xe0, 0, 0], rest), undefined);
  assert.equal(await size(text("not a picture"), rest), undefined);
});
