/** `manifest.json`, schema 2; the format is defined in edge_runtime/README.md. */

import { canonicalJson, Float, type Canonical } from "./canonical.js";
import { BundleFormatError, BundleTamperedError } from "./errors.js";
import { list, malformed, object, oneOf, sha256Text, text, triple, whole } from "./fields.js";
import { safeMember } from "./path.js";
import type { Resize } from "./resize.js";
import { sha256 } from "./sha256.js";

/** The only schema that this version reads. */
export const SCHEMA = 2;

const KEYS =
  "schema name fingerprint space role dim resize mean std architecture weights_sha256 variants " +
  "files macs parameters created producer card";
const MAX_SIDE = 4096;
const VARIANT_KEYS = "name format precision file sha256 bytes";

/** One graph file of a bundle. */
export interface Variant {
  /** Format and precision, such as `onnx-fp32`. */
  readonly name: string;
  /** `onnx` runs here; the others are for other devices. */
  readonly format: "onnx" | "tflite" | "coreml";
  readonly precision: "fp32" | "fp16" | "int8" | "dynamic";
  /** Path inside the bundle, with `/`; a Core ML package is a folder. */
  readonly file: string;
  /** Hash of the file; of a folder, see `folderSha256`. */
  readonly sha256: string;
  readonly bytes: number;
}

/** What a bundle says of itself, as far as a browser needs it. */
export interface Manifest {
  readonly name: string;
  readonly fingerprint: string;
  /** Fingerprint of the cloud model in whose space the vectors lie. */
  readonly space: string;
  readonly role: "cloud" | "edge";
  /** Width of the vectors. */
  readonly dim: number;
  readonly resize: Resize;
  readonly variants: readonly Variant[];
  /** sha256 of every file in the bundle but the manifest, by path. */
  readonly files: ReadonlyMap<string, string>;
}

/**
 * Read a manifest and compute its fingerprint again.
 *
 * @throws BundleFormatError where it is malformed or of another schema, UnsafePathError for a
 * path that leaves the bundle, BundleTamperedError where it was edited after export.
 */
export async function readManifest(value: unknown): Promise<Manifest> {
  const schema = object(value, "the manifest")["schema"];
  if (schema !== SCHEMA) {
    throw new BundleFormatError(
      `manifest schema ${JSON.stringify(schema)} is not known to this version, which reads ` +
        `schema ${SCHEMA}; upgrade samespace-edge or export the bundle again`,
    );
  }
  const fields = object(value, "the manifest", KEYS.split(" "));
  const manifest: Manifest = {
    name: text(fields, "name"),
    fingerprint: sha256Text(fields["fingerprint"], "fingerprint"),
    space: sha256Text(fields["space"], "space"),
    role: oneOf(fields, "role", ["cloud", "edge"]),
    dim: whole(fields, "dim", 1),
    resize: readResize(fields["resize"]),
    variants: list(fields, "variants").map(readVariant),
    files: readFiles(fields["files"]),
  };
  const computed = await sha256(
    canonicalJson({
      weights: sha256Text(fields["weights_sha256"], "weights_sha256"),
      preprocessing: {
        resize: { ...manifest.resize },
        mean: triple(fields, "mean").map((x) => new Float(x)),
        std: triple(fields, "std").map((x) => new Float(x)),
      },
      output: {
        dim: manifest.dim,
        norm: "l2",
        dtype: "float32",
        architecture: text(fields, "architecture"),
      },
    }),
  );
  if (!manifest.variants.length) throw malformed("it lists no variant, so nothing can run");
  for (const variant of manifest.variants) await checkVariant(variant, manifest.files);
  if (computed !== manifest.fingerprint) {
    throw new BundleTamperedError(
      `the manifest says fingerprint ${manifest.fingerprint.slice(0, 12)}…, but its weights, ` +
        `preprocessing and output make ${computed.slice(0, 12)}…: it was edited after export. ` +
        "Export the bundle again.",
    );
  }
  return manifest;
}

/** The hash of a folder from its files' hashes, by their paths inside it. */
export async function folderSha256(files: ReadonlyMap<string, string>): Promise<string> {
  return sha256(canonicalJson(Object.fromEntries<Canonical>(files)));
}

function readResize(value: unknown): Resize {
  const fields = object(value, "resize", ["width", "height", "policy"]);
  return {
    width: whole(fields, "width", 1, MAX_SIDE),
    height: whole(fields, "height", 1, MAX_SIDE),
    policy: oneOf(fields, "policy", ["crop", "squash", "pad"]),
  };
}

function readVariant(value: unknown, index: number): Variant {
  const fields = object(value, `variant ${index}`, VARIANT_KEYS.split(" "));
  return {
    name: text(fields, "name"),
    format: oneOf(fields, "format", ["onnx", "tflite", "coreml"]),
    precision: oneOf(fields, "precision", ["fp32", "fp16", "int8", "dynamic"]),
    file: safeMember(text(fields, "file")),
    sha256: sha256Text(fields["sha256"], `variant ${index}`),
    bytes: whole(fields, "bytes", 1),
  };
}

function readFiles(value: unknown): Map<string, string> {
  const entries = Object.entries(object(value, "files"));
  return new Map(entries.map(([path, hash]) => [safeMember(path), sha256Text(hash, path)]));
}

async function checkVariant(variant: Variant, files: Manifest["files"]): Promise<void> {
  const folder = `${variant.file}/`;
  const members = [...files].filter(([path]) => path.startsWith(folder));
  const expected = members.length
    ? await folderSha256(new Map(members.map(([path, hash]) => [path.slice(folder.length), hash])))
    : files.get(variant.file);
  if (expected !== variant.sha256) {
    throw malformed(`variant ${variant.name}: its sha256 is not the one under files`);
  }
}
