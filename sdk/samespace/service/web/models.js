// The models that may search here, and why.

import { element, figures, keyOf, make, nameOf, number, percent } from "./dom.js";
import { aboutPage } from "./model.js";
import { forget, tell } from "./problems.js";
import { askJson } from "./service.js";

const METRICS = { recall_at_1: "R@1", recall_at_5: "R@5", recall_at_10: "R@10", map: "mAP" };

/** Fill the page of models. */
export function showModels() {
  void fill();
}

async function fill() {
  forget("models-problem");
  element("models-wait").textContent = "Reading the certificates …";
  try {
    const about = await aboutPage();
    const [{ models }, stats] = await Promise.all([askJson("/v1/models"), askJson("/v1/stats")]);
    matrix(models, stats.by_model, about);
    const proofs = models.filter((entry) => entry.certificate).map(certificate);
    element("certificates").replaceChildren(...(proofs.length ? proofs : [nothing()]));
    element("models-found").hidden = false;
  } catch (error) {
    element("models-found").hidden = true;
    tell("models-problem", error, () => void fill());
  }
  element("models-wait").textContent = "";
}

function nothing() {
  const text = "There are none yet: only the gallery’s own model may search. ";
  const command = make("code", {}, "samespace verify");
  return make("p", { class: "hint" }, text, command, " measures another model and issues one.");
}

// Rows search columns. A column is a model that made items, or that a certificate was measured on.
function matrix(models, counts, about) {
  const made = new Map(counts.map(({ model, items }) => [keyOf(model), items]));
  const columns = new Map();
  for (const { model, certificate: proof } of models) {
    if (!proof || made.get(keyOf(model))) columns.set(keyOf(model), model);
    if (proof) columns.set(keyOf(proof.gallery), proof.gallery);
  }
  const head = [...columns.values()].map((model) =>
    make(
      "th",
      { scope: "col" },
      nameOf(model),
      make("span", { class: "hint" }, holds(made.get(keyOf(model)) ?? 0)),
    ),
  );
  const corner = make("td", {}, "query ↓ · gallery →");
  element("matrix").tHead.replaceChildren(make("tr", {}, corner, ...head));
  const rows = models.map((entry) => {
    const cells = [...columns.keys()].map((key) => cell(entry, key, models));
    return make("tr", {}, make("th", { scope: "row" }, nameOf(entry.model), roles(entry, about)), ...cells);
  });
  element("matrix").tBodies[0].replaceChildren(...rows);
}

const holds = (items) => (items === 1 ? "1 item" : `${number(items)} items`);

function roles({ model, certificate: proof, runs_here: runs, is_offered: offered }, about) {
  const said = [
    proof ? undefined : "the gallery’s anchor",
    model.fingerprint === about.fingerprint ? "in this page" : undefined,
    runs ? "on the server" : undefined,
    offered ? "for download" : undefined,
  ];
  return make("span", { class: "hint" }, said.filter(Boolean).join(", "));
}

function cell({ model, certificate: proof }, column, models) {
  if (proof && keyOf(proof.gallery) === column) {
    return make(
      "td",
      { class: "passed" },
      make("strong", {}, percent(proof.figures.recall_at_1)),
      make("span", { class: "hint" }, passed(proof.criterion)),
    );
  }
  if (keyOf(model) !== column) return make("td", { class: "unmeasured" }, "not measured");
  // A certificate of an upgrade was measured against the old model in its own gallery.
  const upgraded = models.find(
    ({ certificate: c }) => c?.criterion.rule === "upgrade" && keyOf(c.gallery) === column,
  );
  const { metric, reference_value: before } = upgraded?.certificate.criterion ?? {};
  const value = metric === "recall_at_1" && percent(before);
  return make(
    "td",
    {},
    ...(value ? [make("strong", {}, value)] : []),
    make("span", { class: "hint" }, "its own vectors"),
  );
}

const points = (value) => `${value >= 0 ? "+" : "−"}${Math.abs(100 * value).toFixed(1)}`;

function passed({ reference, difference_low: low, difference_high: high }) {
  return `${points(low)} to ${points(high)} points above ${short(reference)}`;
}

// "edge-alone 3f4b1e8c1478 (onnx-fp32)" without the digits.
const short = (reference) => reference.replace(/ [0-9a-f]{12} \(/, " (");

function certificate({ model, certificate: proof }) {
  const { dataset, criterion, gallery, issued, version, sha256, prefixes } = proof;
  const { metric, value, reference, reference_value: before } = criterion;
  const name = METRICS[metric] ?? metric;
  const facts = [
    ["searches vectors of", nameOf(gallery)],
    ["measured on", `${dataset.name}: ${number(dataset.queries)} queries in ${number(dataset.gallery)} pictures`],
    ["passed by", `${name} ${percent(value)}, which is ${passed(criterion)} by itself (${percent(before)}), at 95 % confidence`],
    ...(prefixes?.length ? [["also holds at", `the first ${prefixes.join(", ")} numbers`]] : []),
    ["issued", `${issued.slice(0, 10)}, samespace ${version}`],
    ["digest", make("code", { title: sha256 }, `${sha256.slice(0, 16)}…`)],
  ];
  const scores = Object.entries(METRICS)
    .filter(([key]) => proof.figures[key] !== undefined)
    .map(([key, title]) => [title, percent(proof.figures[key])]);
  return make(
    "article",
    { class: "card" },
    make("h3", {}, nameOf(model)),
    make("dl", { class: "tiles" }, ...figures(scores)),
    make("dl", { class: "facts" }, ...figures(facts)),
    make(
      "details",
      {},
      make("summary", {}, "The certificate as it is stored"),
      make("pre", { tabindex: 0 }, JSON.stringify(proof, undefined, 1)),
    ),
  );
}
