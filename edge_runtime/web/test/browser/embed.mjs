// Embedding: Chromium against Python.

import assert from "node:assert/strict";
import { test } from "node:test";

import { distance } from "./harness.mjs";

/** In the page: the vectors of a picture, given in every way. */
async function everyWay(address) {
  const { Embedder } = await import("samespace-edge");
  const embedder = await Embedder.load("/files/edge.bundle");
  const blob = await (await fetch(address)).blob();
  const image = new Image();
  image.src = address;
  const vectors = {
    file: await embedder.embed(new File([blob], "picture")),
    bitmap: await embedder.embed(await createImageBitmap(blob)),
    element: await embedder.embed(image),
  };
  const { provider, dim } = embedder;
  await embedder.dispose();
  const plain = Object.entries(vectors).map(([way, vector]) => [way, [...vector]]);
  return { provider, dim, vectors: Object.fromEntries(plain) };
}

/** In the page: the vectors of many pictures at once. */
async function many(names) {
  const { Embedder } = await import("samespace-edge");
  const embedder = await Embedder.load(new URL("/files/edge.bundle/", location.href));
  const content = async (name) => (await fetch(`/files/pictures/${name}`)).blob();
  const vectors = await embedder.embedAll(await Promise.all(names.map(content)));
  return vectors.map((vector) => [...vector]);
}

export function embedTests(at) {
  test("every golden picture, given in every way, has Python's vector", async (t) => {
    const golden = at().json("golden/golden.json");
    const worst = {};
    for (const { image, embedded } of golden.images) {
      const made = await at().page.evaluate(everyWay, `/files/edge.bundle/golden/${image}`);
      assert.equal(made.provider, "wasm");
      for (const [way, vector] of Object.entries(made.vectors)) {
        assert.equal(vector.length, made.dim);
        const { largest, angle } = distance(vector, embedded["onnx-fp32"]);
        worst[way] = Math.max(worst[way] ?? 0, largest);
        assert.ok(angle <= golden.tolerance["end to end"], `${image} as ${way}: ${angle}`);
      }
    }
    t.diagnostic(`largest difference of a coordinate: ${JSON.stringify(worst)}`);
  });

  test("every picture that Python reads has Python's vector, in the order given", async (t) => {
    const { pictures } = at();
    const names = Object.keys(pictures).filter((name) => pictures[name].vector);
    assert.ok(names.length > 32, "more than two batches");
    const vectors = await at().page.evaluate(many, names);
    let worst = 0;
    for (const [i, name] of names.entries()) {
      const { largest, angle } = distance(vectors[i], pictures[name].vector);
      assert.ok(angle < 1e-3, `${name}: ${angle}`);
      worst = Math.max(worst, largest);
    }
    t.diagnostic(`largest difference of a coordinate over ${names.length} pictures: ${worst}`);
  });

  test("a black picture has Python's vector, of length 1", async () => {
    const [vector] = await at().page.evaluate(many, ["black.png"]);
    assert.ok(distance(vector, at().pictures["black.png"].vector).largest < 1e-5);
    assert.ok(Math.abs(Math.hypot(...vector) - 1) < 1e-5);
  });

  test("the identity is Python's", async () => {
    const [written, dim] = await at().page.evaluate(async () => {
      const { Embedder } = await import("samespace-edge");
      const embedder = await Embedder.load("files/edge.bundle", { variant: "onnx-fp32" });
      return [JSON.stringify(embedder.identity), embedder.dim];
    });
    assert.deepEqual(JSON.parse(written), at().identity);
    assert.equal(dim, at().identity.dim);
  });

  test("pixels together, and from calls that overlap, give the same vectors", async () => {
    const made = await at().page.evaluate(async () => {
      const { Embedder } = await import("samespace-edge");
      const embedder = await Embedder.load("/files/edge.bundle");
      const inputs = [];
      for (const name of ["rgb.png", "420-q75.jpg"]) {
        const blob = await (await fetch(`/files/pictures/${name}`)).blob();
        inputs.push(await embedder.preprocess(blob));
      }
      const both = new Uint8Array([...inputs[0].data, ...inputs[1].data]);
      const together = await embedder.embedPixels(both, 2);
      const alone = ({ data }) => embedder.embedPixels(data, 1);
      const overlapping = await Promise.all(inputs.map(alone));
      const none = [await embedder.embedPixels(new Uint8Array(), 0), await embedder.embedAll([])];
      return {
        sizes: inputs.map(({ width, height, data }) => [width, height, data.length]),
        together: [...together],
        overlapping: overlapping.flatMap((vector) => [...vector]),
        none: none.map((list) => list.length),
      };
    });
    const { width, height } = at().json("manifest.json").resize;
    assert.deepEqual(made.sizes, new Array(2).fill([width, height, width * height * 3]));
    assert.ok(distance(made.together, made.overlapping).largest < 1e-6);
    assert.deepEqual(made.none, [0, 0]);
  });
}
