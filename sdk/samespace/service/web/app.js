// The page: which part is shown, and what is wrong.

import { showModels } from "./models.js";
import { startSearch } from "./search.js";
import { watchUpgrade } from "./upgrade.js";

const PAGES = {
  search: () => undefined,
  models: showModels,
  upgrade: watchUpgrade,
};
const TITLES = { search: "Search", models: "Models", upgrade: "Upgrade" };

let leave;

function show() {
  const name = location.hash.slice(1) in PAGES ? location.hash.slice(1) : "search";
  leave?.();
  for (const page of Object.keys(PAGES)) document.getElementById(page).hidden = page !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[name]} · ${document.getElementById("gallery").textContent}`;
  leave = PAGES[name]();
}

addEventListener("hashchange", show);
show();
void startSearch();
