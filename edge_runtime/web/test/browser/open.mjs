// The comparison with golden vectors when a bundle is loaded.

import assert from "node:assert/strict";
import { test } from "node:test";

import { failure, hash } from "./harness.mjs";

const INT8 = "onnx-int8";

/** In the page: which file was loaded, and on what. */
async function load([url, options]) {
  const { Embedder } = await import("samespace-edge");
  const embedder = await Embedder.load(url, options);
  const { provider, identity } = embedder;
  await embedder.dispose();
  return [identity.variant, provider];
}

/** In the page: what is kept, by key. */
const kept = () => Object.fromEntries(Object.entries(localStorage));

/** A change of a golden file's text from one of its content. */
const edit = (change) => (before) => {
  const value = JSON.parse(before);
  change(value);
  return JSON.stringify(value);
};

export function openTests(at) {
  /** `work` in a page with a storage of its own; with what runs in it before any script. */
  async function apart(work, before) {
    const context = await at().browser.newContext();
    try {
      const page = await context.newPage();
      if (before) await page.addInitScript(before);
      await page.goto(at().origin);
      return await work(page);
    } finally {
      await context.close();
    }
  }

  /** The bundle's files that `work` fetches, in order of their names. */
  async function fetched(page, work) {
    const names = [];
    const note = (request) => {
      const [, name] = new URL(request.url()).pathname.match(/^\/files\/[^/]+\/(.*)/) ?? [];
      if (name) names.push(name);
    };
    page.on("request", note);
    await work();
    page.off("request", note);
    return names.sort();
  }

  test("a file that departs is passed over where none was named", async () => {
    const url = at().departing("over", { [INT8]: 0.1 }, INT8);
    await apart(async (page) => {
      assert.deepEqual(await page.evaluate(load, [url]), ["onnx-fp32", "wasm"]);
      assert.deepEqual(await page.evaluate(load, [url, { check: false }]), [INT8, "wasm"]);
    });
  });

  test("a file that departs is refused where it was named", async () => {
    const url = at().departing("named", { [INT8]: 0.1 }, INT8);
    const error = await apart((page) => failure(page, load, [url, { variant: INT8 }]));
    assert.equal(error.name, "DepartingGraphError");
    assert.ok(error.kinds.includes("BundleError"), String(error.kinds));
    const departs = `bundle '${at().identity.name}' gives other vectors than its golden vectors`;
    assert.ok(error.message.includes(departs), error.message);
    assert.match(error.message, /onnx-int8 on wasm by 0\.1, where 0\.005 passes/);
    assert.match(error.message, /Use variant 'onnx-fp32', which agrees here\.$/);
  });

  test("nothing agrees", async () => {
    const all = { "onnx-fp32": 0.1, "onnx-fp16": 0.2, [INT8]: 0.3 };
    const url = at().departing("none", all);
    const error = await apart((page) => failure(page, load, [url]));
    assert.equal(error.name, "DepartingGraphError");
    const each = /onnx-fp32 on wasm by 0\.1, .*; onnx-fp16 .* by 0\.2, .*; onnx-int8 .* by 0\.3, /;
    assert.match(error.message, each);
    assert.match(error.message, /No other ONNX file of the bundle agrees here\. Export the bundle/);
  });

  test("the smallest departures that are refused, and the largest that are not", async () => {
    await apart(async (page) => {
      for (const [variant, tolerance] of [["onnx-fp32", 1e-5], ["onnx-fp16", 1e-3], [INT8, 5e-3]]) {
        const inside = at().departing(`inside-${variant}`, { [variant]: 0.9 * tolerance });
        assert.deepEqual(await page.evaluate(load, [inside, { variant }]), [variant, "wasm"]);
        const outside = at().departing(`outside-${variant}`, { [variant]: 1.1 * tolerance });
        const error = await failure(page, load, [outside, { variant }]);
        assert.match(error.message, new RegExp(`where ${tolerance} passes`));
      }
    });
  });

  test("a page pays once: then neither golden files nor refused files are fetched", async () => {
    const url = at().departing("once", { [INT8]: 0.1 }, INT8);
    const { images } = at().json("golden/golden.json");
    const resized = images.map((picture) => `golden/${picture.resized}`);
    await apart(async (page) => {
      const first = await fetched(page, () => page.evaluate(load, [url]));
      const compared = ["golden/golden.json", ...resized];
      const files = ["manifest.json", "model.int8.onnx", "model.onnx"];
      assert.deepEqual(first, [...compared, ...compared, ...files].sort());
      const verdicts = await page.evaluate(kept);
      assert.equal(Object.keys(verdicts).length, 2);
      const errors = Object.values(verdicts).map((text) => Number(text.split(" ")[0]));
      assert.ok(Math.min(...errors) < 1e-6 && Math.max(...errors) > 0.09, String(errors));
      await page.reload();
      const again = await fetched(page, () => page.evaluate(load, [url]));
      assert.deepEqual(again, ["manifest.json", "model.onnx"]);
      const unchecked = await fetched(page, () => page.evaluate(load, [url, { check: false }]));
      assert.deepEqual(unchecked, ["manifest.json", "model.int8.onnx"]);
    });
  });

  test("what is kept decides, and what is damaged is compared again", async () => {
    await apart(async (page) => {
      const one = ["/files/edge.bundle", { variant: "onnx-fp32" }];
      await page.evaluate(load, one);
      const [[key, verdict]] = Object.entries(await page.evaluate(kept));
      assert.match(key, /^samespace-edge verdict [0-9a-f]{64}$/);
      const keep = (text) => page.evaluate(([k, v]) => localStorage.setItem(k, v), [key, text]);
      await keep("0.5 0.1");
      const error = await failure(page, load, one);
      assert.match(error.message, /onnx-fp32 on wasm by 0\.5, where 0\.1 passes/);
      for (const damaged of ["", "damaged", "0.5", "0.5 0.1 0.1", "0.5 x"]) {
        await keep(damaged);
        assert.deepEqual(await page.evaluate(load, one), ["onnx-fp32", "wasm"]);
        assert.equal((await page.evaluate(kept))[key], verdict);
      }
    });
  });

  test("no storage, or a full one, is no error", async () => {
    const forbidden = () => {
      const get = () => {
        throw new DOMException("forbidden", "SecurityError");
      };
      Object.defineProperty(globalThis, "localStorage", { get });
    };
    const full = () => {
      Storage.prototype.setItem = () => {
        throw new DOMException("full", "QuotaExceededError");
      };
    };
    const url = at().departing("storage", { [INT8]: 0.1 }, INT8);
    for (const before of [forbidden, full]) {
      const found = await apart((page) => page.evaluate(load, [url]), before);
      assert.deepEqual(found, ["onnx-fp32", "wasm"]);
    }
  });

  test("a worker compares as well, and keeps nothing", async () => {
    const url = at().departing("worker", { [INT8]: 0.1 }, INT8);
    const found = await apart(async (page) => [
      await page.evaluate(async (bundle) => {
        const code = `
          import { Embedder } from "${location.origin}/worker/index.js";
          onmessage = async ({ data }) => {
            const { identity, provider } = await Embedder.load(data, { providers: ["wasm"] });
            postMessage([identity.variant, provider]);
          };`;
        const script = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
        const worker = new Worker(script, { type: "module" });
        const answer = await new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = ({ message }) => reject(new Error(message));
          worker.postMessage(new URL(bundle, location.href).href);
        });
        worker.terminate();
        return answer;
      }, url),
      Object.keys(await page.evaluate(kept)),
    ]);
    assert.deepEqual(found, [["onnx-fp32", "wasm"], []]);
  });

  test("a browser that adds noise to every canvas is not taken for a departing one", async () => {
    const noisy = () => {
      for (const kind of [CanvasRenderingContext2D, OffscreenCanvasRenderingContext2D]) {
        const { getImageData } = kind.prototype;
        kind.prototype.getImageData = function (...given) {
          const image = getImageData.apply(this, given);
          image.data.forEach((value, i) => (image.data[i] = value ^ (i % 4 === 3 ? 0 : 64)));
          return image;
        };
      }
    };
    await apart(async (page) => {
      assert.deepEqual(await page.evaluate(load, ["/files/edge.bundle"]), ["onnx-fp32", "wasm"]);
      const found = await page.evaluate(async () => {
        const { checkBundle } = await import("samespace-edge");
        return checkBundle("/files/edge.bundle");
      });
      assert.equal(found.departsAt, "decode"); // the test of the test
    }, noisy);
  });

  test("bundles without golden vectors load as before", async () => {
    const without = at().spoiled("no-golden", {
      manifest: (m) => {
        delete m.files["golden/golden.json"];
        return m;
      },
    });
    const empty = at().golden("no-pictures", edit((golden) => (golden.images = [])));
    const none = edit(({ tolerance }) => delete tolerance.embed["onnx-fp32"]);
    const other = at().golden("no-fp32", none);
    for (const url of [without, empty, other]) {
      await apart(async (page) => {
        assert.deepEqual(await page.evaluate(load, [url]), ["onnx-fp32", "wasm"]);
        assert.deepEqual(await page.evaluate(kept), {});
      });
    }
  });

  test("golden files that are missing, changed, or malformed", async () => {
    const fails = async (url, name, message) => {
      const error = await apart((page) => failure(page, load, [url]));
      assert.equal(error.name, name, error.message);
      assert.match(error.message, message);
      const unchecked = [url, { check: false }];
      assert.deepEqual(await at().page.evaluate(load, unchecked), ["onnx-fp32", "wasm"]);
    };
    const [{ resized }] = at().json("golden/golden.json").images;
    const longer = (content) => Buffer.concat([content, Buffer.from(" ")]);
    const changed = at().spoiled("png-changed", { file: `golden/${resized}`, change: longer });
    await fails(changed, "BundleTamperedError", /resized\.png is not the file that was exported/);
    const gone = at().spoiled("png-gone", {
      manifest: (m) => {
        m.files["golden/golden.json"] = hash("{}");
        return m;
      },
    });
    await fails(gone, "BundleTamperedError", /golden\.json is not the file that was exported/);
    const malformed = {
      "no JSON": () => "<!doctype html>",
      "no object": () => "null",
      "no tolerances": () => '{"images": []}',
      "no pictures": () => '{"tolerance": {"embed": {"onnx-fp32": 1}}}',
      "no vectors": edit(({ images }) => images.forEach((picture) => delete picture.embedded)),
      "short vectors": edit(({ images: [picture] }) => picture.embedded["onnx-fp32"].pop()),
      "other pixels": edit(({ images: [picture] }) => (picture.resized = picture.decoded)),
      "no picture": edit(({ images: [picture] }) => (picture.resized = "golden.json")),
    };
    for (const [what, change] of Object.entries(malformed)) {
      const url = at().golden(`golden ${what}`, change);
      await fails(url, "BundleFormatError", /golden\/[a-z0-9.]+ (is malformed|says nothing)/);
    }
  });
}
