// Search by a picture: embedded here, and, if the visitor wants, on the server too.

import { Embedder } from "samespace-edge";

import { bytes, figures, make, milliseconds } from "./dom.js";
import { ask, askJson } from "./service.js";

const K = 12;
const FLOAT32 = 4;

const element = (id) => document.getElementById(id);
let about;
let embedder;
let turn = 0;
let last;

/** Load the model and wait for pictures. */
export async function startSearch() {
  const drop = element("drop");
  for (const id of ["file", "camera"]) {
    element(id).addEventListener("change", (event) => {
      const [file] = event.target.files;
      if (file) void search(file);
      event.target.value = ""; // the same file may be chosen again
    });
  }
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) {
    drop.addEventListener(kind, () => drop.classList.remove("over"));
  }
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) void search(file);
  });
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) void search(file);
  });
  element("compare").addEventListener("change", () => {
    if (last) void search(last);
  });
  try {
    await model();
    say("");
  } catch (error) {
    fail(error);
  }
}

// The model is loaded once, by whoever needs it first.
let loading;
function model() {
  loading ??= load();
  return loading;
}

async function load() {
  say("Loading the model …");
  about = await (await fetch("/page/about.json")).json();
  element("gallery").textContent = about.gallery;
  element("compare").disabled = about.server_models.length === 0;
  embedder = await Embedder.load(about.bundle, { providers: ["wasm"] });
  element("vector-size").textContent = `its vector (${bytes(embedder.dim * FLOAT32)})`;
}

async function search(file) {
  const mine = ++turn;
  last = file;
  element("error").textContent = "";
  try {
    await model();
    say("Searching …");
    const [here, there] = await Promise.all([
      searchHere(file),
      element("compare").checked ? searchThere(file) : undefined,
    ]);
    if (mine !== turn) return; // another picture came
    showQuery(file);
    show(here, there);
    say(here.hits.length ? `${here.hits.length} found.` : "The gallery is empty.");
  } catch (error) {
    if (mine === turn) fail(error);
  }
}

async function searchHere(file) {
  const began = performance.now();
  const vector = await embedder.embed(file);
  const embedded = performance.now();
  const { fingerprint, variantSha256 } = embedder.identity;
  const body = new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
  const found = await askJson(
    `/v1/search/vectors?k=${K}&fingerprint=${fingerprint}&variant=${variantSha256}`,
    { method: "POST", body, type: "application/octet-stream" },
  );
  return {
    hits: found.results[0],
    model: found.model,
    sent: body.length,
    embedding: embedded - began,
    asking: performance.now() - embedded,
  };
}

async function searchThere(file) {
  const began = performance.now();
  const found = await askJson(`/v1/search/pictures?k=${K}`, {
    method: "POST",
    body: file,
    type: "application/octet-stream",
  });
  return {
    hits: found.results[0],
    model: found.model,
    sent: file.size,
    asking: performance.now() - began,
  };
}

function showQuery(file) {
  const image = element("query").querySelector("img");
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(file);
}

function show(here, there) {
  element("answer").hidden = false;
  element("there").hidden = !there;
  fill("here", here, there);
  if (there) fill("there", there, here);
  element("agreement").textContent = there ? agreement(here.hits, there.hits) : "";
}

function fill(id, found, other) {
  const place = element(id);
  const costs = [
    ["model", found.model.name],
    ...(found.embedding === undefined ? [] : [["embedded in", milliseconds(found.embedding)]]),
    ["answered in", milliseconds(found.asking)],
    ["sent", bytes(found.sent)],
  ];
  place.querySelector(".costs").replaceChildren(...figures(costs));
  const ranks = new Map(other?.hits.map((hit, rank) => [hit.id, rank]));
  const items = found.hits.map(item);
  if (other) found.hits.forEach((hit, rank) => mark(items[rank], rank, ranks.get(hit.id)));
  place.querySelector(".hits").replaceChildren(...items);
}

function item(hit) {
  const made = make("li", { "data-id": hit.id });
  if (about.pictures) {
    const image = make("img", { alt: "", loading: "lazy", width: 160, height: 160 });
    made.append(image);
    void picture(hit.id, image);
  }
  const label = hit.payload?.label;
  made.append(make("p", { class: "label" }, label === undefined ? hit.id : String(label)));
  made.append(make("p", { class: "score" }, hit.score.toFixed(3)));
  made.title = hit.id;
  return made;
}

// A flip: the other model's list lacks it, or has another one first.
function mark(made, rank, other) {
  const text =
    other === undefined
      ? "only in this list"
      : rank === 0 && other !== 0
        ? `first here, ${other + 1}. there`
        : undefined;
  if (!text) return;
  made.classList.add("flip");
  made.append(make("p", { class: "mark" }, text));
}

function agreement(here, there) {
  if (!here.length || !there.length) return "";
  const known = new Set(there.map((hit) => hit.id));
  const both = here.filter((hit) => known.has(hit.id)).length;
  const first = here[0].id === there[0].id ? "Both put the same item first" : "The first item differs";
  return `${first}; ${both} of ${here.length} items are in both lists.`;
}

// An <img> cannot show a key, so pictures are fetched like everything else.
async function picture(id, image) {
  try {
    const path = id.split("/").map(encodeURIComponent).join("/");
    const response = await ask(`/v1/pictures/${path}`);
    image.src = URL.createObjectURL(await response.blob());
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } catch {
    image.remove(); // the item has no picture; its name is there
  }
}

function say(text) {
  element("status").textContent = text;
}

function fail(error) {
  say("");
  element("error").textContent = error.message;
}
