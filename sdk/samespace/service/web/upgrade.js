// How far the upgrade to a newer model is, as it goes on.

import { figures, make } from "./dom.js";
import { askJson } from "./service.js";

const EVERY = 2000;

/** Show the upgrade until the returned function is called. */
export function watchUpgrade() {
  let timer;
  let left = false;
  const look = async () => {
    try {
      show((await askJson("/v1/upgrade")).upgrade);
    } catch (error) {
      say(error.message);
    }
    if (!left) timer = setTimeout(look, EVERY);
  };
  void look();
  return () => {
    left = true;
    clearTimeout(timer);
  };
}

const element = (id) => document.getElementById(id);

function say(text) {
  if (element("upgrade-state").textContent !== text) element("upgrade-state").textContent = text;
}

function show(upgrade) {
  element("upgrade-running").hidden = !upgrade;
  if (!upgrade) {
    say("No upgrade is under way: all items are of one model.");
    return;
  }
  const { target, state, share, items, done, waiting, kept, started } = upgrade;
  say(`To ${target.name}: ${state}, ${(100 * share).toFixed(1)} % of the items are embedded anew.`);
  element("upgrade-bar").value = share;
  const number = (value) => value.toLocaleString("en");
  element("upgrade-figures").replaceChildren(
    ...figures([
      ["items", number(items)],
      ["done", number(done)],
      ["to do", number(waiting)],
      ["old vectors kept for a rollback", number(kept)],
      ["started", started],
    ]),
  );
  const bad = element("unreadable");
  bad.hidden = upgrade.unreadable_count === 0;
  bad.querySelector("summary").textContent =
    `${number(upgrade.unreadable_count)} items cannot be embedded again`;
  const lines = Object.entries(upgrade.unreadable).map(([id, why]) => make("li", {}, `${id}: ${why}`));
  bad.querySelector("ul").replaceChildren(...lines);
}
