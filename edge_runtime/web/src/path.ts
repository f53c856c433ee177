import { UnsafePathError } from "./errors.js";

const PICKLES = new Set([".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib"]);

/**
 * `path` if it is a relative path, with `/`, that stays in its folder.
 *
 * @throws UnsafePathError for an absolute path, one with `..`, `\` or `:`, an empty one, and a
 * pickle, which can run code where Python reads it.
 */
export function safeMember(path: string): string {
  const names = parts(path);
  const unsafe =
    path.startsWith("/") || names.includes("..") || path.includes("\\") || path.includes(":");
  const name = names.at(-1);
  if (unsafe || name === undefined) {
    throw new UnsafePathError(`${JSON.stringify(path)} does not stay inside its folder`);
  }
  if (PICKLES.has(suffix(name))) {
    throw new UnsafePathError(
      `${JSON.stringify(path)} is a pickle, which can run code when it is read; ` +
        "weights belong in safetensors or inside the graph",
    );
  }
  return path;
}

/** The address of a bundle's file; a query of `base` (a signature, a version) is kept. */
export function memberUrl(base: URL, path: string): URL {
  // Escaped, so that "%2e%2e", "?" and "#" are parts of a name and not of the address.
  const url = new URL(parts(safeMember(path)).map(encodeURIComponent).join("/"), base);
  url.search = base.search;
  return url;
}

function parts(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}

function suffix(name: string): string {
  const dot = name.lastIndexOf(".");
  return dot > 0 && dot < name.length - 1 ? name.slice(dot).toLowerCase() : "";
}
