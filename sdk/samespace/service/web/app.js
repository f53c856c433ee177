// The page: which part is shown, whose gallery it is, and the visitor's key.

import { element, number } from "./dom.js";
import { changeKey, KEPT } from "./keys.js";
import { aboutPage } from "./model.js";
import { showModels } from "./models.js";
import { startSearch } from "./search.js";
import { askJson } from "./service.js";
import { watchUpgrade } from "./upgrade.js";

const PAGES = { search: () => undefined, models: showModels, upgrade: watchUpgrade };
const TITLES = { search: "Search", models: "Models", upgrade: "Upgrade" };

let leave;

const chosen = () => (location.hash.slice(1) in PAGES ? location.hash.slice(1) : "search");

function show() {
  const name = chosen();
  leave?.();
  for (const page of Object.keys(PAGES)) element(page).hidden = page !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  title();
  leave = PAGES[name]();
}

function title() {
  document.title = `${TITLES[chosen()]} · ${element("gallery").textContent}`;
}

// Whose gallery it is; where a key is needed, this is what asks for it.
async function introduce() {
  try {
    await aboutPage();
    title();
    const { items } = await askJson("/v1/stats");
    element("items").textContent = items === 1 ? "1 item" : `${number(items)} items`;
  } catch {
    // Whatever the visitor does next says what is wrong.
  }
}

addEventListener("hashchange", () => {
  show();
  element(`${chosen()}-title`).focus();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which page is shown
  element("main").focus();
});
element("change-key").hidden = !sessionStorage.getItem(KEPT);
element("change-key").addEventListener("click", async () => {
  if (!(await changeKey())) return;
  await introduce();
  show();
});
startSearch();
show();
void introduce();
