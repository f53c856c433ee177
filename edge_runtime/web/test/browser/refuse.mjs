// What is refused, with the error's class and a message that names the culprit.

import assert from "node:assert/strict";
import { test } from "node:test";

import { failure, hash } from "./harness.mjs";

async function load([url, options]) {
  const { Embedder } = await import("samespace-edge");
  await Embedder.load(url, options);
}

async function embed(names) {
  const { Embedder } = await import("samespace-edge");
  const embedder = await Embedder.load("/files/edge.bundle");
  const files = [];
  for (const name of names) {
    files.push(new File([await (await fetch(`/files/pictures/${name}`)).blob()], name));
  }
  await (files.length === 1 ? embedder.embed(files[0]) : embedder.embedAll(files));
}

async function decodeThat(kind) {
  const { decode } = await import("/dist/decode.js");
  const image = new Image();
  if (kind === "text") return decode("cup.jpg");
  if (kind === "broken") image.src = "/files/pictures/text.jpg";
  if (kind === "foreign") image.src = `//localhost:${location.port}/files/pictures/rgb.png`;
  if (kind !== "closed") return decode(image);
  const bitmap = await createImageBitmap(new ImageData(1, 1));
  bitmap.close();
  return decode(bitmap);
}

const flip = (content) => {
  content[content.length >> 1] ^= 1;
  return content;
};

export function refusalTests(at) {
  const fails = async (run, argument, name, message, page = at().page) => {
    const error = await failure(page, run, argument);
    assert.equal(error.name, name, error.message);
    assert.match(error.message, message);
    assert.ok(error.kinds.includes("SamespaceError"), String(error.kinds));
  };

  test("damaged files, by name, as Python", async () => {
    for (const name of at().group("damaged")) {
      await fails(embed, [name], at().pictures[name].error, new RegExp(`^${name}`));
    }
  });

  test("one bad picture among many, by position", async () => {
    const names = ["rgb.png", "text.jpg"];
    await fails(embed, names, "DecodeError", /^picture 1: text\.jpg: not an image/);
  });

  test("what is no picture, or may not be read", async () => {
    await fails(decodeThat, "text", "DecodeError", /from \[object String\]; give a File/);
    await fails(decodeThat, "broken", "DecodeError", /text\.jpg: the picture cannot be loaded/);
    await fails(decodeThat, "nothing", "DecodeError", /the <img> element: .* cannot be loaded/);
    await fails(decodeThat, "closed", "DecodeError", /the ImageBitmap has no pixels/);
    await fails(decodeThat, "foreign", "DecodeError", /another origin.*crossOrigin="anonymous"/);
  });

  test("pixels of another size, and an embedder that was disposed of", async () => {
    const wrong = async () => {
      const { Embedder } = await import("samespace-edge");
      await (await Embedder.load("/files/edge.bundle")).embedPixels(new Uint8Array(5), 1);
    };
    const { width, height } = at().json("manifest.json").resize;
    const size = `a batch of 1 with ${width}x${height} .* has ${width * height * 3} bytes, not 5`;
    await fails(wrong, null, "DecodeError", new RegExp(size));
    const disposed = async () => {
      const { Embedder } = await import("samespace-edge");
      const embedder = await Embedder.load("/files/edge.bundle");
      await embedder.dispose();
      await embedder.dispose();
      await embedder.embed(new ImageData(2, 2));
    };
    await fails(disposed, null, "SamespaceError", /disposed of; load it again/);
  });

  test("a graph of which one bit changed", async () => {
    const url = at().spoiled("flipped", { file: "model.onnx", change: flip });
    await fails(load, [url], "BundleTamperedError", /model\.onnx is not the file that was exp/);
  });

  test("a file that is no graph", async () => {
    const content = Buffer.from("no graph");
    const url = at().spoiled("garbage", {
      file: "model.onnx",
      change: () => content,
      manifest: (m) => {
        m.files["model.onnx"] = hash(content);
        m.variants = m.variants.filter((variant) => variant.file === "model.onnx");
        m.variants[0].sha256 = hash(content);
        return m;
      },
    });
    await fails(load, [url], "BundleFormatError", /cannot run onnx-fp32: .*wasm: .*protobuf/);
  });

  test("a manifest that is missing, no JSON, of another schema, edited, or unsafe", async () => {
    const spoiled = (name, change) => at().spoiled(name, { manifest: change });
    await fails(load, ["/files/nowhere"], "BundleFormatError", /nowhere\/ is not a bundle.*404/);
    const page = at().spoiled("page", { file: "manifest.json", change: () => "<!doctype html>" });
    await fails(load, [page], "BundleFormatError", /is not JSON/);
    const old = spoiled("old", (m) => ({ ...m, schema: 1 }));
    await fails(load, [old], "BundleFormatError", /schema 1 is not known.*export the bundle again/);
    const edited = spoiled("edited", (m) => ({ ...m, mean: [0, 0, 0] }));
    await fails(load, [edited], "BundleTamperedError", /edited after export/);
    const files = { "../x": hash("") };
    const unsafe = spoiled("unsafe", (m) => ({ ...m, files: { ...m.files, ...files } }));
    await fails(load, [unsafe], "UnsafePathError", /"\.\.\/x" does not stay inside/);
    const gone = spoiled("gone", (m) => {
      m.files["x.onnx"] = hash("");
      m.variants = [{ ...m.variants[0], format: "onnx", file: "x.onnx", sha256: hash("") }];
      return m;
    });
    await fails(load, [gone], "BundleTamperedError", /x\.onnx cannot be read: HTTP 404/);
  });

  test("a bundle without an ONNX file, and variants that there are not", async () => {
    const url = at().spoiled("tflite", {
      manifest: (m) => {
        const variant = m.variants.find(({ format }) => format === "onnx");
        m.variants = [{ ...variant, name: "tflite-fp32", format: "tflite" }];
        return m;
      },
    });
    const has = new RegExp(`bundle '${at().identity.name}' has: tflite-fp32`);
    await fails(load, [url], "RuntimeUnavailableError", has);
    const asked = [url, { variant: "tflite-fp32" }];
    await fails(load, asked, "RuntimeUnavailableError", /was asked for: tflite-fp32/);
    const unknown = ["/files/edge.bundle", { variant: "onnx-fp64" }];
    await fails(load, unknown, "BundleFormatError", /no variant 'onnx-fp64'; it has: onnx-fp32/);
  });

  test("options that there are not, a server that is down, an address that is none", async () => {
    const bundle = "/files/edge.bundle";
    await fails(load, [bundle, { threads: 0 }], "ConfigError", /threads has to be 1 or more/);
    await fails(load, [bundle, { providers: ["cuda"] }], "ConfigError", /not \[cuda\]/);
    await fails(load, [bundle, { providers: [] }], "ConfigError", /webgpu, wasm or both/);
    await fails(load, ["http://127.0.0.1:9/x"], "BundleError", /could not be fetched.*CORS/);
    await fails(load, ["http://"], "ConfigError", /http:\/\/ is not the address of a bundle/);
  });

  test("a page that is no secure context", async () => {
    const page = await at().browser.newPage();
    await page.goto(`http://insecure.test:${at().port}/`);
    const argument = ["/files/edge.bundle"];
    const message = /not a secure context.*crypto\.subtle.*serve the page over https/;
    await fails(load, argument, "RuntimeUnavailableError", message, page);
    await page.close();
  });

  test("onnxruntime-web's own files are not there", async () => {
    const page = await at().browser.newPage();
    await page.goto(at().origin);
    const argument = ["/files/edge.bundle", { wasmPaths: `${at().origin}/nowhere/` }];
    const message = /wasm: .*are its files served, or wasmPaths set/;
    await fails(load, argument, "RuntimeUnavailableError", message, page);
    await page.close();
  });
}
