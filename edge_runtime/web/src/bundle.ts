import { BundleError, BundleFormatError, BundleTamperedError, ConfigError } from "./errors.js";
import { readManifest, type Manifest, type Variant } from "./manifest.js";
import { memberUrl } from "./path.js";
import { sha256 } from "./sha256.js";

const MANIFEST = "manifest.json";

/** A bundle on a server, opened and checked as far as the manifest goes. */
export class Bundle {
  private constructor(
    /** The bundle's folder. */
    readonly url: URL,
    readonly manifest: Manifest,
  ) {}

  /**
   * Open the bundle in the folder `url`.
   *
   * @throws BundleError and its kinds, ConfigError for what is no address.
   */
  static async open(url: string | URL): Promise<Bundle> {
    const folder = folderUrl(url);
    const file = memberUrl(folder, MANIFEST);
    const response = await get(file);
    if (!response.ok) {
      throw new BundleFormatError(
        `${folder.href} is not a bundle: ${MANIFEST} is answered with HTTP ${response.status}. ` +
          "Give the address of the folder that 'samespace export' writes.",
      );
    }
    let value: unknown;
    try {
      value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(response.content));
    } catch (error) {
      throw new BundleFormatError(
        `${file.href} is not JSON (${String(error)}); does the server answer with another page?`,
      );
    }
    return new Bundle(folder, await readManifest(value));
  }

  /**
   * The variant called `name`.
   *
   * @throws BundleFormatError where there is none, with the names that there are.
   */
  variant(name: string): Variant {
    const { variants, name: bundle } = this.manifest;
    const found = variants.find((variant) => variant.name === name);
    if (found) return found;
    const known = variants.map((variant) => variant.name).join(", ");
    throw new BundleFormatError(`bundle '${bundle}' has no variant '${name}'; it has: ${known}`);
  }

  /**
   * The content of a file of the bundle.
   *
   * @throws BundleTamperedError where it is not what the manifest says.
   */
  async read(member: string): Promise<Uint8Array<ArrayBuffer>> {
    const expected = this.manifest.files.get(member);
    if (expected === undefined) {
      throw new BundleFormatError(`bundle '${this.manifest.name}' lists no file '${member}'`);
    }
    const url = memberUrl(this.url, member);
    const { ok, status, content } = await get(url);
    if (!ok) {
      throw new BundleTamperedError(`${url.href} cannot be read: HTTP ${status}. Upload it again.`);
    }
    if ((await sha256(content)) !== expected) {
      throw new BundleTamperedError(
        `${url.href} is not the file that was exported: its sha256 differs from the manifest's. ` +
          "Upload the bundle again from where it was made.",
      );
    }
    return content;
  }
}

interface Answer {
  readonly ok: boolean;
  readonly status: number;
  readonly content: Uint8Array<ArrayBuffer>;
}

async function get(url: URL): Promise<Answer> {
  try {
    // Asks the server whether a cached file still holds: a manifest and a graph of two different
    // exports would look like tampering.
    const response = await fetch(url, { cache: "no-cache" });
    const content = new Uint8Array(await response.arrayBuffer());
    return { ok: response.ok, status: response.status, content };
  } catch (error) {
    throw new BundleError(
      `${url.href} could not be fetched (${String(error)}); check the address, the network, and ` +
        "the CORS headers if it is another origin",
    );
  }
}

function folderUrl(url: string | URL): URL {
  let folder: URL;
  try {
    folder = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
  } catch {
    throw new ConfigError(`${String(url)} is not the address of a bundle`);
  }
  if (!folder.pathname.endsWith("/")) folder.pathname += "/";
  folder.hash = "";
  return folder;
}
