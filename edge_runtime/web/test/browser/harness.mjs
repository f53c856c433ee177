// What the browser tests stand on: Python's bundle and pictures, a server, and a real Chromium.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { serve } from "./server.mjs";

export const TEST = fileURLToPath(new URL("..", import.meta.url));
export const PYTHON = process.env.PYTHON ?? join(TEST, "../../../.venv/bin/python");
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  // A host that is not localhost: a page from it is no secure context.
  "--host-resolver-rules=MAP insecure.test 127.0.0.1",
];
/** Chromium without a graphics card, and with one that it computes itself. */
export const NO_GPU = ["--disable-gpu"];
export const SOFTWARE_GPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

/**
 * Start Chromium, however long that takes here; `CHROMIUM` names another one. `variables` are of its
 * environment.
 */
export function launch(flags, variables = {}) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const env = { ...process.env, ...variables };
  const args = [...FLAGS, ...flags];
  return chromium.launch({ executablePath, headless: true, args, env, timeout: 0 });
}

/** sha256 of a file's content, as a manifest writes it. */
export const hash = (content) => createHash("sha256").update(content).digest("hex");

/** A unit vector whose cosine with the unit vector `v` is 1 - `departure`. */
export function turned(v, departure) {
  const cosine = 1 - departure;
  const next = [...v.slice(1), v[0]];
  const along = v.reduce((sum, x, i) => sum + x * next[i], 0);
  const other = next.map((x, i) => x - along * v[i]);
  const length = Math.hypot(...other);
  return v.map((x, i) => cosine * x + (Math.sqrt(1 - cosine ** 2) * other[i]) / length);
}

/** Let Python write its files, serve them, and open a page in Chromium. */
export async function start() {
  const folder = mkdtempSync(join(tmpdir(), "samespace-web-"));
  execFileSync(PYTHON, [join(TEST, "make_expected.py"), folder], { stdio: "inherit" });
  const browser = await launch(NO_GPU);
  const server = await serve(folder);
  const page = await browser.newPage();
  page.setDefaultTimeout(0); // a slow machine does not fail
  const origin = `http://127.0.0.1:${server.port}`;
  await page.goto(origin);
  const { identity, pictures } = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8"));
  const place = {
    folder,
    page,
    browser,
    origin,
    port: server.port,
    identity,
    pictures,
    /** The names of the pictures of a group. */
    group: (name) => Object.keys(pictures).filter((key) => pictures[key].group === name),
    /** A file of the bundle, as JSON. */
    json: (path) => JSON.parse(readFileSync(join(folder, "edge.bundle", path), "utf8")),
    /** A copy of the bundle whose manifest, or one file, a test has spoiled; its address. */
    spoiled(name, { manifest, file, change }) {
      const bundle = join(folder, name);
      cpSync(join(folder, "edge.bundle"), bundle, { recursive: true });
      if (file) writeFileSync(join(bundle, file), change(readFileSync(join(bundle, file))));
      if (manifest) {
        const path = join(bundle, "manifest.json");
        writeFileSync(path, JSON.stringify(manifest(JSON.parse(readFileSync(path, "utf8")))));
      }
      return `/files/${name}`;
    },
    /** A copy with a golden file that `change` made from its text, and other variants' order. */
    golden(name, change, order = (variants) => variants) {
      let content;
      return place.spoiled(name, {
        file: "golden/golden.json",
        change: (before) => (content = change(String(before))),
        manifest: (m) => {
          m.files["golden/golden.json"] = hash(content);
          m.variants = order(m.variants);
          return m;
        },
      });
    },
    /** A copy whose variants were computed otherwise where they were exported, by 1 - cosine. */
    departing(name, departures, first) {
      const change = (before) => {
        const value = JSON.parse(before);
        for (const { embedded } of value.images) {
          for (const [variant, departure] of Object.entries(departures)) {
            embedded[variant] = turned(embedded[variant], departure);
          }
        }
        return JSON.stringify(value);
      };
      const rank = (variant) => (variant.name === first ? 0 : 1);
      return place.golden(name, change, (all) => all.sort((a, b) => rank(a) - rank(b)));
    },
    async stop() {
      await browser.close();
      await server.close();
      rmSync(folder, { recursive: true });
    },
  };
  return place;
}

/** What `run(argument)` throws in the page: its class and its message. */
export function failure(page, run, argument) {
  return page.evaluate(
    async ([source, value]) => {
      try {
        await (0, eval)(`(${source})`)(value);
      } catch (error) {
        const kinds = [];
        for (let at = error; at !== Error.prototype && at; at = Object.getPrototypeOf(at)) {
          if (at.constructor.name !== kinds.at(-1)) kinds.push(at.constructor.name);
        }
        return { name: error.name, kinds, message: error.message };
      }
      return { name: "nothing", kinds: [], message: "it did not fail" };
    },
    [String(run), argument],
  );
}

/** Largest |difference| of two vectors, and 1 - cosine. */
export function distance(a, b) {
  let largest = 0;
  let product = 0;
  for (let i = 0; i < b.length; i++) {
    largest = Math.max(largest, Math.abs(a[i] - b[i]));
    product += a[i] * b[i];
  }
  return { largest, angle: 1 - product };
}
