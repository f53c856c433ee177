// Elements from values. Text is only ever set as text.

/** The element with an id. */
export const element = (id) => document.getElementById(id);

/** An element with attributes and children. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Pairs of terms and figures for a list of definitions. */
export function figures(pairs) {
  return pairs.map(([term, value]) =>
    make("div", {}, make("dt", {}, term), make("dd", {}, value)),
  );
}

/** Set an element's text, unless it is that already: what is read out is read out once. */
export function say(id, text) {
  const place = element(id);
  if (place.textContent !== text) place.textContent = text;
}

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** A number of bytes for people. */
export function bytes(count) {
  let unit = 0;
  let value = count;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toLocaleString("en", { maximumSignificantDigits: 3 })} ${UNITS[unit]}`;
}

/** Milliseconds for people. */
export function milliseconds(value) {
  return `${value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 })} ms`;
}

/** A share in percent; a dash where there is none. */
export function percent(share) {
  return share === undefined || share === null ? "–" : `${(100 * share).toFixed(1)} %`;
}

/** A whole number for people. */
export const number = (value) => value.toLocaleString("en");

/** A span of seconds for people, roughly. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toLocaleString("en", { maximumFractionDigits: 1 })} h`;
}

/** A model, down to its file. */
export const nameOf = ({ name, variant }) => `${name} · ${variant}`;

/** What tells models apart: the fingerprint, and the file. */
export const keyOf = (model) => `${model.fingerprint} ${model.variant_sha256}`;
