// Elements from values. Text is only ever set as text.

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
