// The page's model: fetched once, by whoever needs it first.

import { Embedder } from "samespace-edge";

import { bytes, element } from "./dom.js";
import { Refused } from "./refused.js";

let loading;
let described;

/** What the service says about this page. */
export function aboutPage() {
  described ??= describe().catch((error) => {
    described = undefined; // asked again the next time
    throw error;
  });
  return described;
}

async function describe() {
  let response;
  try {
    response = await fetch("/page/about.json");
  } catch {
    throw new Refused("unreachable");
  }
  if (!response.ok) throw new Refused("not-ready");
  const about = await response.json();
  element("gallery").textContent = about.gallery;
  return about;
}

/** The model; `say` is told while it is fetched. */
export function loadModel(say) {
  loading ??= load(say).catch((error) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

async function load(say) {
  const about = await aboutPage();
  if (!isSecureContext) {
    throw Object.assign(new Error("no secure context"), { name: "Insecure" });
  }
  say(`Fetching the model ${about.name}: ${bytes(about.bytes)}, once …`);
  return Embedder.load(about.bundle, { providers: ["wasm"] });
}
