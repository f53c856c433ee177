/** JSON as Python's `canonical_json` writes it: hashes are taken over this very text. */

/** A number that is a float in Python, so that 1 is written `1.0`. */
export class Float {
  constructor(readonly value: number) {}
}

/** What `canonicalJson` takes. A plain number has to be an integer; floats come as `Float`. */
export type Canonical =
  | string
  | number
  | Float
  | readonly Canonical[]
  | { readonly [key: string]: Canonical };

/**
 * Sorted keys, no spaces, non-ASCII characters as they are.
 *
 * @throws RangeError for a plain number that is no integer, and for NaN and infinities.
 */
export function canonicalJson(value: Canonical): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number") return integer(value);
  if (value instanceof Float) return pythonFloat(value.value);
  if (isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const members = Object.entries(value)
    .sort(([a], [b]) => byCodePoint(a, b))
    .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`);
  return `{${members.join(",")}}`;
}

/**
 * A float as Python's `repr` writes it. Both languages print the shortest digits that read back
 * as the same number; they differ in where the exponent begins and in how it looks.
 *
 * @throws RangeError for NaN and infinities.
 */
export function pythonFloat(value: number): string {
  if (!Number.isFinite(value)) throw new RangeError(`${value} cannot be written as JSON`);
  if (value === 0) return Object.is(value, -0) ? "-0.0" : "0.0";
  const [mantissa = "", power = ""] = Math.abs(value).toExponential().split("e");
  const sign = value < 0 ? "-" : "";
  const digits = mantissa.replace(".", "");
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) {
    const shown = Math.abs(exponent).toString().padStart(2, "0");
    return `${sign}${mantissa}e${exponent < 0 ? "-" : "+"}${shown}`;
  }
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}

function integer(value: number): string {
  if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is not an integer`);
  return String(value);
}

function isArray(value: Canonical): value is readonly Canonical[] {
  return Array.isArray(value);
}

/** Python sorts text by code point; JavaScript's default is by UTF-16 unit. */
function byCodePoint(a: string, b: string): number {
  const x = Array.from(a, (c) => c.codePointAt(0) ?? 0);
  const y = Array.from(b, (c) => c.codePointAt(0) ?? 0);
  const at = x.findIndex((code, i) => code !== y[i]);
  if (at < 0) return x.length - y.length;
  return (x[at] ?? 0) - (y[at] ?? -1);
}
