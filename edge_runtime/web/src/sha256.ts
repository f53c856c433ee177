import { RuntimeUnavailableError } from "./errors.js";

/**
 * sha256 of bytes, or of text as UTF-8, as 64 lower-case hexadecimal digits.
 *
 * @throws RuntimeUnavailableError on a page that is no secure context: there the browser hides
 * `crypto.subtle`, and no graph is run without its hash.
 */
export async function sha256(content: Uint8Array<ArrayBuffer> | string): Promise<string> {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) {
    throw new RuntimeUnavailableError(
      "this page is not a secure context, so the browser offers no crypto.subtle and the " +
        "bundle's hashes cannot be checked; serve the page over https (http works on localhost)",
    );
  }
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  const digest = new Uint8Array(await subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
