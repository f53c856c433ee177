// The lists of what was found: pictures, ids, scores, costs, and where two lists differ.

import { bytes, element, figures, make, milliseconds, nameOf } from "./dom.js";
import { ask } from "./service.js";

let arePictures = false;

/** Say whether items have pictures. */
export function showPictures(are) {
  arePictures = are;
}

/** Show that a list is being asked for. */
export function waitForList(id) {
  const place = element(id);
  place.querySelector(".model").textContent = "Sending the picture …";
  place.querySelector(".model").classList.add("wait");
  place.querySelector(".costs").replaceChildren();
  place.querySelector(".hits").replaceChildren();
}

/** Fill a list; `found` is undefined where asking failed. */
export function showList(id, found) {
  const place = element(id);
  const model = place.querySelector(".model");
  model.classList.remove("wait");
  model.textContent = found ? nameOf(found.model) : "";
  place.querySelector(".costs").replaceChildren(...(found ? costs(found) : []));
  place.querySelector(".hits").replaceChildren(...(found ? found.hits.map(item) : []));
}

function costs({ took, embedding, sent, what }) {
  const embedded = embedding === undefined ? "" : `, ${milliseconds(embedding)} of it to embed`;
  return figures([
    [`latency${embedded}`, milliseconds(took)],
    [`sent: ${what}`, bytes(sent)],
  ]);
}

function item(hit, rank) {
  const made = make("li", { "data-id": hit.id, title: hit.id });
  if (arePictures) {
    const frame = make("div", { class: "frame" });
    made.append(frame);
    void fetchPicture(hit.id, frame);
  }
  const label = hit.payload?.label;
  if (label !== undefined) made.append(make("p", { class: "label" }, String(label)));
  made.append(make("p", { class: label === undefined ? "label id" : "id" }, hit.id));
  const place = make("span", { class: "rank", "aria-hidden": "true" }, String(rank + 1));
  made.append(make("p", { class: "line" }, make("span", { class: "score" }, hit.score.toFixed(3)), place));
  return made;
}

/** Mark in both lists what the other has not, and say in a sentence how far they agree. */
export function compare(here, there) {
  if (!here.hits.length || !there.hits.length) return;
  markList("here", here.hits, there.hits);
  markList("there", there.hits, here.hits);
  agreement(here.hits, there.hits);
}

function markList(id, hits, others) {
  const ranks = new Map(others.map((hit, rank) => [hit.id, rank]));
  const items = element(id).querySelectorAll(".hits > li");
  hits.forEach((hit, rank) => mark(items[rank], rank, ranks.get(hit.id)));
}

// A flip: what one list has first and the other has not. Less: what the other lacks altogether.
function mark(made, rank, other) {
  const isFlip = rank === 0 && other !== 0;
  if (!isFlip && other !== undefined) return;
  made.classList.add(isFlip ? "flip" : "lone");
  const there = other === undefined ? "not in the other" : `${ordinal(other + 1)} in the other`;
  made.append(make("p", { class: "mark" }, isFlip ? `Flip: ${there}` : "only in this list"));
}

const RULES = new Intl.PluralRules("en", { type: "ordinal" });
const ENDS = { one: "st", two: "nd", few: "rd", other: "th" };
const ordinal = (place) => `${place}${ENDS[RULES.select(place)]}`;

function agreement(here, there) {
  const known = new Set(there.map((hit) => hit.id));
  const both = here.filter((hit) => known.has(hit.id)).length;
  const isSame = here[0].id === there[0].id;
  const said = isSame ? "Both find the same item first." : "A flip: each finds another item first.";
  const place = element("agreement");
  place.hidden = false;
  place.classList.toggle("flipped", !isSame);
  place.replaceChildren(
    make("strong", {}, said),
    ` ${both} of ${here.length} items are in both lists.`,
  );
}

// An <img> cannot show a key, so pictures are fetched like everything else.
async function fetchPicture(id, frame) {
  try {
    const path = id.split("/").map(encodeURIComponent).join("/");
    const { response } = await ask(`/v1/pictures/${path}`);
    const image = make("img", { alt: "" });
    image.src = URL.createObjectURL(await response.blob());
    await image.decode();
    frame.append(image);
    URL.revokeObjectURL(image.src);
  } catch {
    frame.classList.add("none"); // the item has no picture; its id is there
  }
}
