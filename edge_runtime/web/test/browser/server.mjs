// A file server for tests, on 127.0.0.1 only.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const PACKAGE = fileURLToPath(new URL("../..", import.meta.url));
const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };

const RUNTIME = {
  "onnxruntime-web/wasm": "/ort/ort.wasm.bundle.min.mjs",
  "onnxruntime-web/webgpu": "/ort/ort.webgpu.bundle.min.mjs",
};
const IMPORTS = { "samespace-edge": "/dist/index.js", ...RUNTIME };
const PAGE = `<!doctype html>
<script type="importmap">${JSON.stringify({ imports: IMPORTS })}</script>`;

/**
 * Serve an empty page that can import the package, and `folder` under `/files/`. For workers,
 * which have no import maps, the package is under `/worker/` as a bundler would write it.
 */
export async function serve(folder) {
  const roots = {
    "/dist/": join(PACKAGE, "dist"),
    "/worker/": join(PACKAGE, "dist"),
    "/ort/": join(PACKAGE, "node_modules/onnxruntime-web/dist"),
    "/files/": folder,
  };
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://host").pathname);
    const prefix = Object.keys(roots).find((root) => path.startsWith(root));
    try {
      let content = prefix
        ? await readFile(join(roots[prefix], normalize(`/${path.slice(prefix.length)}`)))
        : path === "/" && PAGE;
      if (!content) throw new Error("not found");
      if (prefix === "/worker/") content = bundled(String(content));
      response.setHeader("content-type", TYPES[extname(path)] ?? (prefix ? "" : "text/html"));
      response.end(content);
    } catch {
      response.writeHead(404).end("not found");
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: server.address().port,
    close: () => new Promise((resolve) => server.close(resolve).closeAllConnections()),
  };
}

function bundled(code) {
  const names = Object.entries(RUNTIME);
  return names.reduce((all, [name, path]) => all.replaceAll(`"${name}"`, `"${path}"`), code);
}
