// Decoding: Chromium against Pillow, file by file.

import assert from "node:assert/strict";
import { test } from "node:test";

// Levels of 255. JPEG decoders may round differently; the rest has one reading only, but for the
// rounding of transparency. "foreign" files are reported, not judged.
const TOLERANCE = { jpeg: 4, lossy: 4, transparent: 2, lossless: 0, foreign: 255 };

/** In the page: how far `decode` is from Pillow's pixels. */
async function difference([name, width, height]) {
  const { decode } = await import("/dist/decode.js");
  const content = async (file) => (await fetch(`/files/pictures/${file}`)).arrayBuffer();
  const pixels = await decode(new File([await content(name)], name));
  if (pixels.width !== width || pixels.height !== height) {
    return `${pixels.width}x${pixels.height} instead of ${width}x${height}`;
  }
  const expected = new Uint8Array(await content(`${name}.rgb`));
  if (expected.length !== pixels.data.length) return `${pixels.data.length} bytes`;
  return pixels.data.reduce((most, v, i) => Math.max(most, Math.abs(v - expected[i])), 0);
}

export function decodeTests(at) {
  for (const group of Object.keys(TOLERANCE)) {
    test(`decoded as Pillow does: ${group}`, async (t) => {
      const found = {};
      for (const name of at().group(group)) {
        const { width, height } = at().pictures[name];
        found[name] = await at().page.evaluate(difference, [name, width, height]);
      }
      t.diagnostic(`largest difference of a level: ${JSON.stringify(found)}`);
      for (const [name, most] of Object.entries(found)) {
        assert.ok(most <= TOLERANCE[group], `${name}: ${most}`);
      }
    });
  }

  test("the comparison itself sees a difference: an <img> is drawn with its profile", async () => {
    const most = await at().page.evaluate(async () => {
      const { decode } = await import("/dist/decode.js");
      const image = new Image();
      image.src = "/files/pictures/profile.png";
      const expected = new Uint8Array(
        await (await fetch("/files/pictures/profile.png.rgb")).arrayBuffer(),
      );
      const { data } = await decode(image);
      return data.reduce((worst, v, i) => Math.max(worst, Math.abs(v - expected[i])), 0);
    });
    assert.ok(most > 50, `${most}`);
  });

  test("ImageData is laid on white as Pillow does", async () => {
    const most = await at().page.evaluate(async () => {
      const { decode } = await import("/dist/decode.js");
      const image = new ImageData(256, 1);
      for (let x = 0; x < 256; x++) image.data.set([10, 128, 250, x], x * 4);
      const { data } = await decode(image);
      const exact = (level, alpha) => (level * alpha + 255 * (255 - alpha)) / 255;
      return data.reduce((worst, v, i) => {
        const wanted = exact([10, 128, 250][i % 3], Math.floor(i / 3));
        return Math.max(worst, Math.abs(v - wanted));
      }, 0);
    });
    assert.ok(most <= 0.51, `${most}`);
  });

  test("a worker decodes as the page does", async () => {
    const same = await at().page.evaluate(async () => {
      const code = `
        import { decode } from "${location.origin}/dist/decode.js";
        onmessage = async ({ data }) => postMessage(await decode(data));`;
      const script = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
      const worker = new Worker(script, { type: "module" });
      const blob = await (await fetch("/files/pictures/420-q75.jpg")).blob();
      const there = await new Promise((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = () => reject(new Error("the worker failed"));
        worker.postMessage(blob);
      });
      worker.terminate();
      const { decode } = await import("/dist/decode.js");
      const here = await decode(blob);
      return there.width === here.width && there.data.every((v, i) => v === here.data[i]);
    });
    assert.ok(same);
  });
}
