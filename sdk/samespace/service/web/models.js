// The models that may search here, and why.

import { make, percent } from "./dom.js";
import { askJson } from "./service.js";

/** Fill the page of models. */
export function showModels() {
  void fill();
}

async function fill() {
  const rows = document.getElementById("matrix");
  const details = document.getElementById("certificates");
  try {
    const [{ models }, stats] = await Promise.all([askJson("/v1/models"), askJson("/v1/stats")]);
    const items = new Map(stats.by_model.map(({ model, items }) => [key(model), items]));
    rows.replaceChildren(...models.map((entry) => row(entry, items.get(key(entry.model)) ?? 0)));
    details.replaceChildren(...models.filter((m) => m.certificate).map(certificate));
  } catch (error) {
    rows.replaceChildren(make("tr", {}, make("td", { colspan: 8, role: "alert" }, error.message)));
  }
}

const key = (model) => `${model.fingerprint} ${model.variant_sha256}`;

function row({ model, certificate, runs_here }, items) {
  const figures = certificate?.figures ?? {};
  const cells = [
    `${model.variant}${runs_here ? ", runs here" : ""}`,
    items.toLocaleString("en"),
    ...["recall_at_1", "recall_at_5", "recall_at_10", "map"].map((name) => percent(figures[name])),
    certificate ? passed(certificate.criterion) : "anchor: the space is its own",
  ];
  return make(
    "tr",
    {},
    make("th", { scope: "row" }, model.name),
    ...cells.map((text) => make("td", {}, text)),
  );
}

function passed(criterion) {
  const { metric, difference_low: low, difference_high: high } = criterion;
  const points = (value) => (100 * value).toFixed(1);
  return `${metric} +${points(low)} to +${points(high)} points above ${criterion.reference}`;
}

function certificate({ model, certificate }) {
  const { dataset } = certificate;
  const said =
    `${model.name}, ${model.variant}: on ${dataset.name}, ${dataset.queries} queries in ` +
    `${dataset.gallery} pictures, ${certificate.issued.slice(0, 10)}`;
  return make(
    "details",
    {},
    make("summary", {}, said),
    make("pre", { tabindex: 0 }, JSON.stringify(certificate, undefined, 1)),
  );
}
