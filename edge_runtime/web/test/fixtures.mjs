// What Python makes of small cases (written by make_fixtures.py).

import { readFileSync } from "node:fs";

export const fixtures = JSON.parse(
  readFileSync(new URL("fixtures/python.json", import.meta.url), "utf8"),
);

/** A fresh copy of the fixture manifest, which a test may spoil. */
export function manifest(changes = {}) {
  return { ...structuredClone(fixtures.manifest), ...changes };
}

/** Pixels out of a fixture. */
export function bytes(base64) {
  return new Uint8Array(Buffer.from(base64, "base64"));
}
