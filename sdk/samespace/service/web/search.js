// Search by a picture: embedded here, and, if the visitor wants, on the server too.

import { element, say } from "./dom.js";
import { aboutPage, loadModel } from "./model.js";
import { forget, tell } from "./problems.js";
import { compare, showList, showPictures, waitForList } from "./results.js";
import { askTimed } from "./service.js";

const K = 12;

let turn = 0;
let last;

/** Wait for pictures: chosen, taken, dropped anywhere or pasted. */
export function startSearch() {
  for (const id of ["file", "camera"]) {
    element(id).addEventListener("change", (event) => {
      const [file] = event.target.files;
      if (file) void search(file);
      event.target.value = ""; // the same file may be chosen again
    });
  }
  receiveDrops();
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file && isShown()) void search(file);
  });
  element("compare").addEventListener("change", () => {
    promise();
    if (last) void search(last);
  });
  void prepare();
}

// What leaves this device, as it is at the moment.
let vector = "a vector";
function promise() {
  element("promise").textContent = element("compare").checked
    ? `Your browser embeds it and sends ${vector}; the server gets the picture as well.`
    : `It stays on this device: your browser embeds it and sends only ${vector}.`;
}

const isShown = () => !element("search").hidden;

// The whole window takes drops: a picture that misses the box must not replace the page.
function receiveDrops() {
  const box = element("drop");
  let inside = 0;
  const light = (change) => {
    inside = Math.max(0, change === 0 ? 0 : inside + change);
    box.classList.toggle("over", inside > 0);
  };
  addEventListener("dragenter", () => light(1));
  addEventListener("dragleave", () => light(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    light(0);
    if (!isShown()) return;
    const { files } = event.dataTransfer;
    if (files.length) void search(files[0]);
    else say("status", "That was no file. Save the picture first, then drop its file.");
  });
}

// Fetch the model before the first picture comes.
async function prepare() {
  forget("search-problem");
  try {
    await ready();
    if (turn === 0) say("status", "");
  } catch (error) {
    if (turn > 0) return; // the search says so
    say("status", "");
    tell("search-problem", error, () => void prepare());
  }
}

// The model, and what the page says of it and of the service.
async function ready() {
  const about = await aboutPage();
  showPictures(about.pictures);
  if (!about.server_models.length) {
    element("compare").disabled = true;
    element("compare-hint").textContent =
      "This service runs no model of its own: it was started without --bundle.";
  }
  const embedder = await loadModel((text) => say("status", text));
  vector = `a vector of ${4 * embedder.dim} bytes`;
  promise();
  return embedder;
}

async function search(file) {
  const mine = ++turn;
  const isOld = () => mine !== turn; // another picture came
  last = file;
  forget("search-problem");
  forget("there-problem");
  showQuery(file);
  say("status", "Searching …");
  element("answer").setAttribute("aria-busy", "true");
  const isCompared = element("compare").checked;
  const here = await searchHere(file).catch((error) => {
    if (!isOld()) fail("search-problem", error, file);
  });
  if (isOld()) return;
  showHere(here, isCompared);
  let there;
  if (isCompared) {
    waitForList("there");
    there = await searchThere(file).catch((error) => {
      // Without a list from here, one problem is told already.
      if (!isOld() && here) fail("there-problem", error, file);
    });
    if (isOld()) return;
    showList("there", there);
    if (here && there) compare(here, there);
    element("answer").hidden = !here && !there;
  }
  element("answer").removeAttribute("aria-busy");
  say("status", told(here ?? there));
}

function showHere(here, isCompared) {
  element("here").hidden = !here;
  element("there").hidden = !isCompared;
  element("answer").hidden = !here && !isCompared;
  element("answer").classList.toggle("compared", Boolean(here) && isCompared);
  element("agreement").hidden = true;
  element("nothing").hidden = !here || here.hits.length > 0;
  if (here) showList("here", here);
}

function fail(place, error, file) {
  say("status", "");
  tell(place, error, () => void search(file), file);
}

// What is read out once the lists are there.
function told(found) {
  if (!found) return "";
  if (!found.hits.length) return "Nothing was found.";
  const [{ id, payload }] = found.hits;
  return `${found.hits.length} found, first ${payload?.label ?? id}.`;
}

async function searchHere(file) {
  const embedder = await ready();
  say("status", "Searching …");
  const began = performance.now();
  const numbers = await embedder.embed(file);
  const embedding = performance.now() - began;
  const { fingerprint, variantSha256 } = embedder.identity;
  const body = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  const { value, took } = await askTimed(
    `/v1/search/vectors?k=${K}&fingerprint=${fingerprint}&variant=${variantSha256}`,
    { method: "POST", body, type: "application/octet-stream" },
  );
  return {
    hits: value.results[0],
    model: value.model,
    sent: body.length,
    what: "a vector",
    took: embedding + took,
    embedding,
  };
}

async function searchThere(file) {
  const { value, took } = await askTimed(`/v1/search/pictures?k=${K}`, {
    method: "POST",
    body: file,
    type: "application/octet-stream",
  });
  return { hits: value.results[0], model: value.model, sent: file.size, what: "the picture", took };
}

function showQuery(file) {
  const place = element("query");
  const image = place.querySelector("img");
  URL.revokeObjectURL(image.src);
  place.hidden = true;
  image.onload = () => {
    place.hidden = false; // what is no picture is not shown
  };
  image.src = URL.createObjectURL(file);
  element("drop").classList.add("used");
  say("invitation", "Another one? Drop it here, paste it, or");
}
