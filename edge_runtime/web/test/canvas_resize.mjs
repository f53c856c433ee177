// How far a canvas is from the bundle's resize, in levels of 255, over a folder of pictures:
//
//     npm run build && node test/canvas_resize.mjs [FOLDER] [--size 48]... [--pixels OUT]
//
// prints {"SIZE QUALITY": {"max": ..., "mean": ...}}. Both take the same centred square of the
// same decoded pixels. Without a folder it makes a picture of 640x480. With --pixels what the
// canvas drew goes to OUT-SIZE-QUALITY.rgb, uint8 (N, SIZE, SIZE, 3), in the order of the names.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { NO_GPU, PYTHON, TEST, launch } from "./browser/harness.mjs";
import { serve } from "./browser/server.mjs";

// imageSmoothingQuality; a canvas that is not told otherwise has "low".
const QUALITIES = ["low", "high"];
const PICTURE = /\.(jpe?g|png|webp|gif|bmp)$/i;
const PHOTO = `
import sys
from pictures import file, photo
open(sys.argv[1], "wb").write(file(photo(640, 480), "png"))`;

/** In the page: sum and maximum of the differences for one picture. */
async function compare([name, size, quality]) {
  const { decode } = await import("/dist/decode.js");
  const { centredPart, resizePixels } = await import("/dist/resize.js");
  const blob = await (await fetch(`/files/${encodeURIComponent(name)}`)).blob();
  const { data, width, height } = await decode(blob);
  const expected = resizePixels(
    { data, width, height },
    { width: size, height: size, policy: "crop" },
  ).data;

  const rgba = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    rgba.data.set([data[3 * i], data[3 * i + 1], data[3 * i + 2], 255], 4 * i);
  }
  const context = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = quality;
  const part = centredPart({ width, height }, { width: size, height: size });
  const picture = await createImageBitmap(rgba);
  context.drawImage(picture, part.left, part.top, part.width, part.height, 0, 0, size, size);
  const drawn = context.getImageData(0, 0, size, size).data;

  const pixels = Array.from(expected, (_, i) => drawn[Math.floor(i / 3) * 4 + (i % 3)]);
  let sum = 0;
  let max = 0;
  for (const [i, value] of expected.entries()) {
    const difference = Math.abs(pixels[i] - value);
    sum += difference;
    max = Math.max(max, difference);
  }
  return { sum, max, pixels, count: expected.length };
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    size: { type: "string", multiple: true, default: ["48"] },
    pixels: { type: "string" },
  },
});
const made = positionals.length ? undefined : mkdtempSync(join(tmpdir(), "samespace-canvas-"));
if (made) execFileSync(PYTHON, ["-c", PHOTO, join(made, "photo.png")], { cwd: TEST });
const folder = made ?? positionals[0];

const server = await serve(folder);
const browser = await launch(NO_GPU);
try {
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${server.port}`);
  const names = readdirSync(folder).filter((name) => PICTURE.test(name)).sort();
  if (!names.length) throw new Error(`${folder} holds no JPEG, PNG, WebP, GIF or BMP file`);
  const report = {};
  for (const size of values.size.map(Number)) {
    for (const quality of QUALITIES) {
      const found = [];
      for (const name of names) found.push(await page.evaluate(compare, [name, size, quality]));
      if (values.pixels) {
        const all = Buffer.concat(found.map((one) => Buffer.from(one.pixels)));
        writeFileSync(`${values.pixels}-${size}-${quality}.rgb`, all);
      }
      const total = (key) => found.reduce((sum, one) => sum + one[key], 0);
      const mean = Number((total("sum") / total("count")).toFixed(3));
      report[`${size} ${quality}`] = { max: Math.max(...found.map((one) => one.max)), mean };
    }
  }
  console.log(JSON.stringify(report, null, 1));
} finally {
  await browser.close();
  await server.close();
  if (made) rmSync(made, { recursive: true });
}
