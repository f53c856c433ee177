/** Reading untrusted JSON one field at a time; what is wrong is named by its key. */

import { BundleFormatError } from "./errors.js";

/** A JSON object. */
export type Fields = { readonly [key: string]: unknown };

const SHA256 = /^[0-9a-f]{64}$/;

/** `value` as an object with exactly `keys`. */
export function object(value: unknown, what: string, keys?: readonly string[]): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw malformed(`${what} has to be an object`);
  }
  if (keys) {
    const unknown = Object.keys(value).filter((key) => !keys.includes(key));
    const missing = keys.filter((key) => !Object.hasOwn(value, key));
    if (unknown.length) throw malformed(`${what} has unknown keys: ${unknown.sort().join(", ")}`);
    if (missing.length) throw malformed(`${what} lacks the keys: ${missing.sort().join(", ")}`);
  }
  return value as Fields;
}

/** The list under `key`. */
export function list(fields: Fields, key: string): readonly unknown[] {
  const value = fields[key];
  if (!Array.isArray(value)) throw malformed(`${key} has to be a list`);
  return value;
}

/** The text under `key`. */
export function text(fields: Fields, key: string): string {
  const value = fields[key];
  if (typeof value !== "string") throw malformed(`${key} has to be a string`);
  return value;
}

/** The text under `key`, one of `known`. */
export function oneOf<T extends string>(fields: Fields, key: string, known: readonly T[]): T {
  const value = known.find((name) => name === fields[key]);
  if (value === undefined) {
    throw malformed(`${key} ${JSON.stringify(fields[key])} is none of ${known.join(", ")}`);
  }
  return value;
}

/** The whole number under `key`, from `least` to `most`. */
export function whole(fields: Fields, key: string, least: number, most = Infinity): number {
  const value = fields[key];
  if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most) {
    const range = most === Infinity ? `${least} or more` : `${least} to ${most}`;
    throw malformed(`${key} has to be a whole number, ${range}, not ${JSON.stringify(value)}`);
  }
  return value;
}

/** The three numbers under `key`. */
export function triple(fields: Fields, key: string): readonly [number, number, number] {
  const [a, b, c, ...more] = list(fields, key);
  if (typeof a !== "number" || typeof b !== "number" || typeof c !== "number" || more.length) {
    throw malformed(`${key} has to be three numbers`);
  }
  return [a, b, c];
}

/** `value` as a sha256: 64 lower-case hexadecimal digits. */
export function sha256Text(value: unknown, what: string): string {
  if (typeof value !== "string" || !SHA256.test(value)) {
    throw malformed(`${what}: ${JSON.stringify(value)} is not a sha256 (64 lower-case digits)`);
  }
  return value;
}

/** The error for a manifest in which `problem` was found. */
export function malformed(problem: string): BundleFormatError {
  return new BundleFormatError(`malformed manifest: ${problem}; export the bundle again`);
}
