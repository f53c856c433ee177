// How far the upgrade to a newer model is, as it goes on.

import { duration, element, figures, keyOf, make, nameOf, number, percent, say } from "./dom.js";
import { forget, tell } from "./problems.js";
import { askJson } from "./service.js";

const EVERY = 2000;
const STALLED = 15; // seconds without progress after which that is said

// What was seen of the upgrade so far: [seconds, items done].
let seen = [];

/** Show the upgrade until the returned function is called. */
export function watchUpgrade() {
  let timer;
  let left = false;
  const look = async () => {
    clearTimeout(timer);
    let goesOn = true;
    if (!document.hidden) {
      try {
        const [{ upgrade }, stats] = await Promise.all([askJson("/v1/upgrade"), askJson("/v1/stats")]);
        if (left) return;
        forget("upgrade-problem");
        show(upgrade, stats);
      } catch (error) {
        if (left) return;
        tell("upgrade-problem", error, () => void look());
        goesOn = error.reason !== "cancelled"; // who wants to give no key is asked for it once
      }
      say("upgrade-wait", "");
    }
    if (!left && goesOn) timer = setTimeout(() => void look(), EVERY);
  };
  seen = [];
  say("upgrade-wait", "Asking the service …");
  void look();
  return () => {
    left = true;
    clearTimeout(timer);
  };
}

function show(upgrade, stats) {
  element("upgrade-running").hidden = !upgrade;
  element("upgrade-models").hidden = stats.items === 0;
  element("by-model").replaceChildren(
    ...stats.by_model.filter(({ items }) => items > 0).map((row) => share(row, stats.items, upgrade)),
  );
  if (upgrade) showProgress(upgrade);
  else {
    say("upgrade-state", "No upgrade is under way. “samespace upgrade plan” tells what one would take, and changes nothing.");
    say("upgrade-said", "No upgrade is under way.");
  }
}

function share({ model, items }, all, upgrade) {
  const isNew = upgrade && keyOf(model) === keyOf(upgrade.target);
  const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("span", {}));
  bar.firstChild.style.width = `${(100 * items) / all}%`;
  return make(
    "li",
    { class: isNew ? "new" : undefined },
    make("span", { class: "of" }, nameOf(model)),
    make("span", { class: "count" }, `${number(items)} of ${number(all)}`),
    bar,
  );
}

const STATES = {
  running: (name) => `Items are embedded anew with ${name}. Searches go on meanwhile: every item is found once, by its old vector or its new one.`,
  committed: (name) => `The upgrade to ${name} is committed. Its old vectors are kept until they are discarded, so there still is a way back.`,
  "rolling back": (name) => `The upgrade to ${name} is being rolled back: old vectors return to their places.`,
};

function showProgress(upgrade) {
  const { target, state, share, items, done, waiting, kept, started, order } = upgrade;
  const name = nameOf(target);
  say("upgrade-state", STATES[state]?.(name) ?? `To ${name}: ${state}.`);
  say("upgrade-share", percent(share));
  say("upgrade-count", `${number(done)} of ${number(items)} items`);
  element("upgrade-bar").value = share;
  // Read out at every tenth, not at every look.
  say("upgrade-said", `${state}: ${done === items ? "all" : `${10 * Math.floor(10 * share)} %`} of the items done`);
  say("upgrade-pace", state === "running" ? pace(done, waiting) : "");
  element("upgrade-figures").replaceChildren(
    ...figures([
      ["to do", number(waiting)],
      ["set aside", number(upgrade.unreadable_count)],
      ["old vectors kept", number(kept)],
    ]),
  );
  const when = new Date(started).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  say("upgrade-began", `Begun ${when}, in the order “${order}”.`);
  setAside(upgrade);
}

function pace(done, waiting) {
  if (!waiting) return "All that can be embedded anew is. Commit it, or roll it back.";
  const now = performance.now() / 1000;
  if (seen.length && done < seen[0][1]) seen = [];
  if (!seen.length || seen.at(-1)[1] !== done) seen.push([now, done]);
  const [since, before] = seen[0];
  const rate = (done - before) / (seen.at(-1)[0] - since);
  if (now - seen.at(-1)[0] > STALLED) {
    return `Nothing was done for ${duration(now - seen.at(-1)[0])}. If it was stopped, “samespace upgrade run” goes on where it was.`;
  }
  if (!(rate > 0)) return "Watching how fast it goes …";
  return `${rate.toLocaleString("en", { maximumSignificantDigits: 2 })} items a second: about ${duration(waiting / rate)} to go.`;
}

function setAside({ unreadable_count: count, unreadable }) {
  const place = element("unreadable");
  place.hidden = count === 0;
  const shown = Object.entries(unreadable);
  place.querySelector("summary").textContent =
    `${count === 1 ? "1 item" : `${number(count)} items`} could not be embedded anew and keep${count === 1 ? "s its old vector" : " their old vectors"}`;
  const lines = shown.map(([id, why]) => make("li", {}, `${id}: ${why}`));
  if (count > shown.length) lines.push(make("li", {}, `and ${number(count - shown.length)} more`));
  place.querySelector("ul").replaceChildren(...lines);
}
