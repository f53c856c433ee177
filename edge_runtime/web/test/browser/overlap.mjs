// Calls that overlap, on one embedder and on two: every one gets the vector of the picture it gave.

import assert from "node:assert/strict";
import { test } from "node:test";

import { distance } from "./harness.mjs";

/** In the page: what 8 callers get at once, each for its own pictures again and again. */
async function eightAtOnce(names) {
  const { Embedder } = await import("samespace-edge");
  const load = () => Embedder.load("/files/edge.bundle");
  const embedders = await Promise.all([load(), load()]);
  const content = async (name) => (await fetch(`/files/pictures/${name}`)).blob();
  const blobs = await Promise.all(names.map(content));
  const callers = Array.from({ length: 8 }, async (_, caller) => {
    const embedder = embedders[caller % 2];
    const made = [];
    for (let round = 0; round < 4; round++) {
      for (let at = caller; at < blobs.length; at += 8) {
        made.push([at, [...(await embedder.embed(blobs[at]))]]);
      }
    }
    return made;
  });
  return (await Promise.all(callers)).flat();
}

/** In the page: one buffer for all pictures, filled again as soon as a call has begun. */
async function oneBuffer(names) {
  const { Embedder } = await import("samespace-edge");
  const embedder = await Embedder.load("/files/edge.bundle");
  const inputs = [];
  for (const name of names) {
    const blob = await (await fetch(`/files/pictures/${name}`)).blob();
    inputs.push((await embedder.preprocess(blob)).data);
  }
  const buffer = new Uint8Array(inputs[0].length);
  const begun = inputs.map((input) => {
    buffer.set(input);
    return embedder.embedPixels(buffer, 1);
  });
  buffer.fill(0);
  return (await Promise.all(begun)).map((vector) => [...vector]);
}

/** In the page: the same of a canvas's pixels. */
async function oneImageData(names) {
  const { Embedder } = await import("samespace-edge");
  const embedder = await Embedder.load("/files/edge.bundle");
  const frames = [];
  for (const name of names) {
    const blob = await (await fetch(`/files/pictures/${name}`)).blob();
    const { data, width, height } = await embedder.preprocess(blob);
    const frame = new ImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      frame.data.set([...data.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    }
    frames.push(frame);
  }
  const shown = new ImageData(frames[0].width, frames[0].height);
  const begun = frames.map((frame) => {
    shown.data.set(frame.data);
    return embedder.embed(shown);
  });
  shown.data.fill(0);
  return (await Promise.all(begun)).map((vector) => [...vector]);
}

/** In the page: calls that began before `dispose`, and one after it. */
async function disposedMeanwhile(names) {
  const { Embedder } = await import("samespace-edge");
  const embedder = await Embedder.load("/files/edge.bundle");
  const inputs = [];
  for (const name of names) {
    const blob = await (await fetch(`/files/pictures/${name}`)).blob();
    inputs.push((await embedder.preprocess(blob)).data);
  }
  const begun = inputs.map((data) => embedder.embedPixels(data, 1));
  const disposed = embedder.dispose();
  const late = await embedder.embedPixels(inputs[0], 1).catch(({ message }) => message);
  const vectors = (await Promise.all(begun)).map((vector) => [...vector]);
  await disposed;
  return { vectors, late };
}

export function overlapTests(at) {
  /** Pictures of which no two have nearly the same vector. */
  const distinct = () => {
    const { pictures } = at();
    const chosen = [];
    for (const name of Object.keys(pictures).filter((key) => pictures[key].vector)) {
      const { vector } = pictures[name];
      const apart = chosen.every((other) => distance(vector, pictures[other].vector).angle > 0.01);
      if (apart) chosen.push(name);
    }
    assert.ok(chosen.length >= 8, chosen.join());
    return chosen;
  };
  const near = (vector, name) => {
    const { angle } = distance(vector, at().pictures[name].vector);
    assert.ok(angle < 1e-3, `${name}: ${angle}`);
  };

  test("8 callers of two embedders each get the vectors of the pictures that they gave", async () => {
    const chosen = distinct();
    const made = await at().page.evaluate(eightAtOnce, chosen);
    assert.equal(made.length, 4 * chosen.length);
    for (const [place, vector] of made) near(vector, chosen[place]);
  });

  test("memory may be filled again as soon as a call has begun", async () => {
    const chosen = distinct().slice(0, 8);
    for (const way of [oneBuffer, oneImageData]) {
      const vectors = await at().page.evaluate(way, chosen);
      for (const [place, vector] of vectors.entries()) near(vector, chosen[place]);
    }
  });

  test("what was begun before dispose is finished, and nothing after it", async () => {
    const chosen = distinct().slice(0, 4);
    const { vectors, late } = await at().page.evaluate(disposedMeanwhile, chosen);
    for (const [place, vector] of vectors.entries()) near(vector, chosen[place]);
    assert.match(late, /this embedder was disposed of; load it again/);
  });
}
